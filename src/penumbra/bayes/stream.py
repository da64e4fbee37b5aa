"""What T draws say of one window: encoded once, decoded T times, reduced to moments at once.

No draw's maps are held but a bit per voxel of one window: memory hardly depends on T, and not on
the volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from penumbra.bayes.bank import Bank, to_probabilities
from penumbra.bayes.counts import Counts, most_probable
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
        counts: of the core, by every draw's most probable class.
    """

    voxels: Uncertainty | None
    findings: Uncertainty | None
    attention: tuple[Tensor, ...]
    counts: Counts | None


def window_maps(
    bank: Bank,
    image: Float[Tensor, "b c *space"],
    *,
    draws: int | None = None,
    kept: Slices | None = None,
    core: Slices = (),
) -> WindowMaps:
    """Encode once, decode every draw, keep moments only.

    Args:
        draws: the first so many draws of the bank (``stopping.enough_draws``); all by default.
        kept: part of the window that is of use, e.g. a tile without its halo.
        core: part of the kept part whose voxels count; all by default.
    """
    encoded = bank.encode(image)
    voxels, findings = Moments("categorical"), Moments("bernoulli")
    attention: list[Tensor] = []
    counts: Counts | None = None
    used = min(draws or len(bank), len(bank))
    for t in range(used):
        output = bank.decode(encoded, t)
        if kept is not None and output.segmentation is not None:
            output = _cut(output, kept)
        output = to_probabilities(output)
        if output.segmentation is not None:
            voxels.update(output.segmentation)
            labels = most_probable(output.segmentation[(slice(None), slice(None), *core)])
            counts = counts or Counts(used, classes=output.segmentation.shape[1])
            counts.add(labels.cpu().numpy())
        if output.findings is not None:
            findings.update(output.findings)
        attention = _add(attention, output, used)
    return WindowMaps(
        voxels=voxels.uncertainty() if voxels.draws else None,
        findings=findings.uncertainty() if findings.draws else None,
        attention=tuple(attention),
        counts=counts,
    )


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
