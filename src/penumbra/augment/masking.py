"""Hiding whole regions of the body (organs, atlas regions, supervoxels, blocks), or channels.

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
            return cls(_choose_blocks(generator, shape, body, share), body)
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


def withhold(
    image: Float[Tensor, "b c *space"], probability: float, generator: torch.Generator
) -> Float[Tensor, "b c *space"]:
    """Zero each channel of each image with ``probability``, as a sequence that was not acquired.

    A draw that would leave an image without any channel leaves it as it is.
    """
    if probability == 0 or image.shape[1] == 1:
        return image
    chance = torch.rand(image.shape[:2], generator=generator, device=generator.device)
    kept = (chance >= probability).to(image.device)
    kept |= ~kept.any(1, keepdim=True)
    return image * kept.reshape(*kept.shape, *[1] * (image.ndim - 2))


def blocks(
    generator: torch.Generator, count: int, space: Sequence[int], per_axis: int = 8
) -> Int[Tensor, "b *space"]:
    """Region map of equal boxes, about ``per_axis`` along each axis, at a random offset."""
    number = torch.zeros(count, *(1,) * len(space), dtype=torch.long, device=generator.device)
    for axis, cell in enumerate(_cells(generator, count, space, per_axis)):
        shape = [n if a == axis else 1 for a, n in enumerate(space)]
        number = number * (per_axis + 1) + cell.view(count, *shape)
    return number


def _cells(
    generator: torch.Generator, count: int, space: Sequence[int], per_axis: int
) -> list[Int[Tensor, "b n"]]:
    """Which of the ``per_axis + 1`` cells every voxel of an axis lies in, from a random offset."""
    cells = []
    for n in space:
        side = max(1, math.ceil(n / per_axis))
        offset = torch.randint(side, (count, 1), generator=generator, device=generator.device)
        cells.append((torch.arange(n, device=generator.device)[None] + offset) // side)
    return cells


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
    flat = regions.reshape(count, -1)
    inside = torch.ones_like(flat, dtype=torch.float32)
    if body is not None:
        inside = body.reshape(count, -1).float()
    size = torch.zeros(count, total, device=flat.device).scatter_add_(1, flat, inside)
    hidden = _draw(generator, size, share).gather(1, flat).view(regions.shape)
    return hidden if body is None else hidden & body


def _choose_blocks(
    generator: torch.Generator,
    shape: Sequence[int],
    body: Bool[Tensor, "b *space"] | None,
    share: Float[Tensor, " b"],
    per_axis: int = 8,
) -> Bool[Tensor, "b *space"]:
    """What ``_choose`` says for ``blocks``, but counted and filled axis by axis, by products."""
    count, space = shape[0], shape[2:]
    device = generator.device if body is None else body.device
    number = torch.arange(per_axis + 1, device=device)[:, None]
    cells = [
        (cell.to(device)[:, None] == number).float()  # [b, cell, voxel]
        for cell in _cells(generator, count, space, per_axis)
    ]
    if body is None:
        size = torch.ones(count, device=device)
        for cell in cells:
            size = torch.einsum("b...,bki->b...k", size, cell)
    else:
        size = body.float()
        for cell in cells:  # every product moves its axis to the end, so all come round once
            size = torch.einsum("bi...,bki->b...k", size, cell)
    hidden = _draw(generator, size.flatten(1), share).view(size.shape).float()
    for cell in cells:
        hidden = torch.einsum("bk...,bki->b...i", hidden, cell)
    return hidden > 0.5 if body is None else (hidden > 0.5) & body


def _draw(
    generator: torch.Generator, size: Float[Tensor, "b regions"], share: Float[Tensor, " b"]
) -> Bool[Tensor, "b regions"]:
    """Which regions of these sizes are taken."""
    part = size / size.sum(1, keepdim=True).clamp(min=1)
    key = torch.rand(size.shape, generator=generator, device=generator.device).to(size.device)
    share = share.to(size.device)[:, None]
    key = torch.where((part > 0) & (part <= share), key, 2.0)  # empty or too large: never drawn
    key, order = key.sort(1)
    part = part.gather(1, order)
    taken = (part.cumsum(1) - part / 2 <= share) & (key < 2.0)  # off by half a region at most
    return torch.zeros_like(taken).scatter(1, order, taken)


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
