"""Checks that a measured robustness is real: gradient masking trips them, loudly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.errors import PenumbraError
from penumbra.robust.attack import evaluate, fgsm, noise, pgd, value_and_gradient, worst
from penumbra.robust.autopgd import apgd
from penumbra.robust.ball import Ball, ascend, ball
from penumbra.robust.blackbox import square
from penumbra.robust.objective import Objective

TOLERANCE = 0.01
"""A weaker attack may look stronger by this share of the loss that the strong attack adds."""


class MaskedGradients(PenumbraError):
    """The attacks were too weak to say anything: the robustness numbers must not be used."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One check, its verdict and the numbers behind it."""

    name: str
    passed: bool
    detail: str


def require(gates: Sequence[Gate]) -> None:
    """Raise unless every gate holds.

    Raises:
        MaskedGradients: lists every gate that failed.

    Example:
        >>> require([Gate("zero gradients", True, "0 of 4 images")])
    """
    failed = [f"  {gate.name}: {gate.detail}" for gate in gates if not gate.passed]
    if failed:
        raise MaskedGradients(
            "the measured robustness is not trustworthy, gradients are masked or the attack is "
            "too weak:\n" + "\n".join(failed)
        )


Failure = Callable[[Tensor], Tensor]
"""Images -> how far each is from a right answer, 0..1, in the task's own measure: lost Dice of the
labelled structures, pairs of findings in the wrong order. A share of voxels would not do: it is
small wherever the background is large."""


def masking_gates(
    objective: Objective,
    failure: Failure,
    around: Ball,
    *,
    steps: int,
    generator: torch.Generator,
    destroyer: Objective | None = None,
    fresh: Failure | None = None,
) -> list[Gate]:
    """Every gate of METHOD 5 on one batch, about ``20 * steps`` passes.

    Carlini et al. 2019, "On evaluating adversarial robustness"; Athalye et al. 2018.

    Args:
        objective: the attacker's loss per image.
        destroyer: the loss that is attacked at a huge eps; where a small structure is judged, one
            in which it counts as much as the background.
        fresh: ``failure`` of the same model with other draws; by default ``failure`` again, which
            says something only where every call draws anew.
    """
    runs = {
        "clean": around.image,
        "noise": noise(objective, around, steps=4, generator=generator),
        "fgsm": fgsm(objective, around, generator=None),
        "pgd": pgd(objective, around, steps=steps, generator=None),
        "pgd x4": _longer(objective, around, steps=steps),
        "apgd": apgd(objective, around, steps=2 * steps, generator=generator),
        "square": square(objective, around, steps=6 * steps, generator=generator),
    }
    loss = {name: evaluate(objective, image).value for name, image in runs.items()}
    white = worst([evaluate(objective, runs[name]) for name in ("pgd", "pgd x4", "apgd")])
    slack = TOLERANCE * (white.value - loss["clean"]).mean().clamp(min=0) + 1e-6
    gates = [
        _gradients(objective, around),
        _promise(objective, around),
        _ordered("more steps never help the defender", loss["pgd"], loss["pgd x4"], slack),
        _ordered("iterated beats one step", loss["fgsm"], white.value, slack),
        _ordered("gradients beat random noise", loss["noise"], white.value, slack),
        _ordered("white box beats black box", loss["square"], white.value, slack),
        _destroyed(destroyer or objective, failure, around, steps=2 * steps),
        _fresh(failure, fresh or failure, around.image, white.image),
    ]
    return gates


def _gradients(objective: Objective, around: Ball) -> Gate:
    _, gradient = value_and_gradient(objective, around.image)
    size = (gradient * around.mask).flatten(1).abs().amax(1)
    dead = ~torch.isfinite(size) | (size == 0)
    detail = f"{int(dead.sum())} of {len(dead)} images have no usable gradient"
    return Gate("gradients exist", not bool(dead.any()), detail)


def _promise(objective: Objective, around: Ball) -> Gate:
    """A small step along the gradient gains about what the gradient says (slope within 2x)."""
    eps = max(around.eps, 1e-3) / 50
    tiny = ball(around.image, eps=eps, norm=around.norm, valid=_valid(around))
    value, gradient = value_and_gradient(objective, around.image)
    moved = ascend(around.image, gradient, eps, tiny)
    promised = (gradient * (moved - around.image)).flatten(1).sum(1).mean()
    gained = (evaluate(objective, moved).value - value).mean()
    ratio = float(gained / promised) if float(promised) > 0 else 0.0
    return Gate("the gradient tells the truth", 0.5 <= ratio <= 2.0, f"gain {ratio:.2f} x promised")


def _destroyed(objective: Objective, failure: Failure, around: Ball, *, steps: int) -> Gate:
    """Nothing is left of the prediction when every voxel may take any value."""
    huge = ball(around.image, eps=1.0, norm="linf", valid=_valid(around))
    before = float(failure(around.image).mean())
    after = float(failure(pgd(objective, huge, steps=steps, generator=None, step=0.2)).mean())
    halfway = before + 0.5 * (1 - before)
    detail = f"{after:.2f} lost at eps = 1 (clean {before:.2f}, needed {halfway:.2f})"
    return Gate("a huge eps destroys the model", after >= halfway, detail)


def _fresh(failure: Failure, fresh: Failure, clean: Tensor, attacked: Tensor) -> Gate:
    """The damage does not hang on the draws that the attacker saw: a tenth may come or go."""
    before, first = float(failure(clean).mean()), float(failure(attacked).mean())
    again = float(fresh(attacked).mean())
    allowed = 0.02 + 0.1 * abs(first - before)
    detail = f"{first:.3f} lost, with fresh draws {again:.3f} (clean {before:.3f})"
    return Gate("fresh draws change nothing", abs(first - again) <= allowed, detail)


def _ordered(
    name: str, weaker: Float[Tensor, " b"], stronger: Float[Tensor, " b"], slack: Tensor
) -> Gate:
    less, more = weaker.mean(), stronger.mean()
    detail = f"loss {float(more):.4f} must not be under {float(less):.4f}"
    return Gate(name, bool(more >= less - slack), detail)


def _longer(objective: Objective, around: Ball, *, steps: int) -> Tensor:
    return pgd(objective, around, steps=4 * steps, generator=None)


def _valid(around: Ball) -> Tensor:
    return around.mask[:, 0] > 0
