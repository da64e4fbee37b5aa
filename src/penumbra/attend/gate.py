"""Attention that is used: sigmoid maps that multiply the features they are drawn from."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FEW, WIDE = 2, 16
"""Up to ``FEW`` maps are computed one by one, more of them with idle ones up to a multiple of
``WIDE``.

Kernels are slow whose channels, kept last, fill no whole vectors: 15 maps take longer than 16, and
two at once longer than one after the other.
"""


class Gate(nn.Module):
    """``A = sigmoid(g(F))``, one map for segmentation, then one per finding (proposal 2.3.1).

    ``g`` starts at zero, so a fresh gate is 1/2 everywhere and ``2 A F`` leaves features alone.
    More than ``FEW`` maps are followed by idle ones, 1/2 everywhere: sums over all of them are
    faster than over the first few.
    """

    def __init__(self, features: int, maps: int, *, dim: int) -> None:
        super().__init__()
        self.maps = maps
        self.g = (nn.Conv2d if dim == 2 else nn.Conv3d)(features, maps, 1)
        for parameter in self.g.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Float[Tensor, "b c *space"]) -> Float[Tensor, "b m *space"]:
        weight, bias, maps = self.g.weight.flatten(1), cast(Tensor, self.g.bias), self.maps
        # Products of matrices where channels lie last, as the convolutions leave them.
        dense = features.movedim(1, -1)
        if maps <= FEW:
            planes = [dense @ weight[k] + bias[k] for k in range(maps)]
            return torch.stack(planes, 1).sigmoid_()
        weight = functional.pad(weight, (0, 0, 0, -maps % WIDE))
        bias = functional.pad(bias, (0, -maps % WIDE))
        return functional.linear(dense, weight, bias).sigmoid_().movedim(-1, 1)


def gated_mean(
    features: Float[Tensor, "b c *space"], maps: Float[Tensor, "b f *space"]
) -> Float[Tensor, "b f c"]:
    """Mean of the features under each map, ``sum A F / sum A``; a map of zeros pools nothing."""
    # Space before channels, as the convolutions leave it in memory: nothing is copied.
    values, weights = (x.movedim(1, -1).flatten(1, -2) for x in (features, maps))
    total = weights.sum(1).clamp_min(torch.finfo(weights.dtype).tiny)
    return torch.bmm(weights.transpose(1, 2), values) / total[..., None]
