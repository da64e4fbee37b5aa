"""Metal in the body: what it does to the rays that meet it, back-projected into streaks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penumbra.augment.intensity import per_image
from penumbra.augment.profile import Profile, draw_seed
from penumbra.augment.sinogram import Scanner, fbp
from penumbra.augment.spectrum import DENSITY, Material, Spectrum, tube_spectrum
from penumbra.augment.tomography import (
    VIEWS,
    coarser,
    draw_voltage,
    hardening,
    mm_of_water,
    quick_scanner,
    scan,
    slicewise,
)

_ROUTINE_DOSE = 5e6
"""Photons as in ``tomography.Dose``."""

_METAL_HU = 3071.0
"""12-bit scanners saturate here."""


@dataclass(frozen=True)
class Metal:
    """Two steel pins across the slices: hardening, photon starvation and the dark band between.

    Steel is taken as iron. ``place`` is each pin's centre in half image sides from the middle.
    """

    diameter_mm: Float[Tensor, " b"]
    place: Float[Tensor, "b 2 2"]
    kvp: float
    spacing_mm: tuple[float, ...]
    seed: int

    @classmethod
    def sample(cls, generator: torch.Generator, shape: Sequence[int], profile: Profile) -> "Metal":
        """Centres are drawn from the middle half of the image."""
        count = shape[0]
        diameter = profile.draw("metal", generator, count)
        place = torch.rand(count, 2, 2, generator=generator, device=generator.device) - 0.5
        spacing = profile.spacing(len(shape) - 2)
        return cls(diameter, place, draw_voltage(generator), spacing, draw_seed(generator))

    def apply(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        repeats = image.shape[4] if image.ndim > 4 else 1
        radius = (self.diameter_mm.to(image) / 2).repeat_interleave(repeats)
        place = self.place.to(image).repeat_interleave(repeats, 0)
        return image + slicewise(image, lambda slices: self._change(slices, radius, place))

    def _change(self, slices: Tensor, radius: Tensor, place: Tensor) -> Tensor:
        spacing = (self.spacing_mm[0], self.spacing_mm[1])
        shape = (slices.shape[2], slices.shape[3])
        half = torch.tensor([n * s / 2 for n, s in zip(shape, spacing, strict=True)])
        pins = (place * half.to(slices)).unbind(1)
        scanner, spectrum = quick_scanner(shape, spacing), tube_spectrum(self.kvp)
        coarse, coarse_spacing = coarser(slices, spacing)
        areal = scan(coarse, scanner, coarse_spacing, spectrum.reference_kev)
        chord = torch.stack([_chord(scanner, pin, radius) for pin in pins]).sum(0)
        change = self._ray_change(areal, chord.expand_as(areal["water"]), scanner, spectrum)
        streaks = 1000 * fbp(change, scanner, shape, spacing)
        inside = torch.stack([_coverage(shape, spacing, pin, radius) for pin in pins]).amax(0)
        return streaks * (1 - inside) + inside * (_METAL_HU - slices)

    def _ray_change(
        self, areal: dict[Material, Tensor], chord_mm: Tensor, scanner: Scanner, spectrum: Spectrum
    ) -> Tensor:
        """Hardening and noise, in mm of water, of the rays that meet metal; zero elsewhere."""
        hit: Bool[Tensor, ...] = chord_mm > 0
        change = torch.zeros_like(chord_mm)
        clear = {m: t[hit] for m, t in areal.items()}
        iron = chord_mm[hit] / 10 * DENSITY["iron"]
        through: dict[Material, Tensor] = {**clear, "iron": iron}
        photons = _ROUTINE_DOSE * scanner.pitch * VIEWS / scanner.angles
        counts = (photons * torch.exp(-spectrum.line_integral(through))).clamp(min=1)
        generator = torch.Generator(iron.device).manual_seed(self.seed)
        noise = torch.randn(len(iron), generator=generator, device=iron.device, dtype=iron.dtype)
        change[hit] = (
            hardening(through, spectrum)
            - hardening(clear, spectrum)
            + noise * counts.rsqrt() * mm_of_water(spectrum)
        )
        return change


def _chord(scanner: Scanner, pin: Tensor, radius: Tensor) -> Tensor:
    """Path of every ray through a disc of ``radius`` around ``pin``, in mm."""
    theta, s = (ray.to(pin)[None, None] for ray in scanner.rays())
    x, y = per_image(pin[:, 0], theta), per_image(pin[:, 1], theta)
    offset = s - x * theta.cos() - y * theta.sin()
    return 2 * (per_image(radius, theta) ** 2 - offset**2).clamp(min=0).sqrt()


def _coverage(
    shape: tuple[int, int], spacing: tuple[float, float], pin: Tensor, radius: Tensor
) -> Tensor:
    """Share of every voxel that the disc covers, to first order."""
    x, y = (
        ((torch.arange(n) - (n - 1) / 2) * d).to(pin) for n, d in zip(shape, spacing, strict=True)
    )
    away = torch.hypot(
        x[:, None] - pin[:, 0].view(-1, 1, 1, 1), y[None] - pin[:, 1].view(-1, 1, 1, 1)
    )
    wide = radius.view(-1, 1, 1, 1)
    return ((wide - away) / min(spacing) + 0.5).clamp(0, 1) * (wide > 0)
