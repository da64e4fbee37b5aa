"""3-D convolutions that stay fast for a single image on CPU.

torch leaves oneDNN when the batch is 1 and the product of the input's *first four* sizes is at most
20480 (``use_mkldnn`` in ATen's Convolution.cpp; in 3-D the width is left out of it): 64 channels at
16^3 then run three times slower. Calling oneDNN by name avoids it. Same sums, same gradient.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """``torch.nn.functional.conv3d``, through oneDNN where torch would leave it."""
    if weight[0, 0].numel() == 1 and max(stride) == 1 and not any(padding) and groups == 1:
        return _pointwise(x, weight, bias)
    if x.shape[0] == 1 and not isinstance(padding, str) and _onednn_runs(x, weight):
        return torch.mkldnn_convolution(x, weight, bias, padding, stride, dilation, groups)
    return functional.conv3d(
        x, weight, bias, stride, cast(Sequence[int], padding), dilation, groups
    )


class Conv3d(nn.Conv3d):
    """``torch.nn.Conv3d`` by way of ``conv3d``."""

    def forward(self, input: Tensor) -> Tensor:
        return conv3d(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )


def use_fast_conv3d(module: nn.Module) -> None:
    """Let every zero-padded ``nn.Conv3d`` below ``module`` take the fast way, in place."""
    for child in module.modules():
        if type(child) is nn.Conv3d and child.padding_mode == "zeros":
            child.__class__ = Conv3d  # same state, another forward


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1x1 convolution as a product: oneDNN takes 7 times as long on channels-last inputs."""
    matrix = weight.flatten(1).expand(len(x), -1, -1)
    if bias is None:
        out = torch.bmm(matrix, x.flatten(2))
    else:
        out = torch.baddbmm(bias[:, None], matrix, x.flatten(2))
    return out.view(x.shape[0], -1, *x.shape[2:])


def _onednn_runs(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.compiler.is_compiling()
    )
