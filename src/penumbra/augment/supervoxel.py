"""Supervoxels: compact regions whose borders follow the image (SLIC, Achanta et al. 2012)."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def supervoxels(
    image: Float[Tensor, "b c *space"],
    *,
    per_axis: int = 8,
    compactness: float = 1.0,
    iterations: int = 3,
) -> Int[Tensor, "b *space"]:
    """Region map with about ``per_axis`` regions along every axis, batched.

    Simple linear iterative clustering: every voxel joins the nearest of the 3^dim cluster centres
    around its own cell, by grey value (in standard deviations of the image) and position (in
    cells, weighted by ``compactness``); centres move to the mean of their voxels.

    Example:
        >>> half = torch.zeros(1, 1, 16, 16)
        >>> half[..., 8:] = 1.0
        >>> regions = supervoxels(half, per_axis=2)
        >>> sorted(regions.unique().tolist())
        [0, 1, 2, 3]
    """
    b, _, *space = image.shape
    grid = [min(per_axis, n) for n in space]
    cell = [n / g for n, g in zip(space, grid, strict=True)]
    spread = image.flatten(2).std(2, correction=0).clamp(min=1e-6)
    grey = image / spread.view(b, -1, *(1,) * len(space))
    axes = [
        compactness * (torch.arange(n, device=image.device, dtype=image.dtype) + 0.5) / side
        for n, side in zip(space, cell, strict=True)
    ]
    where = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(b, -1, *space)
    feature = torch.cat([grey, where], 1)
    home = [
        (torch.arange(n, device=image.device) / side).long().clamp(max=g - 1)
        for n, side, g in zip(space, cell, grid, strict=True)
    ]
    region = _flat(home, grid).expand(b, *space)
    for _ in range(iterations):
        centre = _means(feature, region, math.prod(grid)).view(b, -1, *grid)
        region = _nearest(feature, centre, home, grid)
    return region


def coarse_supervoxels(
    image: Float[Tensor, "b c *space"], *, per_axis: int = 8
) -> Int[Tensor, "b *space"]:
    """``supervoxels`` of a picture of at most 48^2 or 24^3 voxels, enlarged: much faster."""
    space = image.shape[2:]
    dim = len(space)
    stride = max(1, math.ceil(max(space) / (48 if dim < 3 else 24)))
    size = [math.ceil(n / stride) for n in space]
    regions = supervoxels(F.interpolate(image, size, mode="area"), per_axis=per_axis, iterations=2)
    return F.interpolate(regions[:, None].float(), list(space))[:, 0].long()


def _flat(index: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
    number = torch.zeros((), dtype=torch.long, device=index[0].device)
    for axis, (i, g) in enumerate(zip(index, grid, strict=True)):
        number = number * g + i.view(*(-1 if a == axis else 1 for a in range(len(grid))))
    return number


def _means(feature: Tensor, region: Tensor, count: int) -> Tensor:
    """Mean feature of every region [b, f, count]; an empty region is infinitely far away."""
    flat, index = feature.flatten(2), region.flatten(1)
    b, f, _ = flat.shape
    size = torch.zeros(b, count, device=flat.device, dtype=flat.dtype)
    size = size.scatter_add_(1, index, torch.ones_like(flat[:, 0]))
    total = torch.zeros(b, f, count, device=flat.device, dtype=flat.dtype)
    total = total.scatter_add_(2, index[:, None].expand(-1, f, -1), flat)
    mean = total / size[:, None].clamp(min=1)
    return torch.where(size[:, None] > 0, mean, torch.full_like(mean, 1e6))


def _nearest(
    feature: Tensor, centre: Tensor, home: Sequence[Tensor], grid: Sequence[int]
) -> Tensor:
    best = torch.full_like(feature[:, 0], torch.inf)
    region = torch.zeros_like(feature[:, 0], dtype=torch.long)
    for offset in itertools.product((-1, 0, 1), repeat=len(grid)):
        index = [(h + o).clamp(0, g - 1) for h, o, g in zip(home, offset, grid, strict=True)]
        seen = centre
        for axis, i in enumerate(index, start=2):
            seen = seen.index_select(axis, i)
        distance = (feature - seen).square_().sum(1)
        closer = distance < best
        best = torch.where(closer, distance, best)
        region = torch.where(closer, _flat(index, grid), region)
    return region
