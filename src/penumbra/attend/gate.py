"""Attention that is used: sigmoid maps that multiply the features they are drawn from."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FEW, WIDE = 2, 16
"""Up to ``FEW`` maps are computed one by one, more of them padded to a multiple of ``WIDE``.

Kernels are slow whose channels, kept last, fill no whole vectors: 15 maps take longer than 16, and
two at once longer than one after the other.
"""


class Gate(nn.Module):
    """``A = sigmoid(g(F))``, one map for segmentation, then one per finding (proposal 2.3.1).

    ``g`` starts at zero, so a fresh gate is 1/2 everywhere and ``2 A F`` leaves features alone.
    """

    def __init__(self, features: int, maps: int, *, dim: int) -> None:
        super().__init__()
        self.g = (nn.Conv2d if dim == 2 else nn.Conv3d)(features, maps, 1)
        for parameter in self.g.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Float[Tensor, "b c *space"]) -> Float[Tensor, "b m *space"]:
        conv = functional.conv2d if features.dim() == 4 else functional.conv3d
        weight, bias, maps = self.g.weight, cast(Tensor, self.g.bias), self.g.out_channels
        if maps <= FEW:
            planes = [conv(features, weight[k : k + 1], bias[k : k + 1]) for k in range(maps)]
            return (torch.stack([p[:, 0] for p in planes], 1) if maps > 1 else planes[0]).sigmoid_()
        more = -maps % WIDE
        weight = functional.pad(weight, (0, 0) * (weight.dim() - 1) + (0, more))
        return conv(features, weight, functional.pad(bias, (0, more))).sigmoid_()[:, :maps]


def gated_mean(
    features: Float[Tensor, "b c *space"], maps: Float[Tensor, "b f *space"]
) -> Float[Tensor, "b f c"]:
    """Mean of the features under each map, ``sum A F / sum A``; a map of zeros pools nothing."""
    # Space before channels, as the convolutions leave it in memory: nothing is copied.
    values, weights = (x.movedim(1, -1).flatten(1, -2) for x in (features, maps))
    total = weights.sum(1).clamp_min(torch.finfo(weights.dtype).tiny)
    return torch.bmm(weights.transpose(1, 2), values) / total[..., None]
