"""Values of an image between its voxels."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_SLAB = 1 << 17
"""Voxels that are worked on at a time: their buffers stay in the second-level cache."""


def resample(
    image: Float[Tensor, "b c *space"],
    positions: Float[Tensor, "b *seen dim"],
    mode: Literal["bilinear", "nearest"] = "bilinear",
    padding: Literal["border", "zeros"] = "border",
) -> Float[Tensor, "b c *seen"]:
    """Values of the image at normalised positions [b, *space, dim] (-1..1, corners aligned).

    Differentiable in the image.
    """
    slow = image.ndim == 5 and image.device.type == "cpu"  # torch's 3-D sampler is scalar there
    if not (slow and mode == "bilinear" and padding == "border"):
        return F.grid_sample(image, positions, mode=mode, padding_mode=padding, align_corners=True)
    seen = image.new_empty(*image.shape[:2], *positions.shape[1:4])
    planes = max(1, _SLAB // positions[:, 0, ..., 0].numel())
    for start in range(0, seen.shape[2], planes):
        slab = slice(start, start + planes)
        seen[:, :, slab] = _trilinear(image, positions[:, slab])
    return seen


def _trilinear(
    image: Float[Tensor, "b c d h w"], positions: Float[Tensor, "b i j k 3"]
) -> Float[Tensor, "b c i j k"]:
    """Two bilinear samples, of the plane below and of the plane above, mixed.

    The planes lie under each other in one tall picture, so that the vectorised 2-D sampler can
    read a different plane at every voxel. Float32 rows of that picture place a sample to about a
    thousandth of a voxel.
    """
    c, d, h = image.shape[1:4]
    b, i, j, k = positions.shape[:4]
    with torch.no_grad():
        share = positions[..., 2].mul((d - 1) / 2).add_((d - 1) / 2).clamp_(0, d - 1)
        first = int(share.amin())
        planes = max(1, min(int(share.amax()) + 1, d - 1) - first)
        below = share.sub_(first).floor().clamp_(max=planes - 1)
        share = share.sub_(below).view(b, 1, i * j, k)
        step = 2 / max(planes * h - 1, 1)
        grid = positions.new_empty(b, 2, i * j, k)
        grid[:, 0] = positions[..., 0].reshape(b, i * j, k)
        row = positions[..., 1].mul((h - 1) / 2).add_((h - 1) / 2).clamp_(0, h - 1)
        row = row.add_(below, alpha=h).mul_(step).sub_(1)
        grid[:, 1] = row.view(b, i * j, k)
        grid = grid.movedim(1, -1)
    mixed = _bilinear(image[:, :, first : first + planes], grid)
    if d > 1:
        above = _bilinear(image[:, :, first + 1 : first + 1 + planes], grid)
        mixed = torch.lerp(mixed, above, share)
    return mixed.view(b, c, i, j, k)


def _bilinear(planes: Tensor, grid: Tensor) -> Tensor:
    tall = planes.reshape(*planes.shape[:2], -1, planes.shape[-1])
    return F.grid_sample(tall, grid, padding_mode="border", align_corners=True)
