"""From features to logits: voxels to classes, pooled features to findings."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class VoxelHead(nn.Module):
    """Class logits per voxel, and optionally their spread: log-variances, then ``rank`` factors."""

    def __init__(
        self, features: int, classes: int, *, dim: int, spread_rank: int | None = None
    ) -> None:
        super().__init__()
        conv = nn.Conv2d if dim == 2 else nn.Conv3d
        self.last = conv(features, classes, 1)
        self.spread: nn.Module | None = None
        if spread_rank is not None:
            self.spread = conv(features, classes * (1 + spread_rank), 1)
            # Log-variances start small: training starts at the plain network.
            cast(nn.Parameter, self.spread.bias).data[:classes] -= 4

    def forward(self, features: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        return self.last(features)


class FindingsHead(nn.Module):
    """One logit per finding from that finding's own pooled features.

    The neck is shared; row j of the last layer reads finding j only. Pooled features differ
    between images by a fraction of what they have in common, which a linear layer would have to
    unlearn first: they are standardised by what ``standardize`` saw.
    """

    pooled_mean: Tensor
    pooled_std: Tensor

    def __init__(self, features: int, findings: int, *, neck: int) -> None:
        super().__init__()
        self.register_buffer("pooled_mean", torch.zeros(features))
        self.register_buffer("pooled_std", torch.ones(features))
        self.neck = nn.Linear(features, neck)
        self.last = nn.Linear(neck, findings)

    @torch.no_grad()
    def standardize(self, pooled: Float[Tensor, "n f c"]) -> None:
        """Take mean and spread from the pooled features of n training images."""
        self.pooled_mean.copy_(pooled.mean((0, 1)))
        self.pooled_std.copy_(pooled.var(0, correction=0).mean(0).sqrt().clamp(min=1e-3))

    def forward(self, pooled: Float[Tensor, "b f c"]) -> Float[Tensor, "b f"]:
        hidden = self.neck((pooled - self.pooled_mean) / self.pooled_std)
        return self.last(functional.leaky_relu(hidden, 0.01)).diagonal(dim1=1, dim2=2)
