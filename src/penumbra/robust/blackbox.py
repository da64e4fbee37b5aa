"""An attack that never asks for a gradient: what it breaks, gradient masking cannot hide."""

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.robust.attack import evaluate, worst
from penumbra.robust.ball import Ball, ascend, project
from penumbra.robust.objective import Objective

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries out of 10 000 after which the size of the squares halves (the paper's schedule)."""


def square(
    objective: Objective,
    around: Ball,
    *,
    steps: int,
    generator: torch.Generator,
    share: float = 0.3,
) -> Float[Tensor, "b c *space"]:
    """The best image found by ``steps`` queries of random search over boxes.

    Square attack, Andriushchenko et al. 2020: start from stripes of +eps and -eps, then set a
    random box (a square in 2-D, a cube in 3-D) to +eps or -eps per channel and keep the change
    where the objective grows. ``share`` is the share of the image that the first boxes cover; it
    halves on the paper's schedule. In ``l2`` the same proposals are projected on the ball.
    """
    best = evaluate(objective, _stripes(around, generator))
    for query in range(1, steps):
        scaled = query * 10_000 // steps
        portion = share / 2 ** sum(scaled > limit for limit in HALVINGS)
        box = _boxes(around.image, portion, generator)
        signs = _signs((*best.image.shape[:2], *[1] * (best.image.ndim - 2)), around, generator)
        moved = ascend(around.image, signs.expand_as(best.image), around.eps, around)
        proposal = project(torch.where(box, moved, best.image), around)
        best = worst([best, evaluate(objective, proposal)])
    return best.image


def _stripes(around: Ball, generator: torch.Generator) -> Tensor:
    """Every line along the first spatial axis has one sign."""
    shape = list(around.image.shape)
    shape[2] = 1
    signs = _signs(tuple(shape), around, generator).expand_as(around.image)
    return ascend(around.image, signs, around.eps, around)


def _boxes(image: Tensor, portion: float, generator: torch.Generator) -> Tensor:
    """One random box per image that covers about ``portion`` of it, as a mask ``[b 1 *space]``."""
    dim = image.ndim - 2
    inside = torch.ones((len(image), 1, *[1] * dim), dtype=torch.bool, device=image.device)
    for axis, size in enumerate(image.shape[2:]):
        side = min(size, max(1, round(portion ** (1 / dim) * size)))
        first = torch.randint(
            0, size - side + 1, (len(image), 1), generator=generator, device=generator.device
        ).to(image.device)
        line = torch.arange(size, device=image.device)[None]
        hit = (line >= first) & (line < first + side)
        inside = inside & hit.reshape(-1, 1, *[size if a == axis else 1 for a in range(dim)])
    return inside


def _signs(shape: tuple[int, ...], around: Ball, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, shape, generator=generator, device=generator.device)
    return (2 * drawn - 1).to(around.image)
