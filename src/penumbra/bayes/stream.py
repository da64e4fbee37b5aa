"""What T draws say of one window: encoded once, decoded T times, reduced to moments at once.

No draw's maps are held but one window's label maps, a byte per voxel and draw: memory hardly
depends on T, and not on the volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from penumbra.bayes.bank import Bank, to_probabilities
from penumbra.bayes.uncertainty import Moments
from penumbra.types import Output, Uncertainty

Slices = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class WindowMaps:
    """What the draws say of one window.

    Attributes:
        voxels: of the kept part.
        findings: of the whole window.
        attention: the mean over draws of every level's gate maps, on the whole window.
        labels: [t, b, *kept] every draw's most probable class.
    """

    voxels: Uncertainty | None
    findings: Uncertainty | None
    attention: tuple[Tensor, ...]
    labels: Tensor | None


def window_maps(
    bank: Bank,
    image: Float[Tensor, "b c *space"],
    *,
    draws: int | None = None,
    kept: Slices | None = None,
) -> WindowMaps:
    """Encode once, decode every draw, keep moments only.

    Args:
        draws: the first so many draws of the bank (``stopping.enough_draws``); all by default.
        kept: part of the window that is of use, e.g. a tile without its halo.
    """
    encoded = bank.encode(image)
    voxels, findings = Moments("categorical"), Moments("bernoulli")
    attention: list[Tensor] = []
    labels: Tensor | None = None
    used = min(draws or len(bank), len(bank))
    for t in range(used):
        output = bank.decode(encoded, t)
        if kept is not None and output.segmentation is not None:
            output = _cut(output, kept)
        output = to_probabilities(output)
        if output.segmentation is not None:
            voxels.update(output.segmentation)
            found = most_probable(output.segmentation)
            labels = found.new_empty(used, *found.shape) if labels is None else labels
            labels[t] = found
        if output.findings is not None:
            findings.update(output.findings)
        attention = _add(attention, output, used)
    return WindowMaps(
        voxels=voxels.uncertainty() if voxels.draws else None,
        findings=findings.uncertainty() if findings.draws else None,
        attention=tuple(attention),
        labels=labels,
    )


def most_probable(probabilities: Float[Tensor, "b c *space"]) -> UInt8[Tensor, "b *space"]:
    """``argmax`` over classes, the first of equals, where torch's own is slower than a decoder."""
    probabilities = probabilities.detach()
    best = probabilities[:, 0].clone()
    labels = torch.zeros_like(best, dtype=torch.uint8)
    for c in range(1, probabilities.shape[1]):
        labels.masked_fill_(probabilities[:, c] > best, c)
        torch.maximum(best, probabilities[:, c], out=best)
    return labels


def _cut(output: Output, kept: Slices) -> Output:
    """The same output with a part of the segmentation."""
    assert output.segmentation is not None
    return replace(output, segmentation=output.segmentation[(slice(None), slice(None), *kept)])


def _add(total: Sequence[Tensor], output: Output, draws: int) -> list[Tensor]:
    if draws == 1:
        return list(output.attention)
    if not total:
        return [maps / draws for maps in output.attention]
    return [a.add_(b, alpha=1 / draws) for a, b in zip(total, output.attention, strict=True)]
