"""Small heads that name a class, and their loss over the images whose class is known.

First weights come from a generator, never from the global state.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


def seeded_mlp(inputs: int, hidden: int, outputs: int, *, generator: torch.Generator) -> nn.Module:
    """Linear, layer norm, ReLU, linear. Layer norm: an image's output ignores its batch mates."""
    return nn.Sequential(
        seeded_linear(inputs, hidden, generator=generator),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        seeded_linear(hidden, outputs, generator=generator),
    )


def seeded_linear(inputs: int, outputs: int, *, generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's own initial distribution (uniform within 1/sqrt(inputs))."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def masked_cross_entropy(
    logits: Float[Tensor, "n classes"],
    target: Int[Tensor, " n"] | Float[Tensor, "n classes"],
) -> Float[Tensor, ""]:
    """Mean over images whose target is known; 0, with a gradient of 0, when none is.

    Classes are unknown at -1, shares of classes (rows that sum to one) at NaN.

    Raises:
        ValueError: a label names a class that the head does not have.
    """
    if target.is_floating_point():
        known = ~target.isnan().any(1)
        target = torch.where(known[:, None], target, 0.0)
    else:
        if len(target) and int(target.max()) >= logits.shape[1]:
            raise ValueError(f"label {int(target.max())} but only {logits.shape[1]} classes")
        known = target >= 0
        target = target.clamp_min(0)
    losses = functional.cross_entropy(logits.float(), target, reduction="none")
    return torch.where(known, losses, 0).sum() / known.sum().clamp_min(1)


def accuracy(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Share of the known labels (>= 0) that the highest logit names; NaN when none is known."""
    known = labels >= 0
    return ((logits.argmax(1) == labels) & known).sum() / known.sum()
