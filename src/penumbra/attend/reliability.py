"""Is attention calibrated? How often a region shown at this attention and uncertainty matters.

Counts are kept per case and add up, so an interval comes from resampling patients.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penumbra.attend.alignment import area_average


@dataclass(frozen=True, slots=True)
class Edges:
    """Inner edges of the bins, rising: attention in [0, 1], uncertainty as a share of u_ref."""

    attention: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    uncertainty: tuple[float, ...] = (0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums per attention bin and uncertainty bin, ``[attention bins, uncertainty bins]``."""

    regions: Tensor
    attention: Tensor
    relevance: Tensor


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the reliability table.

    Attributes:
        attention_bin, uncertainty_bin: indices from 0, low to high.
        regions: how many regions were shown like this.
        attention: their mean attention.
        relevance: how much of them the experts marked; for a calibrated map the two are equal.
    """

    attention_bin: int
    uncertainty_bin: int
    regions: int
    attention: float
    relevance: float


def tally(
    attention: Float[Tensor, "b m *space"],
    uncertainty: Float[Tensor, "b m *space"],
    expert: Float[Tensor, "b m *space"],
    body: Bool[Tensor, "b *space"],
    *,
    edges: Edges,
    block: int = 8,
) -> Tally:
    """Count regions, blocks of about ``block`` voxels per axis; hand over annotated maps only.

    A block counts where at least half of it lies in the body; its attention, uncertainty and
    expert share are means over the block. ``block=1`` counts voxels.
    """
    grid = tuple(max(1, size // block) for size in attention.shape[2:])
    counted = (area_average(body[:, None].float(), grid) >= 0.5).expand(
        -1, attention.shape[1], *grid
    )
    shown, doubt, real = (
        area_average(x.float(), grid)[counted].double() for x in (attention, uncertainty, expert)
    )
    row, column = _bins(shown, edges.attention), _bins(doubt, edges.uncertainty)
    shape = (len(edges.attention) + 1, len(edges.uncertainty) + 1)
    index = row * shape[1] + column

    def total(values: Tensor) -> Tensor:
        sums = torch.zeros(shape[0] * shape[1], dtype=torch.float64, device=values.device)
        return sums.index_add(0, index, values).reshape(shape).cpu()

    return Tally(total(torch.ones_like(shown)), total(shown), total(real))


def merge(tallies: Iterable[Tally]) -> Tally:
    """The sum over cases (or over a bootstrap sample of patients).

    Raises:
        ValueError: there is none.
    """
    parts = list(tallies)
    if not parts:
        raise ValueError("no case to merge")
    regions, attention, relevance = (
        torch.stack([getattr(part, name) for part in parts]).sum(0)
        for name in ("regions", "attention", "relevance")
    )
    return Tally(regions, attention, relevance)


def table(counts: Tally) -> list[Cell]:
    """Every cell that holds a region, low to high."""
    cells = []
    for row, column in (counts.regions > 0).nonzero().tolist():
        n = float(counts.regions[row, column])
        shown = float(counts.attention[row, column]) / n
        real = float(counts.relevance[row, column]) / n
        cells.append(Cell(row, column, int(n), shown, real))
    return cells


def calibration_error(counts: Tally) -> float:
    """Expected calibration error of attention, in [0, 1]; NaN when nothing was counted.

    Mean over regions of |attention - relevance| of the region's cell.

    Example:
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> calibration_error(Tally(4 * one, 2 * one, 1 * one))
        0.25
    """
    total = counts.regions.sum()
    if total == 0:
        return float("nan")
    return float((counts.attention - counts.relevance).abs().sum() / total)


def shares(counts: Tally, *, strength: float = 10.0) -> Float[Tensor, "rows columns"]:
    """The share of regions shown like each cell that mattered, in [0, 1].

    A cell with few regions is drawn towards its attention bin's share, that one towards the overall
    share, each as if by ``strength`` more regions.
    """
    overall = counts.relevance.sum() / counts.regions.sum().clamp(min=1)
    by_row = _shrunk(counts.relevance.sum(1), counts.regions.sum(1), overall, strength)
    return _shrunk(counts.relevance, counts.regions, by_row[:, None], strength)


def calibrated(
    attention: Float[Tensor, "*maps"],
    uncertainty: Float[Tensor, "*maps"],
    share: Float[Tensor, "rows columns"],
    *,
    edges: Edges,
) -> Float[Tensor, "*maps"]:
    """Voxel by voxel, the share of validation regions shown like this one that mattered.

    Raises:
        ValueError: the table has another number of bins than ``edges``.
    """
    expected = (len(edges.attention) + 1, len(edges.uncertainty) + 1)
    if tuple(share.shape) != expected:
        raise ValueError(f"a table of {tuple(share.shape)} cells does not fit {expected} bins")
    row, column = _bins(attention, edges.attention), _bins(uncertainty, edges.uncertainty)
    return share.to(attention)[row, column]


def _bins(values: Tensor, edges: tuple[float, ...]) -> Tensor:
    return torch.bucketize(values, torch.tensor(edges, dtype=values.dtype, device=values.device))


def _shrunk(relevance: Tensor, regions: Tensor, towards: Tensor, strength: float) -> Tensor:
    return (relevance + strength * towards) / (regions + strength)
