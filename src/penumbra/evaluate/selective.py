"""What uncertainty is good for: finding errors, ranking cases, deciding what a human reviews.

Risk is any per-case loss in which larger is worse (1 - Dice, or 0/1 error); uncertainty is any
score in which larger means less sure. Ties in uncertainty are resolved by averaging, so that no
figure depends on the order of the cases.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray
from scipy import stats
from scipy.special import digamma

from penumbra.evaluate.arrays import Array, as_numpy
from penumbra.evaluate.overlap import border, bounding_box, widen
from penumbra.evaluate.ranking import auroc

Aggregation = Literal["volume", "region", "interior"]
AGGREGATIONS: tuple[Aggregation, ...] = ("volume", "region", "interior")
RANKED_BY = ("uncertainty/trust", "uncertainty/disagreement", "uncertainty/epistemic/region")
"""The case scores that rank cases for review, the first that a model has: the one that validation
patients chose, else what there is of it."""

POOR_DICE = 0.5
"""A segmentation below this Dice, mean over regions, has failed: a reviewer should see it."""


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Mean risk of the most certain cases, for every coverage 1/n, 2/n, ..., 1."""

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]


def risk_coverage(uncertainty: Array, risk: Array) -> RiskCoverage:
    """Keep the most certain cases first and follow the mean risk of what is kept.

    Cases with equal uncertainty enter with their mean risk. Cases with a NaN are left out.
    """
    unsure, loss = _pairs(uncertainty, risk)
    order = np.argsort(unsure, kind="stable")
    _, tie = np.unique(unsure[order], return_inverse=True)
    shared = np.bincount(tie, weights=loss[order]) / np.maximum(np.bincount(tie), 1)
    kept = np.arange(1, len(loss) + 1)
    return RiskCoverage(kept / max(len(loss), 1), np.cumsum(shared[tie]) / kept)


def aurc(uncertainty: Array, risk: Array) -> float:
    """Area under the risk-coverage curve: the mean over coverages of the risk of what is kept.

    Geifman et al. 2019. The mean risk of all cases is the value of an uncertainty that knows
    nothing; NaN without cases.

    Example:
        >>> aurc(np.array([0.1, 0.9]), np.array([0.0, 1.0]))
        0.25
    """
    curve = risk_coverage(uncertainty, risk)
    return float(curve.risk.mean()) if len(curve.risk) else float("nan")


def weighted_aurc(
    uncertainty: Float[np.ndarray, "n"],
    risk: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "s n"],
) -> Float[np.ndarray, "s"]:
    r"""AURC under each row of whole-numbered case weights, as if the cases were repeated.

    A group of W tied cases with mean risk m, entering after C cases of summed risk L, adds
    $\sum_{k=1}^{W} (L + k m)/(C + k) = W m + (L - m C)\,(\psi(C+W+1) - \psi(C+1))$.
    """
    order = np.argsort(uncertainty, kind="stable")
    starts = np.flatnonzero(np.diff(uncertainty[order], prepend=-np.inf) != 0)
    size = np.add.reduceat(weights[:, order], starts, axis=1)
    loss = np.add.reduceat((weights * risk)[:, order], starts, axis=1)
    level = np.divide(loss, size, out=np.zeros_like(size), where=size > 0)
    after = np.cumsum(size, axis=1)
    before = after - size
    lost = np.cumsum(loss, axis=1) - loss
    share = loss + (lost - level * before) * (digamma(after + 1) - digamma(before + 1))
    total = after[:, -1]
    return np.divide(share.sum(axis=1), total, out=np.full_like(total, np.nan), where=total > 0)


def excess_aurc(uncertainty: Array, risk: Array) -> float:
    """AURC above that of the perfect order (by risk itself); 0 is the best (E-AURC)."""
    _, loss = _pairs(uncertainty, risk)
    return aurc(uncertainty, risk) - aurc(loss, loss)


def spearman(a: Array, b: Array) -> float:
    """Rank correlation in -1..1; NaN when a side does not vary or fewer than 2 pairs remain."""
    first, second = _pairs(a, b)
    if len(first) < 2:
        return float("nan")
    x, y = stats.rankdata(first), stats.rankdata(second)
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class ReviewBudget:
    """What must be reviewed to keep failures at the target.

    Attributes:
        share: of the cases, the most uncertain first, that a human reviews and corrects.
        random_share: the expected share when cases are reviewed in random order.
        threshold: uncertainty from which a case is reviewed; infinite when none is.
        remaining: failures left over all cases.
    """

    share: float
    random_share: float
    threshold: float
    remaining: float


def review_budget(
    uncertainty: Array, failed: Bool[Array, "n"], *, target: float = 0.05
) -> ReviewBudget:
    """The smallest share to review so that failures left over *all* cases are at most ``target``.

    Cases with equal uncertainty are reviewed together: a threshold cannot part them (Ng et al.
    2023 report the same figure against random review).

    Raises:
        ValueError: ``target`` is not in 0..1.
    """
    if not 0 <= target <= 1:
        raise ValueError(f"target must lie in 0..1, got {target}")
    unsure, loss = _pairs(uncertainty, as_numpy(failed).astype(np.float64))
    if len(loss) == 0:
        return ReviewBudget(*[float("nan")] * 4)
    # each candidate keeps every case below one of the distinct uncertainties, or all cases
    levels = np.append(np.unique(unsure), np.inf)
    remaining = np.array([loss[unsure < level].sum() for level in levels]) / len(loss)
    best = int(np.flatnonzero(remaining <= target + 1e-12)[-1])
    share = float((unsure >= levels[best]).mean())
    rate = float(loss.mean())
    random_share = max(0.0, 1 - target / rate) if rate else 0.0
    return ReviewBudget(share, random_share, float(levels[best]), float(remaining[best]))


def error_auroc(
    uncertainty: Float[Array, "*space"],
    error: Bool[Array, "*space"],
    *,
    within: Bool[Array, "*space"] | None = None,
) -> float:
    """Chance that a wrong voxel is more uncertain than a right one; NaN if all are alike."""
    unsure, wrong = as_numpy(uncertainty), as_numpy(error)
    if within is not None:
        kept = as_numpy(within)
        unsure, wrong = unsure[kept], wrong[kept]
    return auroc(unsure.ravel(), wrong.ravel().astype(np.float64))


@dataclass(frozen=True, slots=True)
class Filtering:
    """Areas over the uncertainty threshold, each in 0..1 (QU-BraTS).

    Attributes:
        dice: of the voxels that are kept; high is good.
        lost_positives, lost_negatives: share of the right foreground and background that is
            filtered out; low is good.
        score: mean of ``dice``, 1 - ``lost_positives`` and 1 - ``lost_negatives``.
    """

    dice: float
    lost_positives: float
    lost_negatives: float
    score: float


def filtering(
    uncertainty: Float[Array, "*space"],
    prediction: Bool[Array, "*space"],
    reference: Bool[Array, "*space"],
    *,
    valid: Bool[Array, "*space"],
    points: int = 40,
) -> Filtering:
    """The QU-BraTS score of one region (Mehta et al. 2022): drop the uncertain, watch what goes.

    Voxels above a threshold are dropped, for ``points`` + 1 thresholds from 0 to 1; areas by the
    trapezoid rule. It rewards being uncertain where the prediction is wrong, and only there. Dice
    of two empty masks counts as 1 here, as in the challenge.

    Raises:
        ValueError: the uncertainty lies outside 0..1 (divide it by its largest possible value).
    """
    kept = as_numpy(valid)
    unsure = as_numpy(uncertainty)[kept].astype(np.float64)
    if unsure.size and not (unsure.min() >= 0 and unsure.max() <= 1):
        raise ValueError(
            f"uncertainty must lie in 0..1, got {unsure.min():.4g}..{unsure.max():.4g}"
        )
    thresholds = np.arange(points + 1) / points
    first_kept = np.searchsorted(thresholds, unsure)
    cell = first_kept * 4 + 2 * as_numpy(reference)[kept] + as_numpy(prediction)[kept]
    counts = np.bincount(cell, minlength=4 * (points + 1)).reshape(-1, 4).cumsum(axis=0)
    negative, invented, missed, positive = counts.T.astype(np.float64)
    size = 2 * positive + invented + missed
    dice = np.divide(2 * positive, size, out=np.ones_like(size), where=size > 0)
    lost = [
        np.trapezoid(1 - each / each[-1], thresholds) if each[-1] else 0.0
        for each in (positive, negative)
    ]
    area = float(np.trapezoid(dice, thresholds))
    return Filtering(area, float(lost[0]), float(lost[1]), float((area + 2 - sum(lost)) / 3))


def aggregate(
    uncertainty: Float[Array, "*space"],
    prediction: Integer[Array, "*space"],
    *,
    how: Aggregation,
    valid: Bool[Array, "*space"] | None = None,
) -> float:
    """One uncertainty for a case, from what is known without the reference.

    ``volume``: mean over valid voxels; ``region``: mean over the predicted foreground widened by
    two voxels; ``interior``: mean over the predicted foreground without its border, which is
    uncertain in every case. Where that set is empty the next wider one is used.
    """
    unsure, inside = as_numpy(uncertainty), np.ones(uncertainty.shape, dtype=bool)
    if valid is not None:
        inside = as_numpy(valid)
    foreground = (as_numpy(prediction) > 0) & inside
    chosen = [inside]
    if how != "volume" and foreground.any():
        box = bounding_box(foreground, margin=[2] * foreground.ndim)
        unsure, inside, foreground = unsure[box], inside[box], foreground[box]
        chosen = [widen(foreground, [2] * foreground.ndim) & inside]
        if how == "interior":
            chosen.append(foreground & ~border(foreground))
    kept = next((mask for mask in reversed(chosen) if mask.any()), None)
    return float(unsure[kept].mean(dtype=np.float64)) if kept is not None else float("nan")


def disagreement(predictions: Integer[Array, "t *space"]) -> float:
    """1 - mean pairwise Dice of the foreground between draws, a strong failure detector.

    Zenk et al. 2025. In 0..1; two empty draws agree fully. Only the foreground's box is compared.

    Raises:
        ValueError: fewer than two draws.
    """
    draws = as_numpy(predictions) > 0
    if len(draws) < 2:
        raise ValueError(f"disagreement needs two draws or more, got {len(draws)}")
    if not draws.any():
        return 0.0
    box = bounding_box(np.logical_or.reduce(draws))
    flat = np.stack([draw[box].ravel() for draw in draws]).astype(np.float32)
    overlap = (flat @ flat.T).astype(np.float64)
    size = np.diag(overlap)
    total = size[:, None] + size[None, :]
    pairwise = np.divide(2 * overlap, total, out=np.ones_like(overlap), where=total > 0)
    return float(1 - pairwise[np.triu_indices(len(draws), k=1)].mean())


def _pairs(a: Array, b: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first = np.asarray(as_numpy(a), dtype=np.float64).ravel()
    second = np.asarray(as_numpy(b), dtype=np.float64).ravel()
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} values on one side, {len(second)} on the other")
    defined = ~(np.isnan(first) | np.isnan(second))
    return first[defined], second[defined]
