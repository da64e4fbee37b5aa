"""A 3-wide convolution of a nearest-neighbor up-sampled grid, at the cost of the coarse grid."""

from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

# Up-sampling repeats every voxel, so two of the three taps of each output voxel meet the same
# input voxel: w0, w1, w2 become the four taps of a stride-2 transposed convolution.
FOLD = ((0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 0.0, 0.0))


def fold(weight: Float[Tensor, "out in *three"]) -> Float[Tensor, "in out *four"]:
    """Kernel of the transposed convolution that equals up-sampling, then convolving.

    Along every axis ``(w0, w1, w2) -> (w2, w1 + w2, w0 + w1, w0)``: 4/9 of the products in 2-D and
    8/27 in 3-D. The map is linear and every output voxel meets each weight once, so variances of
    independent weights fold by the same rule.
    """
    dim = weight.dim() - 2
    # All axes at once: one product is nine times faster than one contraction per axis.
    matrix = reduce(torch.kron, [weight.new_tensor(FOLD)] * dim)
    folded = (weight.flatten(2) @ matrix.T).unflatten(2, (4,) * dim)
    return folded.transpose(0, 1)


class UpConv(nn.Module):
    """``conv3(nearest_upsample2(x))`` exactly, without ever building the up-sampled input.

    Returns twice the input's size; crop it for odd targets.

    Example:
        >>> layer = UpConv(1, 1, dim=2)
        >>> x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> plain = functional.interpolate(x, scale_factor=2.0)
        >>> plain = functional.conv2d(plain, layer.weight, layer.bias, padding=1)
        >>> torch.allclose(layer(x), plain, atol=1e-6)
        True
    """

    def __init__(self, in_channels: int, out_channels: int, *, dim: int) -> None:
        super().__init__()
        conv = (nn.Conv2d if dim == 2 else nn.Conv3d)(in_channels, out_channels, 3)
        self.weight = conv.weight
        self.bias = conv.bias

    def forward(self, x: Float[Tensor, "b in *space"]) -> Float[Tensor, "b out *twice"]:
        return run_folded(x, fold(self.weight), self.bias)


def run_folded(
    x: Float[Tensor, "b in *space"],
    kernel: Float[Tensor, "in out *four"],
    bias: Float[Tensor, " out"] | None,
) -> Float[Tensor, "b out *twice"]:
    """The transposed convolution that a folded kernel belongs to."""
    if x.dim() == 4:
        return functional.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
    return functional.conv_transpose3d(x, kernel, bias, stride=2, padding=1)
