"""The contract of a stochastic layer, and how a network's layers are found and steered.

A posterior over weights is a kind of layer: it can draw a weight (``draw``), run with fresh noise
(``noisy``) or with its mean. ``sampling`` and the bank steer all layers of a network at once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from penumbra.bayes.operation import is_convertible, operation_of
from penumbra.nets.decoder import Decoder
from penumbra.types import Output

Estimator = Literal["weights", "local", "flipout"]
Scope = Literal["decoder", "light", "heads"]
Draw = tuple[Tensor, Tensor | None]
"""A prepared kernel and a bias."""


class EncoderDecoder(Protocol):
    """What a network must offer: ``penumbra.model.Network`` does."""

    decoder: Decoder

    def encode(self, image: Tensor) -> tuple[Tensor, ...]: ...

    def decode(
        self, features: Sequence[Tensor], skips: Sequence[Tensor] | None = None
    ) -> Output: ...


class StochasticLayer(nn.Module):
    """A layer whose weight is random; ``weight`` and ``bias`` are the mean and keep their names.

    Outside ``sampling`` and a bank it runs with the mean.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.operation = operation_of(layer)
        self.weight = cast(nn.Parameter, layer.weight)
        self.bias = cast(nn.Parameter | None, layer.bias)
        self.pinned: Draw | None = None
        self.generator: torch.Generator | None = None
        self.estimator: Estimator = "weights"

    def draw(self, generator: torch.Generator) -> Draw:
        """One weight from the posterior, ready to run; differentiable in its parameters."""
        raise NotImplementedError

    def noisy(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The output with fresh noise, by ``self.estimator``."""
        raise NotImplementedError

    def widen(self, factor: float) -> None:
        """Multiply the posterior's standard deviation, in place."""
        raise NotImplementedError

    def mean(self) -> Draw:
        """The mean weight, ready to run."""
        return self.operation.prepare(self.weight), self.bias

    def forward(self, x: Tensor) -> Tensor:
        if self.pinned is not None:
            return self.operation.run(x, *self.pinned)
        if self.generator is not None:
            return self.noisy(x, self.generator)
        return self.operation.run(x, *self.mean())


def branches(network: nn.Module) -> Sequence[nn.Module]:
    """The decoders of a network, each with its heads: itself, or those that it names."""
    return cast(Sequence[nn.Module], getattr(network, "branches", (network,)))


def stochastic_layers(network: nn.Module) -> list[StochasticLayer]:
    """Every stochastic layer, in the order of ``network.modules()``."""
    return [m for m in network.modules() if isinstance(m, StochasticLayer)]


def replace_layers(
    network: nn.Module, build: Callable[[nn.Module], nn.Module], *, scope: Scope
) -> None:
    """Swap, in place, every convertible layer of a network's decoders and heads.

    ``scope="light"`` leaves the skip convolutions alone (they then run once for all draws),
    ``"heads"`` changes the heads only.

    Raises:
        ValueError: the network is stochastic already, or has nothing to convert.
    """
    if stochastic_layers(network):
        raise ValueError("the network is stochastic already; convert a deterministic one")
    names = ("heads",) if scope == "heads" else ("decoder", "heads")
    rooms = [branch.get_submodule(name) for branch in branches(network) for name in names]
    found = [
        (parent, name, child)
        for room in rooms
        for parent in room.modules()
        for name, child in parent.named_children()
        if is_convertible(child) and not (scope == "light" and name == "skip")
    ]
    if not found:
        raise ValueError("no convolution or linear layer found in the decoder and the heads")
    for parent, name, child in found:
        new = build(child)
        new.train(child.training)
        setattr(parent, name, new)


@contextmanager
def sampling(
    network: nn.Module, *, generator: torch.Generator, estimator: Estimator = "weights"
) -> Iterator[None]:
    """Inside, every forward pass draws: weights, outputs (``local``) or sign-flipped weights.

    ``weights`` is the literal reparameterization, one weight for the batch (proposal 2.2.1);
    ``local`` makes every output's noise independent (Kingma et al. 2015); ``flipout`` gives every
    image its own weight by rank-one signs (Wen et al. 2018). MC dropout has one estimator, a mask
    per image. Gradients reach all parameters. A deterministic network is left as it is.
    """
    layers = stochastic_layers(network)
    for layer in layers:
        layer.generator, layer.estimator = generator, estimator
    try:
        yield
    finally:
        for layer in layers:
            layer.generator, layer.estimator = None, "weights"


@contextmanager
def pinned(layers: Sequence[StochasticLayer], draws: Sequence[Draw]) -> Iterator[None]:
    """Inside, every layer runs with the given weight."""
    for layer, draw in zip(layers, draws, strict=True):
        layer.pinned = draw
    try:
        yield
    finally:
        for layer in layers:
            layer.pinned = None


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normals shaped like ``like``, drawn on the generator's device."""
    noise = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)


def signs(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Fair signs, +1 or -1."""
    coins = torch.randint(0, 2, tuple(shape), generator=generator, device=generator.device)
    return (2 * coins - 1).to(device=like.device, dtype=like.dtype)
