"""What a layer does with a weight, apart from where the weight comes from.

One record serves Linear, Conv and ConvTranspose in 1-D to 3-D and the decoder's UpConv, so that
every posterior and every estimator is written once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

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

    def run(self, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's output for a prepared kernel."""
        # torch accepts "same" and "valid" too; its stubs know the numbers only.
        padding = cast(Sequence[int], self.padding)
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
