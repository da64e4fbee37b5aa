"""Ensembles: several trained functions instead of draws around one (Lakshminarayanan et al. 2017).

A seed ensemble holds whole networks. A decoder ensemble (``penumbra.decoders``) has several
decoders on one encoder, so that a window is encoded once. Members may themselves be variational or
drop channels.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from penumbra.types import Output


class Ensemble(nn.Module):
    """Whole networks of one architecture, behind the same bank as any posterior.

    Raises:
        ValueError: there is no member.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = nn.ModuleList(members)

    @property
    def branches(self) -> tuple[nn.Module, ...]:
        """What posteriors convert and a bank draws from in turn."""
        return tuple(self.members)

    def forward(self, image: Float[Tensor, "b c *space"]) -> Output:
        """The averaged prediction of all members, as logits."""
        return average([member(image) for member in self.members])


def average(outputs: Sequence[Output]) -> Output:
    """Logits of the averaged probabilities, and the mean gate maps.

    A predicted spread of the logits is left out: only a bank integrates over it.
    """
    voxels = [o.segmentation for o in outputs if o.segmentation is not None]
    findings = [o.findings for o in outputs if o.findings is not None]
    levels = zip(*(o.attention for o in outputs), strict=True)
    return Output(
        segmentation=_log_mean([x.log_softmax(1) for x in voxels]) if voxels else None,
        findings=_log_mean([logsigmoid(x) for x in findings])
        - _log_mean([logsigmoid(-x) for x in findings])
        if findings
        else None,
        attention=tuple(torch.stack(maps).mean(0) for maps in levels),
    )


def _log_mean(logs: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(logs)).logsumexp(0) - math.log(len(logs))
