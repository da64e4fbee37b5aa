"""Posterior draws made once and reused: the same T functions for every window of a volume.

Fresh weights per window leave seams and understate a volume's variance; a bank draws T weights
once, the encoder runs once per window, and only the decoder repeats.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from penumbra.bayes.ensemble import Ensemble
from penumbra.bayes.layer import (
    Draw,
    EncoderDecoder,
    StochasticLayer,
    branches,
    pinned,
    stochastic_layers,
)
from penumbra.bayes.spread import mixture
from penumbra.nets.decoder import Decoder
from penumbra.types import Output

TINY = 1e-12
INNER = 8
"""Samples of the logits within one weight draw, where the network predicts their spread."""

Skip = Literal["exact", "mean"]
Encode = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A window's features, the skip parts that all draws share, and each ensemble member's own."""

    features: tuple[Tensor, ...]
    skips: tuple[Tensor, ...] | None = None
    members: tuple["Encoded", ...] = ()


@runtime_checkable
class Bank(Protocol):
    """T fixed functions: ``decode(encode(x), t)`` is draw t, whatever the window.

    ``coherent``: a draw's voxels belong to one function, so that its volumes mean something.
    """

    coherent: bool

    def __len__(self) -> int: ...

    def encode(self, image: Float[Tensor, "b c *space"]) -> Encoded:
        """What all draws share."""
        ...

    def decode(self, features: Encoded, t: int) -> Output:
        """Draw t's logits and gate maps; differentiable in the image."""
        ...

    def probabilities(self, image: Float[Tensor, "b c *space"]) -> Iterator[Output]:
        """Every draw's probabilities in turn (``Output`` with probabilities for logits)."""
        encoded = self.encode(image)
        for t in range(len(self)):
            yield to_probabilities(self.decode(encoded, t))


class WeightBank(Bank):
    """T draws of the stochastic layers' weights, prepared (folded) once.

    Memory: T times the stochastic weights (x 16/9 for 2-D up-convolutions, 64/27 in 3-D).
    """

    coherent = True

    def __init__(
        self, network: nn.Module, draws: Sequence[Sequence[Draw]], *, skip: Skip, seed: int = 0
    ) -> None:
        self.network = cast(EncoderDecoder, network)
        self.draws = draws
        self.skip = skip
        self.seed = seed
        self.layers = stochastic_layers(network)

    def __len__(self) -> int:
        return len(self.draws)

    def encode(self, image: Float[Tensor, "b c *space"]) -> Encoded:
        return self.share(self.network.encode(image))

    def share(self, features: tuple[Tensor, ...]) -> Encoded:
        """What all draws share of an encoder's features."""
        if self.skip == "exact" and _skips_are_drawn(self.network.decoder):
            return Encoded(features)
        return Encoded(features, self.network.decoder.skips(features))

    def decode(self, features: Encoded, t: int) -> Output:
        with pinned(self.layers, self.draws[t]):
            output = self.network.decode(features.features, features.skips)
        if output.spread is None or output.segmentation is None:
            return output
        # The spread is integrated out: these logits' softmax is the draw's mean probability. The
        # seed is the draw's own, so the correlated part is the same in every window.
        noise = torch.Generator(output.spread.device).manual_seed(self.seed + t)
        mixed = mixture(output.segmentation, output.spread, samples=INNER, generator=noise)
        return replace(output, segmentation=mixed.clamp_min(TINY).log(), spread=None)


class MemberBank(Bank):
    """The members' banks in turn: draw t is member ``t mod M``'s draw ``t // M``."""

    coherent = True

    def __init__(self, members: Sequence[Bank], *, shared: Encode | None = None) -> None:
        """``shared`` is the encoder of all members, weight banks then; else each has its own."""
        self.members, self.shared = members, shared

    def __len__(self) -> int:
        return sum(len(member) for member in self.members)

    def encode(self, image: Float[Tensor, "b c *space"]) -> Encoded:
        if self.shared is None:
            return Encoded((), members=tuple(member.encode(image) for member in self.members))
        features = self.shared(image)
        return Encoded((), members=tuple(cast(WeightBank, m).share(features) for m in self.members))

    def decode(self, features: Encoded, t: int) -> Output:
        which = t % len(self.members)
        return self.members[which].decode(features.members[which], t // len(self.members))


def bank(
    network: nn.Module,
    *,
    draws: int,
    generator: torch.Generator,
    skip: Skip = "exact",
) -> Bank:
    """Draw T functions from the posterior that the network holds.

    A deterministic network gives a bank of one draw, itself. An ensemble's M members or decoders
    share T evenly, each at least one draw: T is rounded up to a multiple of M. In inference mode
    kernels are kept in the layout that runs fastest, and the bank is for inference alone.

    Args:
        draws: T.
        skip: ``mean`` runs the skip convolutions at their mean, once for all draws.

    Raises:
        ValueError: ``draws`` is not positive.
    """
    if draws < 1:
        raise ValueError(f"draws={draws}: at least one draw is needed")
    whole = isinstance(network, Ensemble)
    members = branches(network)
    if len(members) == 1 and not whole:
        return _weight_bank(network, draws, generator, skip)
    each = -(-draws // len(members))
    banks = [bank(member, draws=each, generator=generator, skip=skip) for member in members]
    return MemberBank(banks, shared=None if whole else cast(EncoderDecoder, network).encode)


def _weight_bank(
    network: nn.Module, draws: int, generator: torch.Generator, skip: Skip
) -> WeightBank:
    layers = stochastic_layers(network)
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    if not layers:
        return WeightBank(network, [[]], skip=skip, seed=seed)
    with torch.no_grad():
        drawn = [[_stored(layer, generator) for layer in layers] for _ in range(draws)]
    return WeightBank(network, drawn, skip=skip, seed=seed)


def to_probabilities(output: Output) -> Output:
    """Softmax over voxel classes, sigmoid for findings."""
    segmentation, findings = output.segmentation, output.findings
    return replace(
        output,
        segmentation=None if segmentation is None else segmentation.softmax(1),
        findings=None if findings is None else findings.sigmoid(),
    )


def _stored(layer: StochasticLayer, generator: torch.Generator) -> Draw:
    kernel, bias = layer.draw(generator)
    return layer.operation.store(kernel), bias


def _skips_are_drawn(decoder: Decoder) -> bool:
    return any(isinstance(level.skip, StochasticLayer) for level in decoder.levels)
