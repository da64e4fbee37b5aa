"""Hiding whole regions of the body: labelled organs, atlas regions, supervoxels, or blocks.

A region map gives every voxel the number of its region; regions are drawn at random until their
share of the body reaches the amount, and are then filled with the image's mean over the body.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penumbra.augment.profile import Profile


@dataclass(frozen=True)
class Masking:
    """Which voxels are hidden, and the body whose mean fills them."""

    hidden: Bool[Tensor, "b *space"]
    body: Bool[Tensor, "b *space"] | None

    @classmethod
    def sample(
        cls,
        generator: torch.Generator,
        shape: Sequence[int],
        profile: Profile,
        body: Bool[Tensor, "b *space"] | None = None,
        regions: Int[Tensor, "b *space"] | None = None,
    ) -> "Masking":
        """Draw regions of the body; without ``body`` everything is, without ``regions`` blocks."""
        share = profile.draw("masking", generator, shape[0])
        if regions is None:
            regions = blocks(generator, shape[0], shape[2:])
            regions = regions if body is None else regions.to(body.device)
        return cls(_choose(generator, regions, body, share), body)

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        axes = tuple(range(2, image.ndim))
        if self.body is None:
            mean = image.mean(axes, keepdim=True)
        else:
            body = self.body[:, None].to(image)
            voxels = body.sum(axes, keepdim=True).clamp(min=1)
            mean = (image * body).sum(axes, keepdim=True) / voxels
        return torch.where(self.hidden[:, None].to(image.device), mean, image)


def blocks(
    generator: torch.Generator, count: int, space: Sequence[int], per_axis: int = 8
) -> Int[Tensor, "b *space"]:
    """Region map of equal boxes, about ``per_axis`` along each axis, at a random offset."""
    device = generator.device
    number = torch.zeros(count, *(1,) * len(space), dtype=torch.long, device=device)
    for axis, n in enumerate(space):
        side = max(1, math.ceil(n / per_axis))
        offset = torch.randint(side, (count, 1), generator=generator, device=device)
        cell = (torch.arange(n, device=device)[None] + offset) // side
        shape = [n if a == axis else 1 for a in range(len(space))]
        number = number * (per_axis + 1) + cell.view(count, *shape)
    return number


def labelled(
    labels: Int[Tensor, "b *space"], rest: Int[Tensor, "b *space"]
) -> Int[Tensor, "b *space"]:
    """Region map in which every label above 0 is one whole region; elsewhere ``rest`` counts."""
    first = int(rest.max()) + 1
    return torch.where(labels > 0, labels.long() + first, rest)


def _choose(
    generator: torch.Generator,
    regions: Int[Tensor, "b *space"],
    body: Bool[Tensor, "b *space"] | None,
    share: Float[Tensor, " b"],
) -> Bool[Tensor, "b *space"]:
    """Regions in random order, each taken while the hidden share of the body stays in reach."""
    count, total = regions.shape[0], int(regions.max()) + 1
    device = regions.device
    flat = regions.reshape(count, -1)
    if body is None:
        row = torch.arange(count, device=device)[:, None] * total
        size = torch.bincount((flat + row).flatten(), minlength=count * total).view(count, total)
    else:
        inside = body.reshape(count, -1).float()
        size = torch.zeros(count, total, device=device).scatter_add_(1, flat, inside)
    part = size / size.sum(1, keepdim=True).clamp(min=1)
    key = torch.rand(count, total, generator=generator, device=generator.device).to(device)
    share = share.to(device)[:, None]
    key = torch.where((part > 0) & (part <= share), key, 2.0)  # empty or too large: never drawn
    key, order = key.sort(1)
    part = part.gather(1, order)
    taken = (part.cumsum(1) - part / 2 <= share) & (key < 2.0)  # off by half a region at most
    chosen = torch.zeros_like(taken).scatter(1, order, taken)
    hidden = chosen.gather(1, flat).view(regions.shape)
    return hidden if body is None else hidden & body


def atlas_regions(
    atlas: Int[Tensor, "*grid"],
    lower: Float[Tensor, "b dim"],
    upper: Float[Tensor, "b dim"],
    space: Sequence[int],
) -> Int[Tensor, "b *space"]:
    """Labels of an atlas inside each image's box, nearest neighbour.

    ``lower`` and ``upper`` are the positions of the image's outer edges in body-normalised
    coordinates (0..1 spans the atlas); outside of the atlas the label is 0.

    Example:
        >>> atlas = torch.tensor([1, 2])
        >>> box = torch.tensor([[0.0]]), torch.tensor([[1.0]])
        >>> atlas_regions(atlas, *box, (4,)).tolist()
        [[1, 1, 2, 2]]
    """
    count, dim = lower.shape
    number = torch.zeros((count, *(1,) * dim), dtype=torch.long, device=atlas.device)
    valid = torch.ones_like(number, dtype=torch.bool)
    for axis, (n, size) in enumerate(zip(space, atlas.shape, strict=True)):
        fraction = (torch.arange(n, device=lower.device) + 0.5) / n
        position = lower[:, axis, None] + fraction * (upper - lower)[:, axis, None]
        cell = (position * size).floor().long().to(atlas.device)
        shape = (count, *(n if a == axis else 1 for a in range(dim)))
        valid = valid & ((cell >= 0) & (cell < size)).view(shape)
        number = number * size + cell.clamp(0, size - 1).view(shape)
    return torch.where(valid, atlas.flatten()[number].long(), 0)
