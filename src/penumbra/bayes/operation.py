"""What a layer does with a weight, apart from where the weight comes from.

One record serves Linear, Conv and ConvTranspose in 1-D to 3-D and the decoder's UpConv, so that
every posterior and every estimator is written once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from penumbra.nets import packed
from penumbra.nets.conv3d import conv3d
from penumbra.nets.upconv import UpConv, fold, run_folded

Kind = Literal["linear", "conv", "transposed", "up"]
CONV: dict[int, Callable[..., Tensor]] = {1: functional.conv1d, 2: functional.conv2d, 3: conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@dataclass(frozen=True)
class Operation:
    """A linear map of ``x`` by a kernel; ``prepare`` turns a weight into that kernel.

    Both are linear in the weight, and each output meets each weight at most once, so a layer's
    output variance is ``run(x**2, prepare(sigma**2))``.
    """

    kind: Kind
    dim: int = 0
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1

    def prepare(self, weight: Tensor) -> Tensor:
        """The kernel of a weight: folded for UpConv, the weight itself otherwise."""
        return fold(weight) if self.kind == "up" else weight

    def store(self, kernel: Tensor) -> Tensor:
        """A prepared kernel in the layout in which many passes run it fastest.

        In inference mode that is often one which ``run`` alone can read (``packed``).
        """
        if packed.can_pack(kernel) and not isinstance(self.padding, str):
            if self.kind == "up":
                return packed.pack_up(kernel)
            if self.kind == "conv":
                return packed.pack_conv(
                    kernel, self.padding, self.stride, self.dilation, self.groups
                )
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        return kernel.contiguous(memory_format=formats.get(kernel.dim(), torch.contiguous_format))

    def run(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output for a prepared kernel, stored or not."""
        # torch accepts "same" and "valid" too; its stubs know the numbers only.
        padding = cast(Sequence[int], self.padding)
        if kernel.is_mkldnn:
            if self.kind == "up":
                return packed.run_up(x, kernel, bias)
            return packed.run_conv(
                x, kernel, bias, padding, self.stride, self.dilation, self.groups
            )
        match self.kind:
            case "linear":
                return functional.linear(x, kernel, bias)
            case "up":
                return run_folded(x, kernel, bias)
            case "conv":
                return CONV[self.dim](
                    x, kernel, bias, self.stride, padding, self.dilation, self.groups
                )
            case "transposed":
                return TRANSPOSED[self.dim](
                    x,
                    kernel,
                    bias,
                    self.stride,
                    padding,
                    self.output_padding,
                    self.groups,
                    self.dilation,
                )

    def channel_axis(self) -> int:
        """Axis of ``x`` and of the output that holds channels: last for Linear, else 1."""
        return -1 if self.kind == "linear" else 1

    def out_channels(self, weight: Tensor) -> int:
        """Output channels of a weight."""
        return weight.shape[1] * self.groups if self.kind == "transposed" else weight.shape[0]


def operation_of(layer: nn.Module) -> Operation:
    """The operation of a deterministic layer.

    Raises:
        TypeError: the layer is none of Linear, Conv, ConvTranspose, UpConv.
        ValueError: a convolution pads by anything but zeros.
    """
    match layer:
        case UpConv():
            return Operation("up")
        case nn.Linear():
            return Operation("linear")
        case _ConvNd():
            if layer.padding_mode != "zeros":
                raise ValueError(f"padding_mode='{layer.padding_mode}': only 'zeros' is supported")
            transposed = isinstance(layer, _ConvTransposeNd)
            return Operation(
                "transposed" if transposed else "conv",
                dim=len(layer.kernel_size),
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                output_padding=layer.output_padding,
                groups=layer.groups,
            )
    raise TypeError(
        f"{type(layer).__name__} has no stochastic form; expected Linear, Conv, ConvTranspose "
        "or UpConv"
    )


def is_convertible(module: nn.Module) -> bool:
    """Whether ``operation_of`` knows the layer."""
    return isinstance(module, (nn.Linear, _ConvNd, UpConv))
