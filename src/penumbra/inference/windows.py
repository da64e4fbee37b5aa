"""What the network sees of a case, in turn: slices in batches, blended windows, or large tiles.

Blended windows have the size of a training patch and overlap by half. Tiles keep their core and see
a halo of context around it, so every voxel is computed once: several times cheaper. A group norm's
statistics are those of its field of view, so a tile is exact only where it spans the whole volume;
elsewhere it sees other statistics than a training patch did (docs/results/posterior-cost.md).
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor

from penumbra.augment import to_display
from penumbra.config import Config
from penumbra.data.preprocess import Prepared

Slices = tuple[slice, ...]
SLICES_PER_BATCH = 16
OVERLAP = 0.5
HALO = 16
"""Voxels of context around a tile's core, and what its sides are multiples of."""


@dataclass(frozen=True)
class Window:
    """Images [n, c, ...] in display units, and where their maps belong in the case.

    Attributes:
        place: of the kept maps in the case.
        kept: the part of the maps that is used; everything where windows are blended.
        core: the part of the kept maps that no other window's core covers.
        weight: of the kept maps in the blend.
        stacked: the n images are slices along the case's last axis.
    """

    image: Tensor
    place: Slices
    kept: Slices
    core: Slices
    weight: Tensor
    stacked: bool = False

    def laid(self, maps: Tensor) -> Tensor:
        """Maps [n, ..., *patch] as they lie in the case."""
        return maps.cpu().movedim(0, -1) if self.stacked else maps.cpu()[0]


def windows(
    prepared: Prepared, config: Config, *, how: Literal["blend", "tile"] = "blend"
) -> Iterator[Window]:
    """The windows of a case, in a fixed order; ``how`` says it of volumetric networks."""
    image = torch.from_numpy(np.array(prepared.image, dtype=np.float32))
    display = to_display(image[None], modality=config.modality, window_hu=config.data.window_hu)[0]
    shape, whole = display.shape[1:], (slice(None),) * (display.dim() - 1)
    one = torch.ones(())
    if len(shape) == 2:
        yield Window(display[None], whole, whole, whole, one)
    elif config.data.dim == 2:
        every = whole[1:]
        for start in range(0, shape[-1], SLICES_PER_BATCH):
            batch = slice(start, min(start + SLICES_PER_BATCH, shape[-1]))
            stack = rearrange(display[..., batch], "c h w n -> n c h w")
            yield Window(stack, (*every, batch), every, whole, one, stacked=True)
    elif how == "tile":
        size = tuple(_side(2 * p, n) for p, n in zip(config.data.patch, shape, strict=True))
        halo = tuple(0 if s == n else HALO for s, n in zip(size, shape, strict=True))
        for tile in tiles(shape, window=size, halo=halo):
            yield Window(display[_all(tile.window)][None], tile.place, tile.core, whole, one)
    else:
        size = tuple(min(p, n) for p, n in zip(config.data.patch, shape, strict=True))
        interval = tuple(max(1, round(n * (1 - OVERLAP))) for n in size)
        weight = compute_importance_map(size, mode="gaussian")
        places = dense_patch_slices(shape, size, interval)
        for place, core in zip(places, _cores(places), strict=True):
            yield Window(display[_all(place)][None], place, whole, core, weight)


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of a volume: read ``window``, keep ``core`` of it, write it to ``place``."""

    window: Slices
    core: Slices
    place: Slices


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
        seen, cores, places = zip(*parts, strict=True)
        yield Tile(seen, cores, places)


def _along(size: int, window: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    window = min(window, size)
    begin = 0
    while begin < size:
        start = max(0, min(begin - halo, size - window))
        stop = start + window
        end = size if stop == size else stop - halo
        yield slice(start, stop), slice(begin - start, end - start), slice(begin, end)
        begin = end


def _side(wanted: int, size: int) -> int:
    """A tile's side: the whole axis, or enough for a core between two halos."""
    return size if size <= wanted else min(size, max(wanted, 3 * HALO))


def _cores(places: list[Slices]) -> list[Slices]:
    """Of every window the part nearer to its own middle than to its neighbors'."""
    cuts = []
    for ranges in zip(*places, strict=True):
        spans = sorted({(r.start, r.stop) for r in ranges})
        middles = [(b + a) // 2 for (_, b), (a, _) in pairwise(spans)]
        edges = [spans[0][0], *middles, spans[-1][1]]
        cuts.append({s: slice(edges[i] - s[0], edges[i + 1] - s[0]) for i, s in enumerate(spans)})
    return [
        tuple(cut[r.start, r.stop] for cut, r in zip(cuts, place, strict=True)) for place in places
    ]


def _all(place: Slices) -> Any:
    return (slice(None), *place)
