"""Small heads whose first weights come from a generator, never from the global state."""

import torch
from torch import nn


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
