"""Which acquisition is this? Four modes of the protocol task (proposal 2.1.3, METHOD 1.3)."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from penumbra.pretrain.heads import accuracy, masked_cross_entropy, seeded_mlp

Mode = Literal["predict", "partition", "invariant", "off"]

LEAK_WEIGHT = 3.0
"""Weight of ``linear_leak`` (at most 1) beside the two cross-entropies, which start at log K."""


class ProtocolTask(nn.Module):
    """Heads on pooled features, and which part of the features each task may use.

    ``predict``: the literal form, from all features. ``partition``: the second half of the features
    predicts the protocol, and the first half, which contrast and region use, unlearns it through
    a reversed gradient and ``linear_leak``. ``invariant``: all features unlearn it. ``off``: no
    loss. With fewer than two protocols there is nothing to tell apart and the mode is ``off``.
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

    def halves(self, pooled: Float[Tensor, "n features"]) -> dict[str, Tensor]:
        """Both parts by name, for probes; empty unless the features are parted."""
        if self.mode != "partition":
            return {}
        return {"contrasted": self.anatomy(pooled), "predicting": self.acquisition(pooled)}

    def forward(
        self, pooled: Float[Tensor, "n features"], protocol: Int[Tensor, " n"], *, reversal: float
    ) -> dict[str, Tensor]:
        """Loss parts: ``protocol`` to predict, ``protocol_adversary`` and ``protocol_leak`` to
        unlearn, and accuracies.

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
            parts["protocol_leak"] = linear_leak(self.anatomy(pooled), protocol)
        return parts


def reverse_gradient(x: Float[Tensor, "..."], strength: float) -> Float[Tensor, "..."]:
    """The identity, whose gradient is multiplied by ``-strength`` (Ganin et al. 2016)."""
    return _Reverse.apply(x, strength)


def reversal_ramp(progress: float) -> float:
    r"""$2 / (1 + e^{-10 p}) - 1$: the adversary learns first, then counts (Ganin et al. 2016)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1


def linear_leak(
    features: Float[Tensor, "n d"], protocol: Int[Tensor, " n"], *, ridge: float = 0.1
) -> Float[Tensor, ""]:
    r"""Share of the variance of the protocol labels that the best ridge regression explains, 0..1.

    $$ R^2 = \mathrm{tr}\big(K^\top (C + \lambda I)^{-1} K\big) / \mathrm{tr}(Y^\top Y / n),
       \quad C = X^\top X / n,\ K = X^\top Y / n $$

    with X standardised and Y centred one-hot. An adversary trained by a reversed gradient lags
    behind the encoder and a linear probe still reads what it misses; this one is at its optimum in
    every step. It is zero exactly when all protocols have the same mean features, which is when no
    linear probe can tell them apart (Belrose et al. 2023). Unknown labels (-1) take no part; 0 when
    fewer than two are known.
    """
    known = protocol >= 0
    if int(known.sum()) < 2:
        return features.sum() * 0.0
    x = features[known].float()
    y = functional.one_hot(protocol[known]).float()
    x, y = x - x.mean(0), y - y.mean(0)
    x = x / (x.var(0, unbiased=False) + 1e-6).sqrt()
    covariance = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], device=x.device)
    cross = x.T @ y / len(x)
    explained = (cross * torch.linalg.solve(covariance, cross)).sum()
    return explained / (y.square().sum() / len(x)).clamp_min(1e-6)


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None
