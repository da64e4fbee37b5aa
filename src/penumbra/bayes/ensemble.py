"""Ensembles: several trained functions instead of draws around one (Lakshminarayanan et al. 2017).

Seed ensembles hold whole networks; decoder ensembles put several decoders on one encoder, so that a
window is encoded once. Members may themselves be variational or drop channels.
"""

from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from penumbra.bayes.layer import EncoderDecoder
from penumbra.types import Output


class Ensemble(nn.Module):
    """Networks of one architecture, behind the same bank as any posterior.

    With ``share_encoder`` the first member's encoder serves all (the others' are dropped), so a
    state dict holds it once.

    Raises:
        ValueError: there is no member.
    """

    def __init__(self, members: Sequence[nn.Module], *, share_encoder: bool = False) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.share_encoder = share_encoder
        if share_encoder:
            for member in members[1:]:
                member.register_module("encoder", nn.Identity())
        self.members = nn.ModuleList(members)

    def forward(self, image: Float[Tensor, "b c *space"]) -> tuple[Output, ...]:
        """Every member's logits, e.g. to train several decoders at once."""
        if not self.share_encoder:
            return tuple(member(image) for member in self.members)
        members = [cast(EncoderDecoder, member) for member in self.members]
        features = members[0].encode(image)
        return tuple(member.decode(features) for member in members)
