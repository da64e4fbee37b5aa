"""Which region of the body is this? Labels from positions (proposal 2.1.3)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

UNKNOWN = -1
"""Region of a crop whose position is not known (NaN); no loss counts it."""


def uniform_edges(bins: int, axes: int) -> Float[Tensor, "axes inner"]:
    """Inner edges of ``bins`` equally wide bins of 0..1 on every axis."""
    return (torch.arange(1, bins) / bins).repeat(axes, 1)


def balanced_edges(position: Float[Tensor, "n axes"], *, bins: int) -> Float[Tensor, "axes inner"]:
    """Inner edges that put equally many of these positions in every bin of an axis.

    Unequal bins would let a head score by naming the most frequent one. NaN positions are left out.

    Raises:
        ValueError: fewer known positions than bins.
    """
    known = position[~position.isnan().any(1)].float()
    if len(known) < bins:
        raise ValueError(f"{len(known)} known positions cannot be cut into {bins} balanced bins")
    return torch.quantile(known, torch.arange(1, bins, device=position.device) / bins, dim=0).T


def bin_labels(
    position: Float[Tensor, "*b axes"], edges: Float[Tensor, "axes inner"]
) -> Int[Tensor, "*b"]:
    """Index of the position's bin in 0..bins^axes - 1, last axis fastest; -1 for a NaN position.

    Positions are body-normalised, 0..1; beyond that range the outermost bin counts.

    Example:
        >>> bin_labels(torch.tensor([[0.1, 0.9], [0.5, 0.5]]), uniform_edges(3, axes=2)).tolist()
        [2, 4]
    """
    bins = edges.shape[1] + 1
    label = torch.zeros(position.shape[:-1], dtype=torch.int64, device=position.device)
    for axis, inner in enumerate(edges):
        label = label * bins + torch.bucketize(position[..., axis].contiguous(), inner, right=True)
    return torch.where(position.isnan().any(-1), UNKNOWN, label)


def overlap_targets(
    position: Float[Tensor, "b axes"],
    extent: Float[Tensor, "b axes"],
    edges: Float[Tensor, "axes inner"],
) -> Float[Tensor, "b regions"]:
    r"""Share of a crop's box in each bin, $q_k = |box \cap bin_k| / |box|$ (VoCo, Wu et al. 2024).

    Args:
        extent: size of the crop in body-normalised units, > 0. What lies outside 0..1 counts for
            the outermost bin. A NaN position gives a row of NaN, which no loss counts.
    """
    low, high = position - extent / 2, position + extent / 2
    share = torch.ones(len(position), 1, device=position.device)
    end = torch.full((1,), torch.inf, device=position.device)
    for axis, inner in enumerate(edges):
        borders = torch.cat([-end, inner, end])
        start = torch.maximum(low[:, axis, None], borders[:-1])
        stop = torch.minimum(high[:, axis, None], borders[1:])
        part = (stop - start).clamp_min(0) / extent[:, axis, None]
        share = (share[:, :, None] * part[:, None, :]).flatten(1)
    return torch.where(position.isnan().any(1)[:, None], torch.nan, share)


def majority_organ(
    segmentation: Int[Tensor, "b *space"], *, organs: int, least: float = 0.01
) -> Int[Tensor, " b"]:
    """The organ with most voxels in each crop, 0..organs-1 for classes 1..organs.

    -1 where no organ fills at least ``least`` of the crop; background (0) and unlabelled (-1)
    voxels do not vote.
    """
    flat = segmentation.flatten(1)
    counts = torch.stack([(flat == organ).sum(1) for organ in range(1, organs + 1)], dim=1)
    most, label = counts.max(1)
    return torch.where(most >= max(1, least * flat.shape[1]), label, UNKNOWN)


def lung_zones(position: Float[Tensor, "*b 2"]) -> Int[Tensor, "*b"]:
    """Zone of a radiograph's (row, column) position: upper, middle, lower on the image's left side
    (0, 1, 2) and on its right side (3, 4, 5); -1 for a NaN position.

    The image's left side is the patient's right lung in the usual PA and AP display.
    """
    third = (position[..., 0] * 3).nan_to_num().long().clamp(0, 2)
    side = (position[..., 1] >= 0.5).long()
    return torch.where(position.isnan().any(-1), UNKNOWN, side * 3 + third)


def without_leak(
    position: Float[Tensor, "b axes"], valid: Bool[Tensor, "b *space"]
) -> Float[Tensor, "b axes"]:
    """The positions, NaN wherever the shape of what lies outside the scan could tell them.

    Padding on one side, or a bent border of a scanner's field of view, says where a crop lies
    without any anatomy; such crops take no part in the region task. A scan that is smaller than the
    crop and lies in its middle says nothing: there is padding on both sides, to a voxel the same.
    """
    telling = torch.zeros(len(valid), dtype=torch.bool, device=valid.device)
    volume = torch.ones(len(valid), dtype=torch.int64, device=valid.device)
    for axis in range(1, valid.ndim):
        seen = valid.movedim(axis, -1).flatten(1, -2).any(1).long()
        low, high = seen.argmax(1), seen.flip(1).argmax(1)
        telling |= ((low - high).abs() > 1) | ((low == 0) != (high == 0))
        volume *= seen.shape[1] - low - high
    full_box = valid.flatten(1).sum(1) == volume
    return torch.where((full_box & ~telling)[:, None], position, torch.nan)
