"""Convolution kernels in oneDNN's own layout, so that no pass has to bring them there again.

A deep layer's kernel is larger than its image: bringing 512 x 256 x 4 x 4 weights into the blocked
layout takes as long as the products with 8 x 8 voxels. A kernel that is used for many windows is
brought there once. Same sums; without gradient, so only in inference mode. The operators are those
that ``torch.compile`` uses for frozen weights.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def can_pack(kernel: Tensor) -> bool:
    """Whether a kernel [out, in, *taps] gains by it: on a CPU, in inference mode, taps to sum."""
    return (
        torch.is_inference_mode_enabled()
        and kernel.device.type == "cpu"
        and kernel.dtype == torch.float32
        and kernel.dim() in (4, 5)
        and kernel[0, 0].numel() > 1
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.compiler.is_compiling()
    )


def pack_conv(
    kernel: Tensor,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The kernel of a convolution, for ``run_conv`` with the same settings."""
    reorder = torch.ops.mkldnn._reorder_convolution_weight
    packed: Tensor = reorder(kernel, padding, stride, dilation, groups)
    return packed


def run_conv(
    x: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The convolution that a kernel was packed for."""
    run = torch.ops.mkldnn._convolution_pointwise
    out: Tensor = run(x, packed, bias, padding, stride, dilation, groups, "none", [], "")
    return out


def pack_up(kernel: Tensor) -> Tensor:
    """A folded kernel [in, out, *four], for ``run_up``."""
    reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
    packed: Tensor = reorder(kernel, *_doubling(kernel.dim() - 2))
    return packed


def run_up(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """The transposed convolution that a folded kernel belongs to, as ``upconv.run_folded``."""
    run = torch.ops.mkldnn._convolution_transpose_pointwise
    out: Tensor = run(x, packed, bias, *_doubling(x.dim() - 2), "none", [], "")
    return out


def _doubling(dim: int) -> tuple[list[int], list[int], list[int], list[int], int]:
    """Padding, output padding, stride, dilation and groups of the convolution in an ``UpConv``."""
    return [1] * dim, [0] * dim, [2] * dim, [1] * dim, 1
