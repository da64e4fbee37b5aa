"""Which acquisition is this? Four modes of the protocol task (proposal 2.1.3, METHOD 1.3)."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from penumbra.pretrain.heads import seeded_mlp

Mode = Literal["predict", "partition", "invariant", "off"]


class ProtocolTask(nn.Module):
    """Heads on pooled features, and which part of the features each task may use.

    ``predict``: the literal form, from all features. ``partition``: the second half of the features
    predicts the protocol, and the first half, which contrast and region use, unlearns it through
    a reversed gradient. ``invariant``: all features unlearn it. ``off``: no loss.
    With fewer than two protocols there is nothing to tell apart and the mode is ``off``.
    """

    def __init__(
        self, features: int, protocols: int, *, mode: Mode, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.mode: Mode = mode if protocols >= 2 else "off"
        self.anatomy_features = features // 2 if self.mode == "partition" else features
        rest = features - self.anatomy_features if self.mode == "partition" else features
        self.predictor = self.adversary = None
        if self.mode in ("predict", "partition"):
            self.predictor = seeded_mlp(rest, rest, protocols, generator=generator)
        if self.mode in ("partition", "invariant"):
            width = self.anatomy_features
            self.adversary = seeded_mlp(width, width, protocols, generator=generator)

    def anatomy(self, pooled: Float[Tensor, "n features"]) -> Float[Tensor, "n anatomy"]:
        """The part of the features that contrast and region prediction use."""
        return pooled[:, : self.anatomy_features]

    def acquisition(self, pooled: Float[Tensor, "n features"]) -> Float[Tensor, "n rest"]:
        """The part that predicts the protocol: the other half, or everything."""
        return pooled[:, self.anatomy_features :] if self.mode == "partition" else pooled

    def forward(
        self, pooled: Float[Tensor, "n features"], protocol: Int[Tensor, " n"], *, reversal: float
    ) -> dict[str, Tensor]:
        """Loss parts: ``protocol`` to predict, ``protocol_adversary`` to unlearn, and accuracies.

        Args:
            protocol: class of each image; -1 (unknown) takes no part.
            reversal: strength of the reversed gradient, ramped by ``reversal_ramp``.
        """
        parts = {}
        if self.predictor is not None:
            logits = self.predictor(self.acquisition(pooled))
            parts["protocol"] = masked_cross_entropy(logits, protocol)
            parts["protocol_accuracy"] = accuracy(logits, protocol)
        if self.adversary is not None:
            logits = self.adversary(reverse_gradient(self.anatomy(pooled), reversal))
            parts["protocol_adversary"] = masked_cross_entropy(logits, protocol)
            parts["adversary_accuracy"] = accuracy(logits, protocol)
        return parts


def reverse_gradient(x: Float[Tensor, "..."], strength: float) -> Float[Tensor, "..."]:
    """The identity, whose gradient is multiplied by ``-strength`` (Ganin et al. 2016)."""
    return _Reverse.apply(x, strength)


def reversal_ramp(progress: float) -> float:
    r"""$2 / (1 + e^{-10 p}) - 1$: the adversary learns first, then counts (Ganin et al. 2016)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


def masked_cross_entropy(
    logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Mean over known labels (>= 0); 0, with a gradient of 0, when all are unknown.

    Raises:
        ValueError: a label names a class that the head does not have.
    """
    if len(labels) and int(labels.max()) >= logits.shape[1]:
        raise ValueError(f"label {int(labels.max())} but only {logits.shape[1]} classes")
    known = labels >= 0
    losses = functional.cross_entropy(logits.float(), labels.clamp_min(0), reduction="none")
    return torch.where(known, losses, 0).sum() / known.sum().clamp_min(1)


def accuracy(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Share of the known labels (>= 0) that the highest logit names; NaN when none is known."""
    known = labels >= 0
    return ((logits.argmax(1) == labels) & known).sum() / known.sum()


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None
