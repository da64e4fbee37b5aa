"""The set that an attacker may move in: a norm ball, the display range, the valid voxels."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Norm = Literal["linf", "l2"]


@dataclass(frozen=True, slots=True)
class Ball:
    """Images that an attacker may hand over instead of ``image``.

    Attributes:
        image: the centre, in display units.
        mask: 1 where a voxel may change (all channels), else 0.
        low, high: the display range, widened where the image itself lies outside of it, so that
            the centre always belongs to the set and ``eps = 0`` is the identity.
        eps: radius in display units. For ``l2`` it is the root mean square change over the voxels
            that may change, so one number means the same for a slice and for a volume; the
            Euclidean radius is ``eps * sqrt(channels * valid voxels)``.
    """

    image: Tensor
    mask: Tensor
    low: Tensor
    high: Tensor
    eps: float
    norm: Norm


def ball(
    image: Float[Tensor, "b c *space"],
    *,
    eps: float,
    norm: Norm = "linf",
    valid: Bool[Tensor, "b *space"] | None = None,
    display: tuple[float, float] = (0.0, 1.0),
) -> Ball:
    """The eps ball around each image, cut by the display range and by the valid voxels.

    Proposal 2.2.3. ``valid`` is False in padding; ``None`` means that every voxel counts.

    Raises:
        ValueError: ``eps`` is negative or the range is empty.

    Example:
        >>> around = ball(torch.full((1, 1, 2), 0.5), eps=0.1)
        >>> project(torch.ones(1, 1, 2), around)
        tensor([[[0.6000, 0.6000]]])
    """
    if eps < 0:
        raise ValueError(f"eps is a radius and cannot be negative, got {eps}")
    if display[0] >= display[1]:
        raise ValueError(f"display range must be (low, high) with low < high, got {display}")
    image = image.detach()
    mask = torch.ones_like(image[:, :1]) if valid is None else valid[:, None].to(image.dtype)
    low, high = image.clamp(max=display[0]), image.clamp(min=display[1])
    return Ball(image, mask, low, high, eps, norm)


def eps_from_hu(eps_hu: float, *, window_hu: tuple[float, float]) -> float:
    """A radius in Hounsfield units as a share of the CT display window.

    Example:
        >>> eps_from_hu(4.0, window_hu=(-160.0, 240.0))
        0.01
    """
    return eps_hu / (window_hu[1] - window_hu[0])


def project(x: Float[Tensor, "b c *space"], around: Ball) -> Float[Tensor, "b c *space"]:
    """The nearest allowed image: change only valid voxels, stay in the ball and in the range."""
    change = (x - around.image) * around.mask
    match around.norm:
        case "linf":
            change = change.clamp(-around.eps, around.eps)
        case "l2":
            change = change * (radius(around) / _length(change).clamp(min=1e-12)).clamp(max=1)
    moved = torch.minimum(torch.maximum(around.image + change, around.low), around.high)
    return moved


def ascend(
    x: Float[Tensor, "b c *space"],
    gradient: Float[Tensor, "b c *space"],
    step: float | Tensor,
    around: Ball,
) -> Float[Tensor, "b c *space"]:
    """One projected step of steepest ascent in the ball's norm.

    ``linf``: the sign of the gradient; ``l2``: the gradient over its length, times the radius per
    unit of ``eps``. ``step`` is in display units: a number, or one per image ``[b, 1, ...]``.
    """
    gradient = gradient * around.mask
    match around.norm:
        case "linf":
            direction = gradient.sign()
        case "l2":
            direction = gradient / _length(gradient).clamp(min=1e-12) * _unit(around)
    return project(x + step * direction, around)


def random_start(around: Ball, generator: torch.Generator) -> Float[Tensor, "b c *space"]:
    """A random allowed image: uniform in the cube (``linf``), uniform in the sphere (``l2``)."""
    image = around.image
    match around.norm:
        case "linf":
            change = (2 * _uniform(image.shape, image, generator) - 1) * around.eps
        case "l2":
            change = _normal(image.shape, image, generator) * around.mask
            share = _uniform((len(image), *[1] * (image.ndim - 1)), image, generator)
            # The exponent 1/n of a uniform draw in n dimensions is 1 for any image: on the rim.
            entries = around.mask.flatten(1).sum(1).reshape(share.shape) * image.shape[1]
            change = change / _length(change).clamp(min=1e-12) * radius(around)
            change = change * share ** (1 / entries.clamp(min=1))
    return project(image + change, around)


def corner(around: Ball, generator: torch.Generator) -> Float[Tensor, "b c *space"]:
    """Random noise of the attacker's full size: the control that every attack must beat.

    ``linf``: every voxel moves by +eps or -eps; ``l2``: Gaussian noise scaled to the radius.
    """
    noise = _normal(around.image.shape, around.image, generator)
    return ascend(around.image, noise, around.eps, around)


def radius(around: Ball) -> Tensor:
    """The Euclidean radius of an ``l2`` ball, one per image ``[b, 1, ...]``."""
    return around.eps * _unit(around)


def _unit(around: Ball) -> Tensor:
    entries = around.mask.flatten(1).sum(1) * around.image.shape[1]
    return entries.sqrt().reshape(-1, *[1] * (around.image.ndim - 1))


def _length(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


def _uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(like)


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


def change_size(x: Float[Tensor, "b c *space"], around: Ball) -> Float[Tensor, " b"]:
    """How far each image moved, in the unit of ``eps``."""
    change = (x - around.image).flatten(1)
    if around.norm == "linf":
        return change.abs().amax(1)
    return change.norm(dim=1) / _unit(around).flatten().clamp(min=math.ulp(1.0))
