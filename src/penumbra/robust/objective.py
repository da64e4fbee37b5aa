"""What an attacker maximises: one number per image, from probabilities and labels."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from penumbra.types import IGNORE

Predict = Callable[[Tensor], Tensor]
"""Images in display units -> averaged probabilities, differentiably: ``[b c *space]`` over classes
or ``[b f]`` over findings."""

Objective = Callable[[Tensor], Tensor]
"""Images -> one value per image ``[b]``, differentiably; larger is worse for the defender."""

Weighting = Literal["plain", "balanced", "cosine"]


def label_loss(predict: Predict, labels: Tensor, *, weighting: Weighting = "plain") -> Objective:
    """The cross-entropy of the averaged prediction, as an attacker's objective."""
    return lambda image: cross_entropy(predict(image), labels, weighting=weighting)


def cross_entropy(
    probabilities: Float[Tensor, "b c *space"],
    labels: Int[Tensor, "b *space"] | Float[Tensor, "b f"],
    *,
    weighting: Weighting = "plain",
) -> Float[Tensor, " b"]:
    r"""Cross-entropy of probabilities (already averaged over draws), one value per image, in nats.

    Integer labels are classes per voxel, ``-1`` ignored; floating labels are findings in [0, 1],
    NaN and -1 ignored. An image with nothing to count gets 0. Proposal 2.2.3: the loss of the
    *averaged* prediction, never Dice, whose gradient vanishes on a missed structure.

    ``weighting`` applies to voxels only:
    ``plain`` the mean over voxels; ``balanced`` the mean over the classes present of their own
    means, so that a small lesion counts as much as the background (Croce et al. 2023, SEA);
    ``cosine`` weights a voxel by the cosine of its probabilities and its one-hot label, so that
    voxels that are still right count most (Agnihotri et al. 2023, CosPGD).

    Example:
        >>> p = torch.tensor([[[0.5, 1.0], [0.5, 0.0]]])  # two classes, two voxels
        >>> cross_entropy(p, torch.tensor([[1, -1]])).round(decimals=3)
        tensor([0.6930])
    """
    if labels.is_floating_point():
        return _bernoulli(probabilities, labels)
    right = probabilities.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    loss = -right.clamp(min=_tiny(right)).log()
    weights = _weights(probabilities.detach(), right.detach(), labels, weighting)
    return (loss * weights).flatten(1).sum(1)


def _weights(probabilities: Tensor, right: Tensor, labels: Tensor, weighting: Weighting) -> Tensor:
    counted = (labels != IGNORE).to(probabilities.dtype)
    share = counted / _per_image(counted.flatten(1).sum(1).clamp(min=1), counted)
    match weighting:
        case "plain":
            return share
        case "balanced":
            return _class_share(labels, probabilities.shape[1])
        case "cosine":  # divided by the number of voxels, not of weights: as published
            return share * right / probabilities.norm(dim=1).clamp(min=_tiny(right))


def _class_share(labels: Tensor, classes: int) -> Tensor:
    """Weights under which every class that is present has the same total; they sum to one."""
    flat = labels.flatten(1)
    one_hot = torch.nn.functional.one_hot(flat.clamp(min=0), classes).float()
    one_hot = one_hot * (flat != IGNORE)[..., None]
    counts = one_hot.sum(1, keepdim=True)
    present = (counts > 0).sum(-1, keepdim=True).clamp(min=1)
    return (one_hot / counts.clamp(min=1) / present).sum(-1).reshape(labels.shape)


def _bernoulli(probabilities: Tensor, labels: Tensor) -> Tensor:
    counted = labels >= 0  # False for NaN and for -1
    target = torch.where(counted, labels, torch.zeros_like(labels))
    yes = probabilities.clamp(min=_tiny(probabilities)).log()
    no = (1 - probabilities).clamp(min=_tiny(probabilities)).log()
    loss = -(target * yes + (1 - target) * no) * counted
    return loss.sum(1) / counted.sum(1).clamp(min=1)


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny
