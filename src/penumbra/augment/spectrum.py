"""X-ray tube spectra and the polychromatic Beer-Lambert law.

Mass attenuation coefficients in cm^2/g: Hubbell & Seltzer, NISTIR 5632 (NIST Standard Reference
Database 126, 2004), tables 3 and 4, read at the listed energies and interpolated log-log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Material = Literal["water", "bone", "aluminium", "iron"]

ENERGY_KEV = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)

MASS_ATTENUATION: Mapping[Material, tuple[float, ...]] = {
    "water": (5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    "bone": (28.51, 9.032, 4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    "aluminium": (26.23, 7.955, 3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378),
    "iron": (170.6, 57.08, 25.68, 8.176, 3.629, 1.958, 1.205, 0.5952, 0.3717, 0.1964),
}
"""Water; bone, cortical (ICRU-44); Al; Fe. All edges of these materials lie below 10 keV."""

DENSITY: Mapping[Material, float] = {
    "water": 1.0,
    "bone": 1.92,
    "aluminium": 2.699,
    "iron": 7.874,
}
"""g/cm^3."""

_CALIBRATION_CM = 20.0
"""Scanners hold a 20 cm water phantom at 0 HU."""


def mass_attenuation(material: Material, energy_kev: Tensor) -> Tensor:
    """Attenuation over density in cm^2/g at energies of 10-150 keV.

    Example:
        >>> float(mass_attenuation("water", torch.tensor([60.0], dtype=torch.float64)))
        0.2059
    """
    table = np.interp(
        np.log(energy_kev.numpy()), np.log(ENERGY_KEV), np.log(MASS_ATTENUATION[material])
    )
    return torch.from_numpy(np.exp(table)).to(torch.float64)


@dataclass(frozen=True)
class Spectrum:
    """Share of the detected signal per energy; the shares sum to one."""

    energy_kev: Tensor
    share: Tensor

    def attenuation(self, material: Material) -> Tensor:
        """Attenuation over density in cm^2/g at each energy."""
        return mass_attenuation(material, self.energy_kev)

    @property
    def mean_kev(self) -> float:
        """Signal-weighted mean energy."""
        return float((self.energy_kev * self.share).sum())

    def line_integral(
        self, areal: Mapping[Material, Float[Tensor, "*rays"]]
    ) -> Float[Tensor, "*rays"]:
        """What the detector reports: ``-log sum_E S(E) exp(-sum_m mu_m(E) t_m)``.

        ``areal`` is the areal density t in g/cm^2 of each material along the ray.
        """
        tables = {m: self.attenuation(m).tolist() for m in areal}
        # the hardest photons are attenuated least: their term keeps the sum away from zero
        depth = _weighted(areal, {m: table[-1] for m, table in tables.items()})
        total = torch.zeros_like(depth)
        for i, share in enumerate(self.share.tolist()):
            excess = _weighted(areal, {m: table[-1] - table[i] for m, table in tables.items()})
            total = total + share * torch.exp(excess)
        return depth - torch.log(total)

    @cached_property
    def reference_kev(self) -> float:
        """The single energy that gives 20 cm of water the same attenuation: HU refer to it."""
        water = torch.tensor([_CALIBRATION_CM], dtype=torch.float64)
        mu = float(self.line_integral({"water": water})) / _CALIBRATION_CM
        fine = torch.linspace(ENERGY_KEV[0], ENERGY_KEV[-1], 14001, dtype=torch.float64)
        return float(fine[(mass_attenuation("water", fine) - mu).abs().argmin()])


@lru_cache(maxsize=8)
def tube_spectrum(kvp: float, filter_mm_al: float = 7.0, bins: int = 16) -> Spectrum:
    """Tungsten tube behind aluminium, seen by an energy-integrating detector.

    Kramers' law (photons per keV ~ (kVp - E) / E), characteristic K lines above the 69.5 keV edge,
    absorption in ``filter_mm_al`` of aluminium (about what CT tubes have), times E for the
    detector.

    Raises:
        ValueError: the tube voltage is not 40-150 kVp.
    """
    if not 40 <= kvp <= 150:
        raise ValueError(f"{kvp} kVp is outside 40-150 kVp, where the tables hold")
    edges = torch.linspace(15.0, kvp, bins + 1, dtype=torch.float64)
    energy = (edges[1:] + edges[:-1]) / 2
    signal = kvp - energy
    if kvp > 69.5:  # K-alpha 58-59 keV and K-beta 67-69 keV, ICRU-like shares of the output
        strength = 0.1 * float(signal.sum()) * (1 - 69.5 / kvp)
        signal[(energy - 58.9).abs().argmin()] += 0.78 * strength
        signal[(energy - 67.6).abs().argmin()] += 0.22 * strength
    thickness = filter_mm_al / 10 * DENSITY["aluminium"]
    signal = signal * torch.exp(-mass_attenuation("aluminium", energy) * thickness)
    return Spectrum(energy, signal / signal.sum())


def _weighted(areal: Mapping[Material, Tensor], weight: Mapping[Material, float]) -> Tensor:
    return torch.stack([t * weight[m] for m, t in areal.items()]).sum(0)


def single_energy(kev: float) -> Spectrum:
    """A monochromatic beam."""
    return Spectrum(torch.tensor([kev], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
