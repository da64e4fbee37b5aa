"""Post-hoc explainers behind one contract, and the priors that each must beat.

``explain`` gives every method the same question: which voxels speak for this finding or class?
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, Occlusion
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from penumbra.nets.hooks import hooked

Method = Literal["grad_cam", "grad_cam_pp", "integrated_gradients", "smooth_grad", "occlusion"]

Logits = Callable[[Tensor], Tensor]
"""Images -> logits ``[b f]`` of findings or ``[b c *space]`` of classes, differentiably."""

Score = Callable[[Tensor], Tensor]

NOISE = 0.1
"""Standard deviation of SmoothGrad's noise in display units."""

SAMPLES = 16
"""Noisy gradients behind one SmoothGrad map."""

AT_ONCE = 2**21
"""Voxels of perturbed copies that are scored together."""


def explain(
    logits: Logits,
    image: Float[Tensor, "b c *space"],
    *,
    target: int,
    method: Method,
    generator: torch.Generator,
    layer: nn.Module | None = None,
) -> Float[Tensor, "b *space"]:
    """Relevance of each voxel for finding or class ``target``, in [0, 1], largest value 1.

    A map without any evidence stays 0. Images are explained one by one. For a segmentation the
    score is the mean logit over the voxels that the clean image assigns to the class (Seg-Grad-CAM,
    Vinogradova et al. 2020), over all voxels if there are none.

    - ``grad_cam`` (Selvaraju et al. 2017), ``grad_cam_pp`` (Chattopadhay et al. 2018): positive
      part, from the output of ``layer``, upsampled linearly;
    - ``integrated_gradients`` (Sundararajan et al. 2017): magnitude over channels, 32 steps from
      black; captum;
    - ``smooth_grad`` (Smilkov et al. 2017): mean magnitude of 16 noisy gradients;
    - ``occlusion`` (Zeiler & Fergus 2014): drop of the score when a box of an eighth of each axis
      shows the image's mean; captum.

    Raises:
        ValueError: a CAM without ``layer``, a layer that the model does not use or whose output
            is not one tensor, or a target that the model does not have.
    """
    maps = []
    for one in image.detach().split(1):
        score = _score(logits, one, target)
        match method:
            case "grad_cam" | "grad_cam_pp":
                evidence = _cam(score, one, layer, plus=method == "grad_cam_pp")
            case "integrated_gradients":
                evidence = _integrated_gradients(score, one)
            case "smooth_grad":
                evidence = _smooth_grad(score, one, generator)
            case "occlusion":
                evidence = _occlusion(score, one)
        maps.append(evidence / evidence.max().clamp(min=1e-20))
    return torch.cat(maps).detach()


def centre_prior(image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b *space"]:
    """A Gaussian at the centre of the field of view, a quarter of each axis wide: no model at all.

    Example:
        >>> centre_prior(torch.zeros(1, 1, 3)).argmax().item()
        1
    """
    prior = image.new_ones(image.shape[2:])
    for axis, size in enumerate(image.shape[2:]):
        distance = (torch.arange(size, device=image.device) + 0.5) / size - 0.5
        bell = torch.exp(-0.5 * (distance / 0.25).square()).to(image)
        prior = prior * bell.reshape([size if a == axis else 1 for a in range(image.ndim - 2)])
    return (prior / prior.max()).expand(len(image), *prior.shape)


def organ_prior(body: Bool[Tensor, "b *space"]) -> Float[Tensor, "b *space"]:
    """Depth inside the organ or body, 1 at its deepest voxel: anatomy, but no model.

    A body that fills the frame ends at the frame.

    Example:
        >>> organ_prior(torch.tensor([[False, True, True, True, False]]))
        tensor([[0.0000, 0.5000, 1.0000, 0.5000, 0.0000]])
    """
    depths = [torch.from_numpy(_depth(one.cpu().numpy())) for one in body]
    return torch.stack([(d / d.max().clamp(min=1)).float() for d in depths]).to(body.device)


def _depth(body: Bool[np.ndarray, "*space"]) -> Float[np.ndarray, "*space"]:
    if not body.all():
        return distance_transform_edt(body)
    return distance_transform_edt(np.pad(body, 1))[(slice(1, -1),) * body.ndim]


def _score(logits: Logits, image: Tensor, target: int) -> Score:
    with torch.no_grad():
        clean = logits(image)
    if not 0 <= target < clean.shape[1]:
        raise ValueError(f"target {target} does not exist: the model has {clean.shape[1]} outputs")
    if clean.ndim == 2:
        return lambda x: logits(x)[:, target]
    region = (clean.argmax(1) == target).to(clean)
    region = region if region.any() else torch.ones_like(region)
    return lambda x: (logits(x)[:, target] * region).flatten(1).sum(1) / region.sum()


def _cam(score: Score, image: Tensor, layer: nn.Module | None, *, plus: bool) -> Tensor:
    if layer is None:
        raise ValueError("Grad-CAM explains through a layer: hand over one of the model's modules")
    kept: list[Tensor] = []
    with hooked([layer], lambda module, inputs, output: kept.append(output)), torch.enable_grad():
        value = score(image.requires_grad_()).sum()
    if not kept or not isinstance(kept[-1], Tensor):
        found = f"its output is a {type(kept[-1]).__name__}" if kept else "the model never ran it"
        raise ValueError(f"layer {type(layer).__name__} cannot be explained: {found}")
    features = kept[-1]
    (gradient,) = torch.autograd.grad(value, features)
    axes = tuple(range(2, features.ndim))
    if plus:
        spread = 2 * gradient.square() + features.sum(axes, keepdim=True) * gradient.pow(3)
        alpha = gradient.square() / torch.where(spread != 0, spread, torch.ones_like(spread))
        weights = (alpha * gradient.clamp(min=0)).sum(axes, keepdim=True)
    else:
        weights = gradient.mean(axes, keepdim=True)
    cam = (weights * features).sum(1, keepdim=True).clamp(min=0).detach()
    return _upsample(cam, image.shape[2:])[:, 0]


def _integrated_gradients(score: Score, image: Tensor) -> Tensor:
    attribution = IntegratedGradients(score).attribute(
        image, n_steps=32, internal_batch_size=_at_once(image, 32)
    )
    return attribution.abs().sum(1).to(image.dtype)


def _smooth_grad(score: Score, image: Tensor, generator: torch.Generator) -> Tensor:
    # captum's NoiseTunnel draws from the global generator; this is the same mean.
    shape = (SAMPLES, *image.shape[1:])
    noise = torch.randn(shape, generator=generator, device=generator.device).to(image)
    total = torch.zeros_like(image)
    for some in noise.split(_at_once(image, SAMPLES)):
        leaf = (image + NOISE * some).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
        total += gradient.abs().sum(0, keepdim=True)
    return total.sum(1)


def _occlusion(score: Score, image: Tensor) -> Tensor:
    box = tuple(max(1, size // 8) for size in image.shape[2:])
    stride = tuple(max(1, side // 2) for side in box)
    channels = image.shape[1]
    grey = image.mean(tuple(range(2, image.ndim)), keepdim=True).expand_as(image)
    with torch.no_grad():
        drop = Occlusion(score).attribute(
            image,
            sliding_window_shapes=(channels, *box),
            strides=(channels, *stride),
            baselines=grey,
            perturbations_per_eval=_at_once(image, 32),
        )
    return drop.mean(1).clamp(min=0).to(image.dtype)


def _at_once(image: Tensor, most: int) -> int:
    return min(most, max(1, AT_ONCE // image.numel()))


def _upsample(cam: Tensor, size: torch.Size) -> Tensor:
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[cam.ndim]
    return F.interpolate(cam, size=tuple(size), mode=mode, align_corners=False)
