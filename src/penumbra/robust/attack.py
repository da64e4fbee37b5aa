"""Gradient attacks, weakest first: noise, FGSM, PGD; every attack has the same verb.

``attack(objective, around, *, steps, generator) -> image``: an allowed image that makes the
objective large. ``worst`` keeps, per image, the strongest of several.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.robust.ball import Ball, ascend, corner, random_start
from penumbra.robust.objective import Objective


class Attacked(NamedTuple):
    """Allowed images ``[b c *space]`` and the objective that each reached ``[b]``."""

    image: Tensor
    value: Tensor


def noise(
    objective: Objective, around: Ball, *, steps: int, generator: torch.Generator
) -> Float[Tensor, "b c *space"]:
    """The control: the strongest of ``steps`` random images of the attacker's full size."""
    tries = (evaluate(objective, corner(around, generator)) for _ in range(steps))
    return worst(tries).image


def fgsm(
    objective: Objective, around: Ball, *, generator: torch.Generator | None
) -> Float[Tensor, "b c *space"]:
    """One step of 1.25 eps along the gradient, from a random start, projected back.

    Wong et al. 2020 (FGSM-RS). Without a generator it is the plain FGSM of Goodfellow et al. 2015:
    one step of eps from the image itself.
    """
    start = around.image if generator is None else random_start(around, generator)
    size = around.eps if generator is None else 1.25 * around.eps
    _, gradient = value_and_gradient(objective, start)
    return ascend(start, gradient, size, around)


def pgd(
    objective: Objective,
    around: Ball,
    *,
    steps: int,
    generator: torch.Generator | None,
    step: float | None = None,
    keep: Literal["best", "last"] = "best",
) -> Float[Tensor, "b c *space"]:
    """Projected gradient ascent (Madry et al. 2018), from a random start if a generator is given.

    Args:
        step: display units; by default ``2.5 * eps / steps``, so that the rim can be reached.
        keep: ``best`` returns, per image, the iterate with the largest objective (one more forward
            pass); with a fixed ``step`` more steps then never help the defender. ``last`` is
            the published form.
    """
    size = 2.5 * around.eps / steps if step is None else step
    x = around.image if generator is None else random_start(around, generator)
    best = Attacked(x, x.new_full((len(x),), -torch.inf))
    for _ in range(steps):
        value, gradient = value_and_gradient(objective, x)
        if keep == "best":
            best = _stronger(best, Attacked(x, value))
        x = ascend(x, gradient, size, around)
    return x if keep == "last" else _stronger(best, evaluate(objective, x)).image


def worst(candidates: Iterable[Attacked]) -> Attacked:
    """Per image, the candidate with the largest value: of restarts, of methods.

    Raises:
        ValueError: there is no candidate.

    Example:
        >>> def mean(x):
        ...     return x.mean((1, 2))
        >>> worst(evaluate(mean, x) for x in (torch.zeros(1, 1, 2), torch.ones(1, 1, 2))).value
        tensor([1.])
    """
    remaining: Iterator[Attacked] = iter(candidates)
    best = next(remaining, None)
    if best is None:
        raise ValueError("no candidate to choose from: an attack needs at least one step or start")
    for candidate in remaining:
        best = _stronger(best, candidate)
    return best


def evaluate(objective: Objective, image: Float[Tensor, "b c *space"]) -> Attacked:
    """The objective of an image, without a gradient."""
    with torch.no_grad():
        return Attacked(image, objective(image))


def value_and_gradient(
    objective: Objective, image: Float[Tensor, "b c *space"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b c *space"]]:
    """The objective per image and its gradient in the image; weights receive no gradient.

    Images of a batch do not share information (no batch statistics), so the gradient of the sum is
    the gradient of each.
    """
    leaf = image.detach().requires_grad_()
    with torch.enable_grad():
        value = objective(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def _stronger(one: Attacked, other: Attacked) -> Attacked:
    better = other.value > one.value
    where = better.reshape(-1, *[1] * (one.image.ndim - 1))
    return Attacked(
        torch.where(where, other.image, one.image), torch.where(better, other.value, one.value)
    )
