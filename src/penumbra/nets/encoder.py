"""Residual encoder: one MONAI block per level, the coarsest features last."""

from math import gcd

import torch
from jaxtyping import Float
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn


def groups(channels: int) -> int:
    """Groups of a group norm: eight where they divide the channels, else the largest that do."""
    return gcd(channels, 8)


class Encoder(nn.Module):
    """Features at full, half, quarter, ... resolution, finest first.

    Level l has ``widths[l]`` channels and ``ceil(size / 2**l)`` voxels per axis, so cell i of
    level l covers voxels ``i * 2**l`` onwards, whatever the size. Group norm: batch statistics fit
    neither sampled weights nor small batches.
    """

    def __init__(self, channels: int, *, dim: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        before = (channels, *widths[:-1])
        self.levels = nn.ModuleList(
            UnetResBlock(
                spatial_dims=dim,
                in_channels=fan_in,
                out_channels=width,
                kernel_size=3,
                stride=1 if level == 0 else 2,
                norm_name=("group", {"num_groups": groups(width)}),
            )
            for level, (fan_in, width) in enumerate(zip(before, widths, strict=True))
        )

    def forward(self, image: Float[Tensor, "b c *space"]) -> tuple[Tensor, ...]:
        # Channels last, also behind a single channel, where torch cannot tell the two apart.
        dense = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
        features = []
        for block in self.levels:
            image = block(image).contiguous(memory_format=dense)
            features.append(image)
        return tuple(features)
