"""From features to logits: voxels to classes, pooled features to findings."""

from typing import cast

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

    The neck is shared; row j of the last layer reads finding j only.
    """

    def __init__(self, features: int, findings: int, *, neck: int) -> None:
        super().__init__()
        self.neck = nn.Linear(features, neck)
        self.last = nn.Linear(neck, findings)

    def forward(self, pooled: Float[Tensor, "b f c"]) -> Float[Tensor, "b f"]:
        hidden = functional.leaky_relu(self.neck(pooled), 0.01)
        return self.last(hidden).diagonal(dim1=1, dim2=2)
