"""Aleatoric uncertainty that the network predicts itself: Gaussian logits per voxel.

``eta = m + exp(s/2) * e + sum_r F_r z_r`` with ``e`` fresh for every voxel and ``z`` one number per
image: diagonal (Kendall & Gal 2017) without factors, a stochastic segmentation network (Monteiro et
al. 2020) with them, whose samples are whole coherent segmentations.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from penumbra.bayes.layer import normal
from penumbra.types import IGNORE


def logit_samples(
    mean: Float[Tensor, "b c *space"],
    spread: Float[Tensor, "b k *space"],
    *,
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "s b c *space"]:
    """Samples of the logits; ``spread`` holds c log-variances, then c values per factor.

    Raises:
        ValueError: the channels of ``spread`` are no multiple of the classes.
    """
    classes = mean.shape[1]
    if spread.shape[1] % classes:
        raise ValueError(f"{spread.shape[1]} spread channels are no multiple of {classes} classes")
    std = (0.5 * spread[:, :classes]).exp()
    factors = spread[:, classes:].unflatten(1, (-1, classes)) if spread.shape[1] > classes else None
    # All of the image's numbers first: they do not depend on the window's size.
    shape = (samples, *mean.shape[:1], 0 if factors is None else factors.shape[1])
    shared = normal(mean.new_empty(shape), generator)
    noisy = torch.stack([mean + std * normal(mean, generator) for _ in range(samples)])
    if factors is None:
        return noisy
    return noisy + torch.einsum("sbr,brc...->sbc...", shared, factors)


def mixture(
    mean: Float[Tensor, "b c *space"],
    spread: Float[Tensor, "b k *space"],
    *,
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "b c *space"]:
    """``p = mean_s softmax(eta_s)``, the probability of one weight draw (METHOD 2.2)."""
    return logit_samples(mean, spread, samples=samples, generator=generator).softmax(2).mean(0)


def negative_log_likelihood(
    mean: Float[Tensor, "b c *space"],
    spread: Float[Tensor, "b k *space"],
    labels: Int[Tensor, "b *space"],
    *,
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, " b"]:
    """Monte Carlo likelihood of each image in nats per labelled voxel: trains the spread.

    Per voxel ``-log mean_s p_s(y)`` without factors; with them the voxels of an image are judged
    together, ``-log mean_s prod_v p_s(y_v)``. Voxels labelled ``IGNORE`` do not count; an image of
    ignored voxels alone has 0.
    """
    known = labels != IGNORE
    logits = logit_samples(mean, spread, samples=samples, generator=generator)
    target = labels.clamp_min(0)[None, :, None].expand(samples, *(-1,) * (labels.dim() + 1))
    log_p = logits.log_softmax(2).gather(2, target)[:, :, 0] * known
    if spread.shape[1] > mean.shape[1]:
        log_p = log_p.flatten(2).sum(-1)
    # A hidden voxel's log p is 0 in every sample: log(samples) - logsumexp = 0, nothing is added.
    loss = math.log(samples) - log_p.logsumexp(0)
    return loss.reshape(len(loss), -1).sum(1) / known.flatten(1).sum(1).clamp(min=1)
