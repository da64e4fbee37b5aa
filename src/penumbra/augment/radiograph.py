"""Projection radiography: photon noise, scatter, blur and collimation of a digital detector.

A picture is a fraction d of the detector's logarithmic range, white = dense: behind air d = 0 and
the relative intensity is exp(-L d) with L = ln 50, the dynamic range of a chest exposure.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.augment.intensity import along_axis, per_image
from penumbra.augment.profile import Profile, draw_seed

LOG_RANGE = math.log(50.0)
"""Ratio of the detector signal behind air to that behind the mediastinum, as a logarithm."""


@dataclass(frozen=True)
class PhotonNoise:
    """Quantum mottle: counts N = N0 exp(-L d), their Poisson noise back on the log scale.

    The standard deviation of d is 1 / (L sqrt(N)): dense parts are noisier, and the variance falls
    as 1/dose. Counts are large, so the Poisson law is taken by its normal limit.
    """

    photons: Float[Tensor, " b"]
    seed: int

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "PhotonNoise":
        return cls(profile.draw("photon_noise", generator, shape[0]), draw_seed(generator))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        generator = torch.Generator(image.device).manual_seed(self.seed)
        noise = torch.randn(
            image.shape, generator=generator, device=image.device, dtype=image.dtype
        )
        at_air = per_image(self.photons.rsqrt() / LOG_RANGE, image)
        return image + noise * at_air * torch.exp(image * (LOG_RANGE / 2))


@dataclass(frozen=True)
class Scatter:
    """A smooth veil of scattered photons, strongest behind what is bright to the detector.

    Intensity becomes (I + s * blur(I)) / (1 + s): dense regions lose contrast. The kernel is wide
    (a quarter of the picture), as scatter in a trunk is.
    """

    ratio: Float[Tensor, " b"]

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "Scatter":
        return cls(profile.draw("scatter", generator, shape[0]))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        ratio = per_image(self.ratio, image)
        primary = torch.exp(-LOG_RANGE * image)
        widths = [torch.full_like(self.ratio, n / 8) for n in image.shape[2:]]
        mixed = (primary + ratio * gaussian(primary, widths)) / (1 + ratio)
        return -torch.log(mixed) / LOG_RANGE


@dataclass(frozen=True)
class Blur:
    """Focal spot and patient motion: a Gaussian of known sigma in pixels, in intensity."""

    sigma: Float[Tensor, " b"]

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Blur":
        return cls(profile.draw("blur", generator, shape[0]))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return gaussian(image, [self.sigma] * (image.ndim - 2))


@dataclass(frozen=True)
class Collimation:
    """Shutters: black outside a rectangle whose edges have a geometric penumbra of a pixel."""

    low: Float[Tensor, "b dim"]
    high: Float[Tensor, "b dim"]

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "Collimation":
        count, dim = shape[0], len(shape) - 2
        share = profile.draw("collimation", generator, count)[None, :, None]
        part = torch.rand(2, count, dim, generator=generator, device=generator.device)
        covered = share * (0.25 + 0.75 * part)
        return cls(covered[0], 1 - covered[1])

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        low, high = self.low.to(image), self.high.to(image)
        for axis, n in enumerate(image.shape[2:]):
            pixel = torch.arange(n, device=image.device, dtype=image.dtype)[None] + 0.5
            opened = (pixel - low[:, axis, None] * n + 0.5).clamp(0, 1)
            closed = (high[:, axis, None] * n - pixel + 0.5).clamp(0, 1)
            shape = [n if a == axis + 1 else 1 for a in range(image.ndim - 1)]
            image = image * (opened * closed).view(-1, *shape)
        return image


def gaussian(
    image: Float[Tensor, "b c *space"], sigmas: Sequence[Float[Tensor, " b"]]
) -> Float[Tensor, "b c *space"]:
    """Gaussian blur with one sigma per image and axis, in voxels; edges are renormalised.

    Each axis is one product with a banded matrix whose rows sum to one, so a constant stays a
    constant. Sigma 0 is the identity.
    """
    for axis, sigma in enumerate(sigmas):
        n = image.shape[2 + axis]
        index = torch.arange(n, device=image.device, dtype=image.dtype)
        distance = (index[:, None] - index[None]) ** 2
        width = sigma.to(image).clamp(min=1e-3)[:, None, None]
        matrix = torch.exp((-distance / (2 * width**2)).clamp(min=-60))  # no slow denormals
        image = along_axis(image, matrix / matrix.sum(-1, keepdim=True), axis)
    return image
