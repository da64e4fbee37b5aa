"""Metal in the body: what it does to the rays that meet it, back-projected into streaks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from penumbra.augment.intensity import per_image
from penumbra.augment.profile import Profile, draw_seed
from penumbra.augment.sinogram import Scanner, fbp, parallel_scanner
from penumbra.augment.spectrum import DENSITY, Material, Spectrum, tube_spectrum
from penumbra.augment.tomography import (
    VIEWS,
    coarser,
    draw_voltage,
    mm_of_water,
    scan,
    slicewise,
)

_ROUTINE_DOSE = 5e6
"""Photons as in ``tomography.Dose``."""

_MOST_VIEWS = 240
"""Enough for streaks that look like streaks; more would not stay cached."""

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
        changed = image + slicewise(image, lambda slices: self._change(slices, radius, place))
        return torch.minimum(changed, image.clamp(min=_METAL_HU))

    def _change(self, slices: Tensor, radius: Tensor, place: Tensor) -> Tensor:
        spacing = (self.spacing_mm[0], self.spacing_mm[1])
        shape = (slices.shape[2], slices.shape[3])
        half = torch.tensor([n * s / 2 for n, s in zip(shape, spacing, strict=True)])
        pins = (place * half.to(slices)).unbind(1)
        angles = min(parallel_scanner(shape, spacing).angles, _MOST_VIEWS)
        scanner, spectrum = parallel_scanner(shape, spacing, angles), tube_spectrum(self.kvp)
        coarse, coarse_spacing = coarser(slices, spacing)
        areal = scan(coarse, scanner, coarse_spacing, spectrum.reference_kev)
        chord = torch.stack([_chord(scanner, pin, radius) for pin in pins]).sum(0)
        change = self._ray_change(areal, chord.expand_as(areal["water"]), scanner, spectrum)
        return 1000 * fbp(_focal_spot(change), scanner, shape, spacing)

    def _ray_change(
        self, areal: dict[Material, Tensor], chord_mm: Tensor, scanner: Scanner, spectrum: Spectrum
    ) -> Tensor:
        """What metal adds to the rays that meet it, hardened and noisy, in mm of water."""
        hit = chord_mm > 1e-3
        change = torch.zeros_like(chord_mm)
        clear = {m: t[hit] for m, t in areal.items()}
        iron = chord_mm[hit] / 10 * DENSITY["iron"]
        through: dict[Material, Tensor] = {**clear, "iron": iron}
        photons = _ROUTINE_DOSE * scanner.pitch * VIEWS / scanner.angles
        counts = (photons * torch.exp(-spectrum.line_integral(through))).clamp(min=1)
        generator = torch.Generator(iron.device).manual_seed(self.seed)
        noise = torch.randn(len(iron), generator=generator, device=iron.device, dtype=iron.dtype)
        added = spectrum.line_integral(through) - spectrum.line_integral(clear)
        change[hit] = (added + noise * counts.rsqrt()) * mm_of_water(spectrum)
        return change


def _focal_spot(rays: Tensor) -> Tensor:
    """Neighbouring rays mix 1:2:1, as focal spot and crosstalk do; a sharp trace would alias."""
    wide = F.pad(rays, (1, 1))
    return (wide[..., :-2] + 2 * rays + wide[..., 2:]) / 4


def _chord(scanner: Scanner, pin: Tensor, radius: Tensor) -> Tensor:
    """Path through a disc of ``radius`` around ``pin`` in mm, mean over each detector's width."""
    theta, s = (ray.to(pin)[None, None] for ray in scanner.rays())
    x, y = per_image(pin[:, 0], theta), per_image(pin[:, 1], theta)
    offset = s - x * theta.cos() - y * theta.sin()
    wide = per_image(radius, theta).clamp(min=1e-6)
    edges = [((offset + shift * scanner.pitch) / wide).clamp(-1, 1) for shift in (-0.5, 0.5)]
    low, high = (u * (1 - u**2).sqrt() + u.asin() for u in edges)  # integral of the chord
    return wide**2 * (high - low) / scanner.pitch
