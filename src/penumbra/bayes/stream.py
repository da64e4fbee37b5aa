"""Volumes window by window: what T draws say of a window, and how windows tile a volume.

Each tile keeps its core and sees a halo of context around it, so every voxel belongs to one window:
no draw's volume is ever held, and memory depends on neither T nor the volume. All tiles share the
bank, hence the same T functions: no seam comes from the draws.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.bayes.bank import Bank, to_probabilities
from penumbra.bayes.uncertainty import Moments
from penumbra.types import Output, Uncertainty

Slices = tuple[slice, ...]
ENOUGH = 0.97
LEAST, STEP = 12, 4


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of a volume: read ``window``, keep ``core`` of it, write it to ``place``."""

    window: Slices
    core: Slices
    place: Slices


@dataclass(frozen=True, slots=True)
class WindowMaps:
    """What the draws say of one window.

    Attributes:
        voxels: cut to the tile's core.
        findings: of the whole window.
        attention: the mean over draws of every level's gate maps, on the whole window.
        counts: [t, b, c] voxels of the core that draw t gives to class c; sum them over the tiles
            for each draw's volumes.
    """

    voxels: Uncertainty | None
    findings: Uncertainty | None
    attention: tuple[Tensor, ...]
    counts: Tensor | None


def tiles(size: Sequence[int], *, window: Sequence[int], halo: Sequence[int]) -> Iterator[Tile]:
    """Windows whose cores cover a volume exactly once.

    A core is ``window - 2 halo`` long; at the volume's border it reaches the border, where there is
    no context to wait for. Windows never leave the volume, and shrink to it where it is smaller.

    Raises:
        ValueError: the halo leaves no core.
    """
    if any(w <= 2 * h for w, h in zip(window, halo, strict=True)):
        raise ValueError(f"halo={tuple(halo)} leaves no core of window={tuple(window)}")
    axes = [list(_along(n, w, h)) for n, w, h in zip(size, window, halo, strict=True)]
    for parts in itertools.product(*axes):
        windows, cores, places = zip(*parts, strict=True)
        yield Tile(windows, cores, places)


def window_maps(
    bank: Bank,
    image: Float[Tensor, "b c *space"],
    *,
    draws: int | None = None,
    core: Slices | None = None,
) -> WindowMaps:
    """Encode once, decode every draw, keep moments only; memory is flat in T.

    Args:
        draws: the first so many draws of the bank (``enough_draws``); all by default.
        core: part of the window that is kept, e.g. ``Tile.core``.
    """
    encoded = bank.encode(image)
    voxels, findings = Moments("categorical"), Moments("bernoulli")
    attention: list[Tensor] = []
    counts = []
    used = min(draws or len(bank), len(bank))
    for t in range(used):
        output = to_probabilities(bank.decode(encoded, t))
        if output.segmentation is not None:
            kept = output.segmentation
            if core is not None:
                kept = kept[(slice(None), slice(None), *core)]
            voxels.update(kept)
            counts.append(_counts(kept))
        if output.findings is not None:
            findings.update(output.findings)
        attention = _add(attention, output, used)
    return WindowMaps(
        voxels=voxels.uncertainty() if voxels.draws else None,
        findings=findings.uncertainty() if findings.draws else None,
        attention=tuple(attention),
        counts=torch.stack(counts) if counts else None,
    )


def enough_draws(
    bank: Bank, windows: Sequence[Float[Tensor, "_ c *_"]], *, correlation: float = ENOUGH
) -> int:
    """Draws after which the maps no longer change much: ``--draws auto``.

    Even and odd draws give two independent mutual-information maps; their correlation r gives the
    full map's correlation with that of endless draws as ``sqrt(2r / (1 + r))`` (Spearman-Brown).
    Draws are added until that reaches ``correlation`` twice in a row, or the bank is used up. One
    number serves a whole volume: pass a few windows that hold structures. Findings stand in without
    voxels.

    Raises:
        ValueError: there is no window, or ``correlation`` is outside (0, 1).
    """
    if not windows or not 0 < correlation < 1:
        raise ValueError(f"{len(windows)} windows, correlation={correlation}: need one, in (0, 1)")
    encoded = [bank.encode(window) for window in windows]
    good = 0
    halves = [(Moments(), Moments()) for _ in windows]
    for t in range(len(bank)):
        for features, pair in zip(encoded, halves, strict=True):
            _update(pair[t % 2], to_probabilities(bank.decode(features, t)))
        used = t + 1
        if used >= LEAST and used % STEP == 0:
            even, odd = (torch.cat([_information(p[k]) for p in halves]) for k in (0, 1))
            good = good + 1 if reliability(even, odd) >= correlation else 0
            if good == 2:
                return used
    return len(bank)


def reliability(half: Float[Tensor, " n"], other: Float[Tensor, " n"]) -> float:
    """Expected correlation with the limit of a map whose two halves are given; 0 without signal."""
    r = float(torch.stack([half, other]).double().corrcoef()[0, 1])
    return (2 * r / (1 + r)) ** 0.5 if r > 0 else 0.0


def _along(size: int, window: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    window = min(window, size)
    begin = 0
    while begin < size:
        start = max(0, min(begin - halo, size - window))
        stop = start + window
        end = size if stop == size else stop - halo
        yield slice(start, stop), slice(begin - start, end - start), slice(begin, end)
        begin = end


def _counts(probabilities: Tensor) -> Tensor:
    labels = probabilities.argmax(1).flatten(1)
    classes = probabilities.shape[1]
    return torch.stack([torch.bincount(row, minlength=classes) for row in labels])


def _add(total: list[Tensor], output: Output, draws: int) -> list[Tensor]:
    if not total:
        return [maps / draws for maps in output.attention]
    return [a.add_(b, alpha=1 / draws) for a, b in zip(total, output.attention, strict=True)]


def _update(moments: Moments, output: Output) -> None:
    probabilities = output.segmentation if output.segmentation is not None else output.findings
    assert probabilities is not None
    moments.kind = "categorical" if output.segmentation is not None else "bernoulli"
    moments.update(probabilities)


def _information(moments: Moments) -> Tensor:
    return moments.uncertainty().mutual_information_nats.flatten()
