"""Per-image task losses, in float32, with ignored voxels and unstated findings left out."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from monai.losses import MaskedDiceLoss
from torch import Tensor

from penumbra.bayes.bank import INNER
from penumbra.bayes.spread import negative_log_likelihood
from penumbra.types import IGNORE


def segmentation_loss(
    logits: Float[Tensor, "b c *space"],
    labels: Int[Tensor, "b *space"],
    *,
    dice: float,
    spread: Float[Tensor, "b k *space"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """Cross-entropy plus ``dice`` times the soft Dice loss, for each image by itself.

    With a predicted ``spread`` of the logits the cross-entropy is the likelihood of their mixture
    (``bayes.spread``), sampled with ``generator``. Voxels labelled ``IGNORE`` count in no term; an
    image of ignored voxels alone has loss 0.
    """
    logits = logits.float()
    known = labels != IGNORE
    if spread is None:
        voxels = known.flatten(1).sum(1).clamp(min=1)
        entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
        loss = entropy.flatten(1).sum(1) / voxels
    else:
        assert generator is not None
        loss = negative_log_likelihood(
            logits, spread.float(), labels, samples=INNER, generator=generator
        )
    if dice:
        loss = loss + dice * _dice_loss(logits.softmax(1), labels, known)
    return loss


def _dice_loss(
    probability: Float[Tensor, "b c *space"],
    labels: Int[Tensor, "b *space"],
    known: Tensor,
) -> Float[Tensor, " b"]:
    """Mean over the classes that occur in the batch: an absent class has no overlap to win."""
    classes = probability.shape[1]
    target = F.one_hot(labels.clamp(min=0), classes).movedim(-1, 1).to(probability.dtype)
    known = known[:, None]
    present = [c for c in range(1, classes) if bool((target[:, c] * known[:, 0]).any())]
    if not present:
        return probability.new_zeros(len(probability))
    loss = MaskedDiceLoss(reduction="none", smooth_nr=1.0, smooth_dr=1.0)
    per_class = loss(probability[:, present], target[:, present], known.to(target.dtype))
    return per_class.flatten(1).mean(1)


def findings_loss(
    logits: Float[Tensor, "b f"],
    labels: Float[Tensor, "b f"],
    *,
    uncertain: Literal["ones", "zeros", "ignore"],
) -> Float[Tensor, " b"]:
    """Binary cross-entropy averaged over the stated findings of each image.

    ``uncertain`` says what -1 means (Irvin et al. 2019: U-Ones, U-Zeros, U-Ignore); NaN is
    never counted, and an image without any stated finding has loss 0.
    """
    target, known = settle(labels, uncertain=uncertain)
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none") * known
    return loss.sum(1) / known.sum(1).clamp(min=1)


def settle(
    labels: Float[Tensor, "b f"], *, uncertain: Literal["ones", "zeros", "ignore"]
) -> tuple[Float[Tensor, "b f"], Float[Tensor, "b f"]]:
    """Targets in {0, 1} and the mask of labels that count, under a policy for -1.

    Example:
        >>> settle(torch.tensor([[1.0, -1.0, float("nan")]]), uncertain="ones")[0]
        tensor([[1., 1., 0.]])
    """
    known = ~labels.isnan()
    unsure = labels == -1
    match uncertain:
        case "ones":
            target = torch.where(unsure, 1.0, labels)
        case "zeros":
            target = torch.where(unsure, 0.0, labels)
        case "ignore":
            target, known = torch.where(unsure, 0.0, labels), known & ~unsure
    return torch.where(known, target, 0.0), known.to(labels.dtype)


def deeply_supervised(
    levels: Sequence[Float[Tensor, "b c *space"]],
    labels: Int[Tensor, "b *space"],
    *,
    dice: float,
    spread: Float[Tensor, "b k *space"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, " b"]:
    """``segmentation_loss`` averaged over levels, each weighing half of the finer one before it.

    nnU-Net's deep supervision (Isensee et al. 2021); a single level gives its own loss. ``spread``
    is that of the finest level.
    """
    finest, *coarser = levels
    loss = segmentation_loss(finest, labels, dice=dice, spread=spread, generator=generator)
    shares = [0.5 ** (1 + k) for k in range(len(coarser))]
    for share, logits in zip(shares, coarser, strict=True):
        loss = loss + share * segmentation_loss(logits, labels, dice=dice)
    return loss / (1 + sum(shares))
