"""The adversarial term of training (proposal 2.2.3): examples, uncertainty weights, loss."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penumbra.robust.attack import fgsm, pgd
from penumbra.robust.ball import Norm, ball
from penumbra.robust.objective import Predict, label_loss


def perturb(
    predict: Predict,
    image: Float[Tensor, "b c *space"],
    labels: Int[Tensor, "b *space"] | Float[Tensor, "b f"],
    *,
    eps: float,
    steps: int,
    norm: Norm,
    valid: Bool[Tensor, "b *space"] | None,
    generator: torch.Generator,
) -> Float[Tensor, "b c *space"]:
    """Adversarial training images: inside the ball, only valid voxels moved, detached.

    They raise the cross-entropy of ``predict``, the probabilities averaged over one or two draws.
    One step is FGSM with a random start and a step of 1.25 eps (without the random start it
    overfits catastrophically: Wong et al. 2020); more steps are PGD. ``eps`` is in display units;
    integer labels are voxel classes (-1 ignored), floating labels findings (NaN ignored). The
    weights behind ``predict`` receive no gradient.

    Example:
        >>> def predict(x):
        ...     return torch.stack([1 - x[:, 0], x[:, 0]], 1)
        >>> image = torch.full((1, 1, 4), 0.5)
        >>> label = torch.zeros((1, 4), dtype=torch.int64)
        >>> g = torch.Generator().manual_seed(0)
        >>> attacked = perturb(
        ...     predict, image, label, eps=0.1, steps=4, norm="linf", valid=None, generator=g
        ... )
        >>> attacked.round(decimals=3)
        tensor([[[0.6000, 0.6000, 0.6000, 0.6000]]])
    """
    around = ball(image, eps=eps, norm=norm, valid=valid)
    objective = label_loss(predict, labels)
    if steps == 1:
        return fgsm(objective, around, generator=generator)
    return pgd(objective, around, steps=steps, generator=generator, keep="last")


def uncertainty_weights(
    uncertainty: Float[Tensor, " b"], *, gamma: float, clip: float
) -> Float[Tensor, " b"]:
    r"""Weight of each adversarial image by its epistemic uncertainty; detached, mean one.

    $$ w_i = \mathrm{sg}\,\mathrm{clip}\big((U_i / \tfrac1B\sum_j U_j)^\gamma, 1/c, c\big),
       \quad\text{renormalised to mean } 1 $$

    Proposal 2.2.3. Detached: otherwise the model lowers its loss by lowering its uncertainty.
    After renormalising, a weight lies in ``1/clip**2 .. clip**2``. ``gamma = 0``, and a batch
    without any uncertainty (a deterministic model), give ones.

    Raises:
        ValueError: an uncertainty is negative or not finite.

    Example:
        >>> uncertainty_weights(torch.tensor([0.1, 0.3]), gamma=1.0, clip=3.0)
        tensor([0.5000, 1.5000])
    """
    u = uncertainty.detach().float()
    if not bool((torch.isfinite(u) & (u >= 0)).all()):
        raise ValueError(f"uncertainties must be finite and not negative, got {u.tolist()}")
    mean = u.mean()
    if gamma == 0 or mean <= torch.finfo(u.dtype).tiny:
        return torch.ones_like(u)
    weights = (u / mean).pow(gamma).clamp(1 / clip, clip)
    return weights / weights.mean()


def adversarial_loss(
    clean: Float[Tensor, " b"],
    attacked: Float[Tensor, " attacked"],
    weights: Float[Tensor, " attacked"],
    *,
    alpha: float,
) -> Float[Tensor, ""]:
    r"""The loss ``L_adv`` of a batch, from the losses of its clean and its attacked images.

    $$ L_{adv} = \tfrac1B \sum_i \alpha\,\ell(x_i) + (1-\alpha)\,w_i\,\ell(x_{adv,i}) $$

    Proposal 2.2.3. The complexity term KL is not part of it: it enters once per step. Attacking
    only part of a shuffled batch estimates the same loss at less cost (each part is a mean): two
    fifths of it by FGSM keep a step under two clean ones. ("Free" training, Shafahi et al. 2019,
    saves the attack's forward pass but needs the gradient of the whole batch: no cheaper here.)

    Example:
        >>> one = torch.ones(2)
        >>> float(adversarial_loss(one, 3 * one, one, alpha=0.5))
        2.0
    """
    return alpha * clean.mean() + (1 - alpha) * (weights.detach() * attacked).mean()


class Shares(NamedTuple):
    """How often the clean and the adversarial loss count in the total."""

    clean: float
    adversarial: float


def effective_weights(*, weight: float, alpha: float, normalise_clean: bool) -> Shares:
    """What multiplies the clean and the adversarial loss in ``L_task + weight * L_adv``.

    The proposal's sum counts the clean loss ``1 + alpha * weight`` times; with
    ``normalise_clean`` it counts once, as ``L_task`` alone.

    Example:
        >>> effective_weights(weight=0.5, alpha=0.5, normalise_clean=False)
        Shares(clean=1.25, adversarial=0.25)
    """
    clean = 1.0 if normalise_clean else 1.0 + alpha * weight
    return Shares(clean, (1 - alpha) * weight)
