"""Attacks on the uncertainty itself, with the label kept: hide it, or raise a false alarm."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penumbra.robust.objective import Objective

Draws = Callable[[Tensor], Tensor]
"""Images -> the probabilities of every posterior draw, ``[t b c *space]``, differentiably."""

Measure = Literal["epistemic", "total"]


def uncertainty_loss(
    draws: Draws,
    kept: Int[Tensor, "b *space"],
    *,
    direction: Literal["hide", "raise"],
    measure: Measure = "epistemic",
    valid: Bool[Tensor, "b *space"] | None = None,
    keep: float = 10.0,
) -> Objective:
    """An objective whose maximum hides or raises the mean uncertainty while the labels stay.

    The mean uncertainty over valid voxels (negated to hide it), minus ``keep`` times the mean
    hinge by which a voxel's class ``kept`` (the clean prediction) fails to lead. An error that is
    made certain escapes review; a false alarm sends everything to review. Ledda et al. 2023;
    Feng et al. 2024, "Attacking Bayes". Then count ``labels_kept``. Findings: hand over draws
    ``torch.stack([1 - p, p], 2)``, two classes per finding.
    """
    sign = 1.0 if direction == "raise" else -1.0

    def objective(image: Tensor) -> Tensor:
        p = draws(image)
        u = _mean(uncertainty(p, measure), valid)
        return sign * u - keep * _mean(_overtaken(p.mean(0), kept), valid)

    return objective


def uncertainty(p: Float[Tensor, "t b c *space"], measure: Measure) -> Float[Tensor, "b *space"]:
    r"""``epistemic``: $\sum_c \mathrm{Var}_t\, p_{tc}$; ``total``: $1 - |\bar p|^2$ (METHOD 2.2).

    Example:
        >>> agree = torch.tensor([[[0.7, 0.3]], [[0.7, 0.3]]])
        >>> float(uncertainty(agree, "epistemic"))
        0.0
    """
    match measure:
        case "epistemic":
            return p.var(0, correction=0).sum(1)
        case "total":
            return 1 - p.mean(0).square().sum(1)


def labels_kept(
    mean: Float[Tensor, "b c *space"], kept: Int[Tensor, "b *space"]
) -> Float[Tensor, " b"]:
    """Share of voxels whose predicted class is still the one before the attack."""
    return (mean.argmax(1) == kept).float().flatten(1).mean(1)


def _overtaken(mean: Tensor, kept: Tensor) -> Tensor:
    chosen = mean.gather(1, kept[:, None])[:, 0]
    others = mean.scatter(1, kept[:, None], -torch.inf).amax(1)
    return (others - chosen + 1e-3).clamp(min=0)


def _mean(values: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return values.reshape(len(values), -1).mean(1)
    weight = valid.to(values.dtype).flatten(1)
    return (values.flatten(1) * weight).sum(1) / weight.sum(1).clamp(min=1)
