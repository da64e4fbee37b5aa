"""Whether a map shows what the network uses: erase, ablate, randomise, and watch.

Agreement with an expert's mask says nothing about this, and can be trained for; these figures are
reported beside it. The network comes in as a function, so any network and explainer will do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from penumbra.evaluate.arrays import Array, as_numpy
from penumbra.evaluate.localization import stretch
from penumbra.evaluate.selective import spearman

Predict = Callable[[NDArray[np.float32]], Array]
"""Images [b c *space] -> one score per image, e.g. the probability of the finding."""

AT_ONCE = 2**21
"""Voxels of changed copies that are predicted together."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """Scores while the image is revealed or erased in the order of the map.

    Attributes:
        share: of the voxels changed so far, 0 to 1.
        area: mean score over the shares (trapezoid rule).
    """

    share: NDArray[np.float64]
    score: NDArray[np.float64]
    area: float


def erase(
    predict: Predict,
    image: Float[Array, "c *space"],
    attention: Float[Array, "*space"],
    *,
    mode: Literal["insertion", "deletion"],
    fill: Float[Array, "c *space"],
    steps: int = 20,
) -> Erasure:
    """Insertion or deletion curve (Petsiuk et al. 2018), the most attended voxels first.

    Deletion replaces them by ``fill`` (low area is good); insertion starts from ``fill`` and
    reveals them (high area is good). ``fill`` should look like an image, e.g. a strongly blurred
    copy: zeros are themselves a feature. Voxels with equal attention change together, at the step
    where half of them would have, so a constant map changes everything at once.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    shown, blank = (as_numpy(a).astype(np.float32) for a in (image, fill))
    rank = _share_before(as_numpy(attention))
    share = np.linspace(0.0, 1.0, steps + 1)
    changed = [(rank < s)[None] for s in share]
    match mode:
        case "deletion":
            images = [np.where(c, blank, shown) for c in changed]
        case "insertion":
            images = [np.where(c, shown, blank) for c in changed]
    few = max(1, AT_ONCE // shown.size)
    batches = [np.stack(images[k : k + few]) for k in range(0, len(images), few)]
    score = np.concatenate([as_numpy(predict(batch)) for batch in batches]).astype(np.float64)
    return Erasure(share, score, float(np.trapezoid(score, share)))


@dataclass(frozen=True, slots=True)
class Ablation:
    """What is lost when a gate is replaced by its own mean.

    Attributes:
        drop: mean fall of the probability of what was predicted with the gate; negative when the
            gate stood in the way.
        change: mean absolute change of probability; 0 means that the map is not used at all.
        flipped: share of predictions that change sides.
    """

    drop: float
    change: float
    flipped: float


def gate_ablation(gated: Float[Array, "*cases"], ablated: Float[Array, "*cases"]) -> Ablation:
    """Compare probabilities of "present" with the gate and with its mean in its place.

    For classes, pass the probability of each region or of the foreground.
    """
    before, after = (as_numpy(p).astype(np.float64).ravel() for p in (gated, ablated))
    said = np.where(before >= 0.5, 1.0, -1.0)
    return Ablation(
        drop=float((said * (before - after)).mean()),
        change=float(np.abs(before - after).mean()),
        flipped=float(((before >= 0.5) != (after >= 0.5)).mean()),
    )


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike two maps are: Spearman over voxels, and SSIM of the maps stretched to 0..1."""

    spearman: float
    ssim: float


def similarity(a: Float[Array, "*space"], b: Float[Array, "*space"]) -> Similarity:
    """Likeness of two maps on one grid; Spearman is NaN when a map is constant.

    SSIM uses a window of 7 voxels, less where the grid is smaller, and is NaN below 3.
    """
    first, second = (as_numpy(m).astype(np.float64) for m in (a, b))
    window = min(7, min(first.shape))
    window -= 1 - window % 2
    ssim = float("nan")
    if window >= 3:
        ssim = float(
            structural_similarity(stretch(first), stretch(second), data_range=1.0, win_size=window)
        )
    return Similarity(spearman(first, second), ssim)


def randomisation(
    explain: Callable[[int], Float[Array, "*space"]], *, layers: int
) -> tuple[Similarity, ...]:
    """Cascading weight randomisation (Adebayo et al. 2018): a map must forget as weights do.

    ``explain(k)`` returns the map with the last ``k`` layers' weights drawn anew; the result
    compares ``explain(1)`` .. ``explain(layers)`` with ``explain(0)``. Similarities that stay high
    fail the check: the map shows the image, not the network.
    """
    original = explain(0)
    return tuple(similarity(original, explain(k)) for k in range(1, layers + 1))


def repeatability(maps: Sequence[Float[Array, "*space"]]) -> Similarity:
    """Mean pairwise likeness of one case's maps from networks that differ only in the seed.

    Raises:
        ValueError: fewer than two maps.
    """
    if len(maps) < 2:
        raise ValueError(f"repeatability needs two maps or more, got {len(maps)}")
    pairs = [similarity(a, b) for a, b in combinations(maps, 2)]
    return Similarity(
        float(np.mean([p.spearman for p in pairs])), float(np.mean([p.ssim for p in pairs]))
    )


def _share_before(attention: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share of the voxels that go before each one, ties at the middle of their common stretch."""
    _, tie, count = np.unique(-attention, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2
    return (middle[tie] / attention.size).reshape(attention.shape)
