"""CT acquisition in the sinogram: beam hardening and dose; and the reconstruction kernel.

Filtered back-projection is linear, so an effect that changes the line integrals by D changes the
image by FBP(D): the image itself is never projected and rebuilt, loses no sharpness, and D = 0
leaves it as it was, bit for bit. Volumes are scanned slice by slice, slices along the last axis.
A patch is treated as the whole object.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from penumbra.augment.intensity import per_image
from penumbra.augment.profile import Profile, draw_seed, random_sign
from penumbra.augment.radiograph import gaussian
from penumbra.augment.sinogram import Scanner, fbp, parallel_scanner, project
from penumbra.augment.spectrum import (
    Material,
    Spectrum,
    mass_attenuation,
    tube_spectrum,
)

VOLTAGES_KVP = (80.0, 100.0, 120.0, 140.0)
VIEWS = 1000
"""Views per turn behind which a dose is stated."""

_BONE_HU = (150.0, 1200.0)
"""Below: water of some density. Above: cortical bone. Linear mixture between."""


_CLIPPED_HU = -500.0


def materials(
    image: Float[Tensor, "b c h w"], reference_kev: float
) -> dict[Material, Float[Tensor, "b c h w"]]:
    """Density of water and bone in g/cm^3 whose attenuation at one energy is that of the HU."""
    relative = density(image)
    low, high = _BONE_HU
    bone = ((image - low) / (high - low)).clamp(0, 1)
    kev = torch.tensor([reference_kev], dtype=torch.float64)
    ratio = float(mass_attenuation("water", kev) / mass_attenuation("bone", kev))
    return {"water": relative * (1 - bone), "bone": relative * bone * ratio}


def density(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Attenuation relative to water; air is 0.

    A scan whose values were clipped above air (a floor over -500 HU) has its floor taken for air.
    """
    floor = image.amin((2, 3), keepdim=True)
    air = (floor > _CLIPPED_HU) & (image < floor + 2)
    return torch.where(air, 0.0, (1 + image / 1000).clamp(min=0))


def scan(
    image: Float[Tensor, "b c h w"],
    scanner: Scanner,
    spacing_mm: tuple[float, float],
    reference_kev: float,
) -> dict[Material, Float[Tensor, "b c angles detectors"]]:
    """Areal densities in g/cm^2 of water and bone along every ray."""
    parts = materials(image, reference_kev)
    both = project(torch.cat(list(parts.values()), 1), scanner, spacing_mm) / 10
    return dict(zip(parts, both.chunk(2, 1), strict=True))


def hardening(
    areal: dict[Material, Float[Tensor, "*rays"]], spectrum: Spectrum
) -> Float[Tensor, "*rays"]:
    """Polychromatic minus monochromatic line integral, in mm of water; zero for one energy."""
    kev = torch.tensor([spectrum.reference_kev], dtype=torch.float64)
    parts = [float(mass_attenuation(m, kev)) * t for m, t in areal.items()]
    water = float(mass_attenuation("water", kev))
    return 10 * (spectrum.line_integral(areal) - torch.stack(parts).sum(0)) / water


@dataclass(frozen=True)
class BeamHardening:
    """Cupping and dark bands: a share of the hardening that a scanner leaves uncorrected."""

    share: Float[Tensor, " b"]
    kvp: float
    spacing_mm: tuple[float, ...]

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "BeamHardening":
        share = profile.draw("beam_hardening", generator, shape[0])
        return cls(share, draw_voltage(generator), profile.spacing(len(shape) - 2))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        return image + per_image(self.share, image) * slicewise(image, self._change)

    def _change(self, slices: Tensor) -> Tensor:
        spacing = (self.spacing_mm[0], self.spacing_mm[1])
        coarse, coarse_spacing = coarser(slices, spacing)
        spectrum = tube_spectrum(self.kvp)
        shape = (coarse.shape[2], coarse.shape[3])
        scanner = quick_scanner(shape, coarse_spacing)
        areal = scan(coarse, scanner, coarse_spacing, spectrum.reference_kev)
        change = fbp(hardening(areal, spectrum), scanner, shape, coarse_spacing)
        return 1000 * finer(change, (slices.shape[2], slices.shape[3]))


@dataclass(frozen=True)
class Dose:
    """Photon noise of the sinogram: streaks along dense paths, variance as 1/dose.

    ``photons`` counts behind no patient, per mm of detector and view, for 1000 views.
    """

    photons: Float[Tensor, " b"]
    kvp: float
    spacing_mm: tuple[float, ...]
    seed: int

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Dose":
        photons = profile.draw("dose", generator, shape[0])
        spacing = profile.spacing(len(shape) - 2)
        return cls(photons, draw_voltage(generator), spacing, draw_seed(generator))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        repeats = math.prod(image.shape[4:]) if image.ndim > 4 else 1
        photons = self.photons.to(image).repeat_interleave(repeats)
        generator = torch.Generator(image.device).manual_seed(self.seed)

        def change(slices: Tensor) -> Tensor:
            spacing = (self.spacing_mm[0], self.spacing_mm[1])
            shape = (slices.shape[2], slices.shape[3])
            scanner = quick_scanner(shape, spacing)
            depth = self._depth(slices, scanner, spacing)
            rays = per_image(photons, slices) * scanner.pitch * (VIEWS / scanner.angles)
            counts = rays * torch.exp(-depth)
            noise = torch.randn(
                counts.shape, generator=generator, device=counts.device, dtype=counts.dtype
            )
            spread = noise * counts.clamp(min=1).rsqrt()
            return 1000 * fbp(
                spread * mm_of_water(tube_spectrum(self.kvp)), scanner, shape, spacing
            )

        return image + slicewise(image, change)

    def _depth(self, slices: Tensor, scanner: Scanner, spacing: tuple[float, float]) -> Tensor:
        """Line integrals before the detector; they are smooth, so a coarse image will do."""
        coarse, coarse_spacing = coarser(slices, spacing)
        return project(density(coarse), scanner, coarse_spacing) / mm_of_water(
            tube_spectrum(self.kvp)
        )


@dataclass(frozen=True)
class Kernel:
    """Reconstruction kernel: softer by a Gaussian of sigma mm, or sharper by what it removes."""

    sigma_mm: Float[Tensor, " b"]
    spacing_mm: tuple[float, ...]

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Kernel":
        sigma = profile.draw("kernel", generator, shape[0]) * random_sign(generator, shape[0])
        return cls(sigma, profile.spacing(len(shape) - 2))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        in_plane = self.spacing_mm[:2]
        soft = gaussian(image, [self.sigma_mm.abs() / s for s in in_plane])
        detail = image - soft
        return image - detail * per_image(self.sigma_mm.sign(), image)


def mm_of_water(spectrum: Spectrum) -> float:
    """Millimetres of water that attenuate by a factor e."""
    kev = torch.tensor([spectrum.reference_kev], dtype=torch.float64)
    return 10 / float(mass_attenuation("water", kev))


def draw_voltage(generator: torch.Generator) -> float:
    """One of ``VOLTAGES_KVP``, each with equal chance."""
    index = torch.randint(len(VOLTAGES_KVP), (1,), generator=generator, device=generator.device)
    return VOLTAGES_KVP[int(index)]


def quick_scanner(shape: tuple[int, int], spacing: tuple[float, float]) -> Scanner:
    """Full detector resolution, half of the views that a reconstruction from scratch would need."""
    full = parallel_scanner(shape, spacing)
    return parallel_scanner(shape, spacing, math.ceil(full.angles / 2))


def coarser(slices: Tensor, spacing: tuple[float, float]) -> tuple[Tensor, tuple[float, float]]:
    """Attenuation along a ray is smooth: half the resolution, at most 128 voxels a side.

    Sides are padded to a whole number of coarse voxels.
    """
    h, w = slices.shape[2:]
    factor = max(min(h, w, 2), math.ceil(max(h, w) / 128))
    padded = F.pad(slices, (0, -w % factor, 0, -h % factor), mode="replicate")
    return F.avg_pool2d(padded, factor), (spacing[0] * factor, spacing[1] * factor)


def finer(coarse: Tensor, shape: tuple[int, int]) -> Tensor:
    """Back from ``coarser`` to a grid of ``shape``."""
    factor = max(math.ceil(n / m) for n, m in zip(shape, coarse.shape[2:], strict=True))
    size = [m * factor for m in coarse.shape[2:]]
    fine = F.interpolate(coarse, size, mode="bilinear", antialias=False)
    return fine[:, :, : shape[0], : shape[1]]


def slicewise(image: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a change of [b, c, h, w] to the slices of a volume."""
    if image.ndim == 4:
        return change(image)
    b, c, h, w, depth = image.shape
    slices = image.permute(0, 4, 1, 2, 3).reshape(b * depth, c, h, w)
    return change(slices).view(b, depth, c, h, w).permute(0, 2, 3, 4, 1)
