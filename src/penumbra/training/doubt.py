"""What the draws of one training step disagree on; no gradient passes through it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.attend.composite import composite
from penumbra.model import Network
from penumbra.types import Output

Features = Sequence[Tensor]


@torch.no_grad()
def epistemic(
    network: Network, outputs: Sequence[Output], features: Features, *, draws: int
) -> Tensor:
    """Epistemic variance per voxel (segmentation) or per finding, over fresh draws.

    ``outputs`` are those at hand, one of every decoder; decoders give what lacks to ``draws`` in
    turn. Only a network that is sampling (``bayes.sampling``) has fresh ones to give.
    """
    drawn = _drawn(network, outputs, features, draws)
    variance = torch.stack([probability(o) for o in drawn]).var(0, correction=0)
    return variance.sum(1) if network.classes else variance


@torch.no_grad()
def of_maps(
    network: Network,
    outputs: Sequence[Output],
    features: Features,
    size: torch.Size,
    *,
    draws: int,
) -> Float[Tensor, "b m *space"]:
    """Where each map's evidence varies between draws: of the voxel's class, or of the map."""
    if network.classes:
        return epistemic(network, outputs, features, draws=draws)[:, None]
    drawn = _drawn(network, outputs, features, draws)
    return composites(network, drawn, size).var(0, correction=0)


def composites(
    network: Network, outputs: Sequence[Output], size: torch.Size
) -> Float[Tensor, "t b m *space"]:
    """Every draw's composite map; differentiable."""
    return torch.stack([composite(o.attention, network.beta, size) for o in outputs])


def probability(output: Output) -> Tensor:
    """Of the voxels' classes; of the findings, where no voxels are classified."""
    if output.segmentation is not None:
        return output.segmentation.float().softmax(1)
    assert output.findings is not None
    return output.findings.float().sigmoid()


def mean_over(uncertainty: Tensor, body: Tensor) -> Float[Tensor, " b"]:
    """One number per image: over the body's voxels, or over findings."""
    inside = body.flatten(1) if uncertainty.shape == body.shape else torch.ones_like(uncertainty)
    return (uncertainty.flatten(1) * inside).sum(1) / inside.sum(1).clamp(min=1)


def _drawn(
    network: Network, outputs: Sequence[Output], features: Features, draws: int
) -> list[Output]:
    detached, branches = tuple(f.detach() for f in features), network.branches
    turns = range(len(outputs), draws)
    return [*outputs, *(branches[t % len(branches)].decode(detached) for t in turns)]
