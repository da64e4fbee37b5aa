"""What the network sees of a case, in turn: slices in batches, blended windows, or large tiles.

Blended windows have the size of a training patch and overlap by half. Tiles are as large as memory
allows, keep their core and see a halo of context around it: several times cheaper. Where one tile
spans the volume it is the network's exact answer to the whole scan. Where it does not, its borders
and its group norms' statistics are those of its own field of view, and it is an approximation; so
is either way of a scan whose training patches were smaller (docs/results/posterior-cost.md).
"""

import itertools
import math
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
"""Voxels of context around a tile's core; cores are multiples of it, in step with the encoder."""
WHOLE_NUMBERS, TILE_NUMBERS = 2**26, 2**25
"""Most numbers in the finest feature map of a volume that is seen whole, and of a tile of others:
256 and 128 MiB; the larger the volume, the more of the memory is the maps' own."""


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
    display = to_display(
        torch.from_numpy(np.array(prepared.image, dtype=np.float32))[None],
        modality=config.modality,
        window_hu=config.data.window_hu,
    )[0]
    shape, whole = display.shape[1:], (slice(None),) * (display.dim() - 1)
    one = torch.ones(())
    if len(shape) == 2:
        yield Window(display[None], whole, whole, whole, one)
    elif config.data.dim == 2:
        every = whole[1:]
        for start in range(0, shape[-1], SLICES_PER_BATCH):
            batch = slice(start, min(start + SLICES_PER_BATCH, shape[-1]))
            stack = rearrange(display[..., batch], "c h w n -> n c h w")
            yield Window(stack, (*every, batch), every, every, one, stacked=True)
    elif how == "tile":
        size = tuple(shape)
        if math.prod(shape) * config.model.widths[0] > WHOLE_NUMBERS:
            size = tile_size(shape, voxels=TILE_NUMBERS // config.model.widths[0])
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
    no context to wait for. Windows end where the volume does.

    Raises:
        ValueError: the halo leaves no core.
    """
    if any(w <= 2 * h for w, h in zip(window, halo, strict=True)):
        raise ValueError(f"halo={tuple(halo)} leaves no core of window={tuple(window)}")
    axes = [list(_along(n, w, h)) for n, w, h in zip(size, window, halo, strict=True)]
    for parts in itertools.product(*axes):
        seen, cores, places = zip(*parts, strict=True)
        yield Tile(seen, cores, places)


def tile_size(shape: Sequence[int], *, voxels: int) -> tuple[int, ...]:
    """Sides of equal tiles with a halo that hold at most ``voxels``; the whole volume if it fits.

    The longest side is cut first. A volume so thin that no cut helps keeps its last size.
    """
    counts = [1] * len(shape)
    while True:
        size = tuple(_side(n, k) for n, k in zip(shape, counts, strict=True))
        axis = int(np.argmax(size))
        if math.prod(size) <= voxels or size[axis] <= 3 * HALO:
            return size
        counts[axis] += 1


def _side(size: int, count: int) -> int:
    """A window of ``count`` along an axis: an even share in steps of the halo, and two halos."""
    if count == 1:
        return size
    share = -(-(size - 2 * HALO) // count)
    return min(size, -(-share // HALO) * HALO + 2 * HALO)


def _along(size: int, window: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    begin = 0
    while begin < size:
        start = max(0, begin - halo)
        stop = min(start + window, size)
        end = size if stop == size else stop - halo
        yield slice(start, stop), slice(begin - start, end - start), slice(begin, end)
        begin = end


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
