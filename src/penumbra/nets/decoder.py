"""The way back up: per level, one convolution split over the coarse stream and the skip."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from penumbra.nets.encoder import groups
from penumbra.nets.upconv import UpConv


def crop(x: Float[Tensor, "b c *_"], size: Sequence[int]) -> Float[Tensor, "b c *space"]:
    """The first ``size`` voxels along every axis."""
    for axis, n in enumerate(size, start=2):
        if x.shape[axis] != n:
            x = x.narrow(axis, 0, n)
    return x


class Level(nn.Module):
    """One decoder level: ``norm(conv[up(coarse), skip])``, activated; further convolutions follow.

    The convolution over the concatenation is written as a sum of two, so that the skip part can be
    computed once and shared between posterior draws.
    """

    def __init__(self, coarse: int, skip: int, *, dim: int, convs: int) -> None:
        super().__init__()
        conv = nn.Conv2d if dim == 2 else nn.Conv3d
        self.up = UpConv(coarse, skip, dim=dim)
        self.skip = conv(skip, skip, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups(skip), skip)
        self.act = nn.LeakyReLU(0.01, inplace=True)
        self.more = nn.ModuleList(
            nn.Sequential(
                conv(skip, skip, 3, padding=1, bias=False),
                nn.GroupNorm(groups(skip), skip),
                nn.LeakyReLU(0.01, inplace=True),
            )
            for _ in range(convs - 1)
        )

    def forward(
        self, coarse: Float[Tensor, "b coarse *half"], skip_part: Float[Tensor, "b c *space"]
    ) -> Float[Tensor, "b c *space"]:
        up = crop(self.up(coarse), skip_part.shape[2:])  # odd sizes: the encoder rounded up
        stream = self.act(self.norm(up.add_(skip_part)))  # nobody else's, and no gradient needs it
        for block in self.more:
            stream = block(stream)
        return stream


class Decoder(nn.Module):
    """The levels, coarsest first: level k leads from ``widths[-1 - k]`` to ``widths[-2 - k]``.

    Args:
        widths: the encoder's channels, finest first.
        convs: convolutions per level, the split one included.
    """

    def __init__(self, *, dim: int, widths: tuple[int, ...], convs: int = 1) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            Level(coarse, skip, dim=dim, convs=convs)
            for skip, coarse in reversed(list(pairwise(widths)))
        )

    def skips(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Every level's convolution of its skip features, coarsest first."""
        fine = reversed(features[:-1])
        levels = cast(Sequence[Level], self.levels)
        return tuple(level.skip(x) for level, x in zip(levels, fine, strict=True))
