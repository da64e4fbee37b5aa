"""Posteriors made wider or narrower after training.

A cold posterior (Wenzel et al. 2020) shrinks what the KL weight left too wide. Its width is chosen
on validation likelihood (``assess.temper``), which costs predictions, not trainings.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from penumbra.bayes.dropout import DropoutLayer
from penumbra.bayes.layer import stochastic_layers


def has_width(network: nn.Module) -> bool:
    """Whether the network's posterior has standard deviations to scale; dropout's has none."""
    layers = stochastic_layers(network)
    return bool(layers) and not any(isinstance(layer, DropoutLayer) for layer in layers)


def temper(network: nn.Module, width: float) -> None:
    """Multiply every posterior standard deviation by ``width``, in place.

    Raises:
        ValueError: ``width`` is not positive, or the posterior has no width.
    """
    if not width > 0:
        raise ValueError(f"width={width}: must be positive")
    if not has_width(network):
        raise ValueError("only Gaussian and Laplace posteriors have a width")
    for layer in stochastic_layers(network):
        layer.widen(width)


@contextmanager
def tempered(network: nn.Module, width: float) -> Iterator[None]:
    """Inside, the posterior is ``width`` times as wide; afterwards exactly as before."""
    layers = stochastic_layers(network)
    before = [{k: v.clone() for k, v in layer.state_dict().items()} for layer in layers]
    temper(network, width)
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, state in zip(layers, before, strict=True):
                layer.load_state_dict(state)
