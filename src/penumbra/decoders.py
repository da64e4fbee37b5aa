"""A decoder ensemble: what a network is unsure of, at the price of decoders and not of encoders."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from penumbra.bayes.ensemble import average
from penumbra.model import Network
from penumbra.types import Output


class Decoders(Network):
    """Several decoders on one encoder, each with its own heads and gates.

    Made from networks of one architecture that differ in their initial weights (Lakshminarayanan et
    al. 2017): the first one's encoder and level weights serve all, the others' are dropped. Every
    decoder may have a posterior of its own; ``bayes.bank`` then draws from them in turn.

    Raises:
        ValueError: fewer than two networks.

    Example:
        >>> made = [
        ...     Network(channels=1, classes=2, findings=0, dim=2, widths=(8, 8), seed=s)
        ...     for s in range(3)
        ... ]
        >>> tuple(Decoders(made)(torch.zeros(1, 1, 9, 7)).segmentation.shape)
        (1, 2, 9, 7)
    """

    def __init__(self, members: Sequence[Network]) -> None:
        nn.Module.__init__(self)
        if len(members) < 2:
            raise ValueError(f"{len(members)} network(s): an ensemble has two decoders or more")
        first = members[0]
        self.encoder, self.beta = first.encoder, first.beta
        self.classes, self.findings = first.classes, first.findings
        self.register_buffer("u_ref", torch.zeros(()))
        for member in members:
            del member.encoder, member.beta, member.u_ref
        self.members = nn.ModuleList(members)

    @property
    def branches(self) -> tuple[Network, ...]:
        return tuple(cast(Sequence[Network], self.members))

    def decode(self, features: Sequence[Tensor], skips: Sequence[Tensor] | None = None) -> Output:
        """The averaged prediction of all decoders, as logits.

        Raises:
            ValueError: ``skips`` are given, which belong to one decoder.
        """
        if skips is not None:
            raise ValueError("every decoder has skips of its own; decode them one by one")
        return average([branch.decode(features) for branch in self.branches])
