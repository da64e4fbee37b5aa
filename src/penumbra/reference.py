"""Published architectures behind the contract of ``Network``, to be trained by the same protocol.

They come from MONAI. Nothing in them is Bayesian and nothing is gated: the whole network stands
where the encoder stands, and there is nothing left to decode.
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from jaxtyping import Float
from monai.networks.nets import DenseNet121, DynUNet, SwinUNETR
from torch import Tensor, nn
from torch.nn.functional import pad

from penumbra.model import Network
from penumbra.nets.decoder import Decoder
from penumbra.nets.encoder import Encoder
from penumbra.types import Output

Architecture = Literal["dynunet", "swin-unetr", "densenet121"]

MULTIPLE = 32
"""Images are padded at their far ends to a multiple of this, the coarsest stride of the three."""

FEATURES = 12
"""Swin UNETR's first width: the smallest that its attention heads divide."""


class Reference(Network):
    """A published network that is trained, drawn from and judged like ours.

    - ``dynunet``: nnU-Net's residual U-Net with deep supervision (Isensee et al. 2021).
    - ``swin-unetr``: Hatamizadeh et al. 2022.
    - ``densenet121``: Huang et al. 2017, CheXpert's own baseline; findings only.

    Raises:
        ValueError: the architecture does not answer what is asked of it.

    Example:
        >>> net = Reference("dynunet", channels=1, classes=3, findings=0, dim=2, widths=(4, 8, 8))
        >>> tuple(net.eval()(torch.zeros(1, 1, 9, 7)).segmentation.shape)
        (1, 3, 9, 7)
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        channels: int,
        classes: int,
        findings: int,
        dim: int,
        widths: tuple[int, ...],
        seed: int = 0,
    ) -> None:
        nn.Module.__init__(self)
        wanted = "findings" if architecture == "densenet121" else "a segmentation"
        if bool(classes) == (architecture == "densenet121") or bool(classes) == bool(findings):
            raise ValueError(
                f"{architecture} gives {wanted} alone, but {classes} classes and {findings} "
                "findings are asked for; choose another model.architecture"
            )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            body = _body(architecture, channels, classes or findings, dim, widths)
        self.encoder = _Whole(body, channels)
        self.decoder = _Nothing()
        self.heads, self.gates = nn.ModuleDict(), nn.ModuleList()
        self.beta = nn.Parameter(torch.zeros(0))
        self.classes, self.findings = classes, findings
        self.register_buffer("u_ref", torch.zeros(()))

    def decode(self, features: Sequence[Tensor], skips: Sequence[Tensor] | None = None) -> Output:
        """The logits that the encoder has already given."""
        if not self.classes:
            return Output(None, features[0])
        return Output(features[0], None, deep=tuple(features[1:]))


class _Whole(Encoder):
    """A network from display units to its logits, those of deep supervision after the main ones."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        nn.Module.__init__(self)
        self.register_buffer("input_mean", torch.zeros(channels))
        self.register_buffer("input_std", torch.ones(channels))
        self.body = body

    def forward(self, image: Float[Tensor, "b c *space"]) -> tuple[Tensor, ...]:
        shape, size = (1, -1, *(1,) * (image.dim() - 2)), image.shape[2:]
        image = (image - self.input_mean.view(shape)) / self.input_std.view(shape)
        logits = self.body(pad(image, [x for n in reversed(size) for x in (0, -n % MULTIPLE)]))
        if logits.dim() == 2:
            return (logits,)
        levels = logits.unbind(1) if logits.dim() > image.dim() else (logits,)
        inside = (..., *(slice(n) for n in size))
        return tuple(level[inside] for level in levels)


class _Nothing(Decoder):
    """The decoder of a network that has given its answer already."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.levels = nn.ModuleList()

    def skips(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return ()


def _body(
    architecture: Architecture, channels: int, out: int, dim: int, widths: tuple[int, ...]
) -> nn.Module:
    match architecture:
        case "dynunet":
            widths = widths if len(widths) > 2 else (*widths, widths[-1])  # its least depth
            levels = len(widths)
            body = DynUNet(
                spatial_dims=dim,
                in_channels=channels,
                out_channels=out,
                kernel_size=[3] * levels,
                strides=[1] + [2] * (levels - 1),
                upsample_kernel_size=[2] * (levels - 1),
                filters=widths,
                deep_supervision=True,
                deep_supr_num=min(2, levels - 2),
                res_block=True,
            )
            for twice in ("input_block", "downsamples", "bottleneck", "upsamples"):
                delattr(body, twice)  # its skip layers hold the same modules
            del body.deep_supervision_heads
        case "swin-unetr":
            body = SwinUNETR(channels, out, feature_size=FEATURES, spatial_dims=dim)
        case "densenet121":
            body = DenseNet121(spatial_dims=dim, in_channels=channels, out_channels=out)
    return cast(nn.Module, body)
