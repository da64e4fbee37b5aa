"""Residual encoder: one MONAI block per level, the coarsest features last."""

from math import gcd

import torch
from jaxtyping import Float
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn


def groups(channels: int) -> int:
    """Groups of a group norm: of eight channels each where eight divides them, eight at most.

    Smaller groups are slow (kept last, two channels cost twice as much as eight), and leave little
    of what tells images apart: a group's mean and spread over the image are always 0 and 1.
    """
    return gcd(channels, 8) if channels % 8 else min(8, channels // 8)


class Encoder(nn.Module):
    """Features at full, half, quarter, ... resolution, finest first.

    Level l has ``widths[l]`` channels and ``ceil(size / 2**l)`` voxels per axis, so cell i of
    level l covers voxels ``i * 2**l`` onwards, whatever the size. Group norm: batch statistics fit
    neither sampled weights nor small batches.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(self, channels: int, *, dim: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("input_mean", torch.zeros(channels))
        self.register_buffer("input_std", torch.ones(channels))
        before = (channels, *widths[:-1])
        self.levels = nn.ModuleList(
            _block(fan_in, width, dim=dim, halve=level > 0)
            for level, (fan_in, width) in enumerate(zip(before, widths, strict=True))
        )

    def forward(self, image: Float[Tensor, "b c *space"]) -> tuple[Tensor, ...]:
        """Features of an image in display units; ``input_mean`` and ``input_std`` are its own."""
        shape = (1, -1, *(1,) * (image.dim() - 2))
        image = (image - self.input_mean.view(shape)) / self.input_std.view(shape)
        dense = torch.channels_last if image.dim() == 4 else torch.channels_last_3d
        # Channels last, also behind a single channel, where torch cannot tell the two apart.
        image = image.contiguous(memory_format=dense)
        features = []
        for block in self.levels:
            image = block(image).contiguous(memory_format=dense)
            features.append(image)
        return tuple(features)


def _block(fan_in: int, width: int, *, dim: int, halve: bool) -> UnetResBlock:
    block = UnetResBlock(
        spatial_dims=dim,
        in_channels=fan_in,
        out_channels=width,
        kernel_size=3,
        stride=2 if halve else 1,
        norm_name=("group", {"num_groups": groups(width)}),
    )
    if halve:
        # The same function as the block's strided 1-wide shortcut, whose backward pass overruns
        # its buffer in oneDNN for 8 channels kept last (torch 2.13, AVX-512): pick, then project.
        pool, conv = (nn.MaxPool2d, nn.Conv2d) if dim == 2 else (nn.MaxPool3d, nn.Conv3d)
        block.conv3 = nn.Sequential(pool(1, stride=2), conv(fan_in, width, 1, bias=False))
    return block
