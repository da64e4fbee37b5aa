"""Attacking what is random or too large for one pass: expectation, averages, windows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from penumbra.robust.attack import value_and_gradient
from penumbra.robust.objective import Objective, Predict


def expectation(objective: Objective, *, samples: int) -> Objective:
    """The mean of an objective that draws anew on each call (expectation over transformation).

    Athalye et al. 2018; AutoAttack's ``rand`` uses 20 samples. The gradient is taken call by call,
    so memory does not grow with ``samples``. For the loss of the *averaged* prediction of a fixed
    bank of draws use ``averaged`` instead.

    Raises:
        ValueError: no sample is asked for.
    """
    if samples < 1:
        raise ValueError(f"an expectation needs at least one sample, got {samples}")

    def mean(image: Tensor) -> Tensor:
        if torch.is_grad_enabled() and image.requires_grad:
            return _Expected.apply(image, objective, samples)
        return torch.stack([objective(image) for _ in range(samples)]).mean(0)

    return mean


def averaged(draw: Callable[[Tensor, int], Tensor], *, draws: int) -> Predict:
    """A predict function: the mean of ``draw(image, t)`` over t, differentiable at flat memory.

    Each draw is computed again in the backward pass, so ``draw(image, t)`` must give the same
    probabilities for the same t (a bank of weights does).
    """

    def predict(image: Tensor) -> Tensor:
        total = _recomputed(draw, image, 0)
        for t in range(1, draws):
            total = total + _recomputed(draw, image, t)
        return total / draws

    return predict


def windowed(predict: Predict, *, window: tuple[int, ...], overlap: float = 0.5) -> Predict:
    """A predict function for whole volumes: Gaussian-blended windows, differentiable.

    The attack then sees what the reader of the result sees, seams included. Windows are computed
    again in the backward pass, so memory holds one window's graph. ``predict`` must not draw
    anew for every window.
    """

    def whole(image: Tensor) -> Tensor:
        blended = sliding_window_inference(
            image, window, 1, partial(_recomputed, predict), overlap=overlap, mode="gaussian"
        )
        assert isinstance(blended, Tensor)
        return blended

    return whole


def _recomputed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return function(*inputs)
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


class _Expected(torch.autograd.Function):
    """Value and gradient of all samples at once: row i of the gradient belongs to value i."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, objective: Objective, samples: int) -> Tensor:
        value, gradient = value_and_gradient(objective, image)
        for _ in range(samples - 1):
            one_value, one_gradient = value_and_gradient(objective, image)
            value, gradient = value + one_value, gradient + one_gradient
        ctx.save_for_backward(gradient / samples)
        return value / samples

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0].reshape(-1, *[1] * (gradient.ndim - 1)) * gradient, None, None
