"""The network on one screen: deterministic encoder, decoder with gates, heads.

``penumbra.bayes.convert`` turns decoder and heads Bayesian in place; nothing here knows about it.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from penumbra.attend.gate import FEW, Gate, gated_mean
from penumbra.nets.conv3d import use_fast_conv3d
from penumbra.nets.decoder import Decoder
from penumbra.nets.encoder import Encoder
from penumbra.nets.heads import FindingsHead, VoxelHead
from penumbra.types import Output


class Network(nn.Module):
    """Segmentation and findings from one backbone, with one gate map per task.

    Args:
        channels: image channels, in display units (``penumbra.types``).
        classes: voxel classes; 0 builds no segmentation head.
        findings: image-level labels; 0 builds no findings head.
        dim: 2 for slices and radiographs, 3 for volumes.
        widths: channels per level, finest first.
        neck: width of the findings' shared hidden layer.
        gates: multiply every level's features by attention maps (proposal 2.3.1).
        decoder_convs: convolutions per decoder level.
        spread_rank: predict the spread of the class logits (``bayes.spread``): 0 diagonal, r with
            r spatially correlated factors; none by default.
        seed: of the initial weights; the global random state is left alone.

    Raises:
        ValueError: neither classes nor findings are asked for, or there are fewer than two levels.

    Example:
        >>> net = Network(channels=1, classes=3, findings=2, dim=2, widths=(8, 16), neck=4)
        >>> output = net(torch.zeros(1, 1, 9, 7))
        >>> tuple(output.segmentation.shape), tuple(output.findings.shape)
        ((1, 3, 9, 7), (1, 2))
    """

    u_ref: Tensor

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        findings: int,
        dim: int,
        widths: tuple[int, ...],
        neck: int = 64,
        gates: bool = True,
        decoder_convs: int = 1,
        spread_rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if classes == findings == 0:
            raise ValueError("a network needs classes, findings or both; got none")
        if len(widths) < 2:
            raise ValueError(f"widths={widths}: at least two levels are needed")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.encoder = Encoder(channels, dim=dim, widths=widths)
            self.decoder = Decoder(dim=dim, widths=widths, convs=decoder_convs)
            self.heads = nn.ModuleDict()
            if classes:
                self.heads["segmentation"] = VoxelHead(
                    widths[0], classes, dim=dim, spread_rank=spread_rank
                )
            if findings:
                self.heads["findings"] = FindingsHead(sum(widths), findings, neck=neck)
            # Last, so that networks with and without gates start from the same weights.
            self.gates = nn.ModuleList(
                Gate(width, 1 + findings, dim=dim) for width in (widths if gates else ())
            )
        use_fast_conv3d(self)
        self.beta = nn.Parameter(torch.zeros(len(self.gates)))
        self.classes, self.findings = classes, findings
        self.register_buffer("u_ref", torch.zeros(()))  # running reference of L_att's uncertainty

    @property
    def branches(self) -> tuple["Network", ...]:
        """Every decoder with its heads and gates: one, unless it is an ensemble of decoders."""
        return (self,)

    @property
    def gated(self) -> bool:
        """Whether it has attention maps."""
        return len(self.beta) > 0

    def forward(self, image: Float[Tensor, "b c *space"]) -> Output:
        return self.decode(self.encode(image))

    def encode(self, image: Float[Tensor, "b c *space"]) -> tuple[Tensor, ...]:
        """Features of an image in display units, finest first; never random."""
        return self.encoder(image)

    def decode(self, features: Sequence[Tensor], skips: Sequence[Tensor] | None = None) -> Output:
        """Logits and gate maps; ``skips`` replaces ``self.decoder.skips(features)``."""
        if skips is None:
            skips = self.decoder.skips(features)
        stream, attention, pooled = features[-1], [], []
        for depth in range(len(features)):
            if depth > 0:
                stream = self.decoder.levels[depth - 1](stream, skips[depth - 1])
            if self.gates:
                maps = self.gates[len(features) - 1 - depth](stream)
                attention.append(maps[:, : 1 + self.findings])
            if self.findings:
                pooled.append(self._pool(stream, maps if self.gates else None))
            if self.gates and (self.classes or depth + 1 < len(features)):
                stream = _gated(stream, maps[:, :1], fresh=depth > 0)
        return Output(
            segmentation=self._head("segmentation", stream),
            findings=self._head("findings", torch.cat(pooled, -1) if pooled else None),
            attention=tuple(reversed(attention)),
            spread=self._spread(stream),
        )

    def _pool(self, stream: Tensor, maps: Tensor | None) -> Tensor:
        if maps is None:
            return stream.flatten(2).mean(-1)[:, None].expand(-1, self.findings, -1)
        if maps.shape[1] <= FEW:
            return gated_mean(stream, maps[:, 1:])
        return gated_mean(stream, maps)[:, 1 : 1 + self.findings]

    def _spread(self, stream: Tensor) -> Tensor | None:
        if "segmentation" not in self.heads or self.heads["segmentation"].spread is None:
            return None
        return cast(Tensor, cast(nn.Module, self.heads["segmentation"].spread)(stream))

    def _head(self, name: str, features: Tensor | None) -> Tensor | None:
        return cast(Tensor, self.heads[name](features)) if name in self.heads else None


def _gated(stream: Tensor, gate: Tensor, *, fresh: bool) -> Tensor:
    """``2 A F``; in place where F is ``fresh``, nobody else's, and no gradient asks for it."""
    factor = 2 * gate
    if fresh and not torch.is_grad_enabled():
        return stream.mul_(factor)
    return stream * factor
