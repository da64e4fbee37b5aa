"""APGD: projected gradient ascent that chooses its own step size."""

from itertools import count, pairwise, takewhile

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.robust.attack import value_and_gradient
from penumbra.robust.ball import Ball, ascend, project, random_start
from penumbra.robust.objective import Objective

MOMENTUM = 0.75
GAINS = 0.75
"""Share of steps that must gain between two checkpoints, else the step size halves."""


def apgd(
    objective: Objective, around: Ball, *, steps: int, generator: torch.Generator | None
) -> Float[Tensor, "b c *space"]:
    """The strongest iterate per image; no step size to tune.

    Croce & Hein 2020, Algorithm 1: starts with steps of 2 eps and momentum; at checkpoints that
    grow denser, an image whose objective gained in fewer than three quarters of the steps, or not
    at all with an unchanged step size, halves its step and goes back to its best point. Every
    image has its own step size, so a batch changes nothing. For a stochastic model wrap the
    objective in ``expectation`` (AutoAttack's ``rand`` uses 20 samples).
    """
    x = around.image if generator is None else random_start(around, generator)
    value, gradient = value_and_gradient(objective, x)
    best_x, best, best_gradient = x, value, gradient
    previous, last_value = x, value
    step = torch.full_like(value, 2 * around.eps)
    gains = torch.zeros_like(value)
    halved_before = torch.zeros_like(value, dtype=torch.bool)
    best_before = best
    windows = {end: end - start for start, end in pairwise([0, *checkpoints(steps)])}
    for k in range(1, steps + 1):
        tried = ascend(x, gradient, _wide(step, x), around)
        if k > 1:
            tried = project(x + MOMENTUM * (tried - x) + (1 - MOMENTUM) * (x - previous), around)
        previous, x = x, tried
        value, gradient = value_and_gradient(objective, x)
        gains += value > last_value
        last_value = value
        better = value > best
        best = torch.where(better, value, best)
        best_x = torch.where(_wide(better, x), x, best_x)
        best_gradient = torch.where(_wide(better, x), gradient, best_gradient)
        if k not in windows:
            continue
        stuck = gains < GAINS * windows[k]
        stuck |= ~halved_before & (best <= best_before)
        step = torch.where(stuck, step / 2, step)
        x = torch.where(_wide(stuck, x), best_x, x)
        gradient = torch.where(_wide(stuck, x), best_gradient, gradient)
        last_value = torch.where(stuck, best, last_value)
        halved_before, best_before, gains = stuck, best, torch.zeros_like(gains)
    return best_x


def checkpoints(steps: int) -> list[int]:
    """Steps at which the step size may halve: after 22 % of the budget, then ever closer.

    Example:
        >>> checkpoints(100)
        [22, 41, 57, 70, 80, 87, 93, 99]
    """
    shares = [0.0, 0.22]
    for _ in takewhile(lambda _: shares[-1] <= 1, count()):
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    # ceil as published; the rounding keeps 0.41 * 100 from becoming 42.
    ends = [-int(-round(share * steps, 6) // 1) for share in shares[1:]]
    return sorted({end for end in ends if 0 < end <= steps})


def _wide(per_image: Tensor, x: Tensor) -> Tensor:
    return per_image.reshape(-1, *[1] * (x.ndim - 1))
