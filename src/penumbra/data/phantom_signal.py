"""Magnetic resonance for the phantom: relaxation times, scanners, signal equations, noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, slots=True)
class Tissue:
    """Relaxation times in ms (T1 at 1.5 T and 3 T), proton density, gadolinium uptake in mM."""

    t1_15: float
    t1_30: float
    t2: float
    pd: float
    gadolinium_mm: float = 0.0

    def t1(self, field_t: float) -> float:
        """T1 in ms at another field: the power law of Bottomley 1984 through the two fields."""
        exponent = math.log(self.t1_30 / self.t1_15, 2)
        return float(self.t1_15 * (field_t / 1.5) ** exponent)


# T1 of white and grey matter and caudate: Wright et al. 2008 (MAGMA 21:121). CSF and all other
# values are rounded from reports that scatter: T2 after Stanisz et al. 2005, proton density after
# Tofts 2003, tumour tissues after quantitative mapping of gliomas (e.g. Badve et al. 2017).
TISSUES: Mapping[str, Tissue] = {
    "air": Tissue(1000.0, 1000.0, 100.0, 0.0),
    "white": Tissue(646.0, 838.0, 70.0, 0.70, 0.01),
    "grey": Tissue(1197.0, 1607.0, 97.0, 0.82, 0.02),
    "csf": Tissue(4200.0, 4300.0, 2000.0, 1.00),
    "deep grey": Tissue(1109.0, 1395.0, 84.0, 0.80, 0.02),
    "oedema": Tissue(1350.0, 1600.0, 165.0, 0.86, 0.01),
    "necrosis": Tissue(2200.0, 2700.0, 320.0, 0.95, 0.02),
    "enhancing": Tissue(1300.0, 1600.0, 125.0, 0.86, 0.35),
}
RELAXIVITY = (4.3, 5.2)
"""r1 and r2 of gadobutrol-like agents in blood at 1.5-3 T, 1/(mM s), rounded."""


@dataclass(frozen=True, slots=True)
class MriScanner:
    """A scanner's protocol: field in T, times in ms, flip angle of a gradient-echo T1 in degrees.

    ``noise`` is the complex noise's standard deviation per unit of signal (PD = 1, no decay),
    ``resolution`` the share of k-space acquired in plane, ``bias`` the log-amplitude of the coil
    shading, ``gain`` the arbitrary unit of the images.
    """

    name: str
    field_t: float
    t1: tuple[float, float]  # TR, TE
    t2: tuple[float, float]  # TR, TE
    flair: tuple[float, float, float]  # TR, TE, TI
    t1_sequence: Literal["spin_echo", "gradient_echo"] = "spin_echo"
    flip_degrees: float = 90.0
    noise: float = 0.005
    resolution: float = 1.0
    bias: float = 0.1
    gain: float = 3000.0


SCANNERS = (
    MriScanner(
        "site-a", 3.0, (650.0, 9.0), (4500.0, 95.0), (9000.0, 120.0, 2500.0), bias=0.16, gain=4200.0
    ),
    MriScanner(
        "site-b",
        1.5,
        (520.0, 14.0),
        (3800.0, 105.0),
        (8800.0, 130.0, 2250.0),
        noise=0.009,
        resolution=0.85,
    ),
    MriScanner(
        "site-c",
        3.0,
        (9.0, 3.5),
        (6000.0, 80.0),
        (8000.0, 95.0, 2350.0),
        t1_sequence="gradient_echo",
        flip_degrees=18.0,
        noise=0.0025,
        bias=0.2,
        gain=9000.0,
    ),
)
SHIFTED = MriScanner(
    "site-shift",
    0.55,
    (420.0, 20.0),
    (3200.0, 130.0),
    (7000.0, 150.0, 1900.0),
    noise=0.017,
    resolution=0.6,
    bias=0.3,
    gain=1100.0,
)
"""A low-field scanner that no training case comes from: other contrast, blur, noise, shading."""


def spin_echo(
    pd: float,
    t1: float,
    t2: float,
    *,
    tr: float,
    te: float,
) -> float:
    """S = PD (1 - exp(-TR/T1)) exp(-TE/T2), times in ms (Hahn 1950; TE << TR)."""
    return pd * (1 - math.exp(-tr / t1)) * math.exp(-te / t2)


def inversion_recovery(
    pd: float,
    t1: float,
    t2: float,
    *,
    tr: float,
    te: float,
    ti: float,
) -> float:
    """S = PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2): magnitude FLAIR (Hajnal 1992).

    Zero at TI = T1 ln(2 / (1 + exp(-TR/T1))), which is how FLAIR darkens CSF.
    """
    return pd * abs(1 - 2 * math.exp(-ti / t1) + math.exp(-tr / t1)) * math.exp(-te / t2)


def gradient_echo(
    pd: float,
    t1: float,
    *,
    tr: float,
    flip_degrees: float,
) -> float:
    """S = PD sin(a) (1 - E) / (1 - E cos(a)), E = exp(-TR/T1): spoiled echo, T2* ignored."""
    e, a = math.exp(-tr / t1), math.radians(flip_degrees)
    return pd * math.sin(a) * (1 - e) / (1 - e * math.cos(a))


def with_gadolinium(t1_ms: float, t2_ms: float, concentration_mm: float) -> tuple[float, float]:
    """Shortened relaxation times, 1/T' = 1/T + r C (r in 1/(mM s))."""
    r1, r2 = (r / 1000 for r in RELAXIVITY)
    return 1 / (1 / t1_ms + r1 * concentration_mm), 1 / (1 / t2_ms + r2 * concentration_mm)


def tissue_signals(scanner: MriScanner, tissue: Tissue) -> dict[str, float]:
    """Signal of a tissue in the four sequences on a scanner, before gain, coil and noise."""
    pd, t1, t2 = tissue.pd, tissue.t1(scanner.field_t), tissue.t2
    enhanced = with_gadolinium(t1, t2, tissue.gadolinium_mm)

    def t1_weighted(t1: float, t2: float) -> float:
        tr, te = scanner.t1
        match scanner.t1_sequence:
            case "spin_echo":
                return spin_echo(pd, t1, t2, tr=tr, te=te)
            case "gradient_echo":
                return gradient_echo(pd, t1, tr=tr, flip_degrees=scanner.flip_degrees)

    tr, te, ti = scanner.flair
    return {
        "flair": inversion_recovery(pd, t1, t2, tr=tr, te=te, ti=ti),
        "t1": t1_weighted(t1, t2),
        "t1ce": t1_weighted(*enhanced),
        "t2": spin_echo(pd, t1, t2, tr=scanner.t2[0], te=scanner.t2[1]),
    }


def acquire(
    signal: Float[np.ndarray, "x y z"],
    rng: np.random.Generator,
    *,
    noise: float,
    resolution: float,
) -> Float[np.ndarray, "x y z"]:
    """Magnitude image from in-plane k-space, cut to ``resolution`` of each axis, with noise.

    Complex Gaussian noise of standard deviation ``noise`` per part makes the magnitude Rician
    (Gudbjartsson & Patz 1995); the cut, tapered by a Hann edge, blurs and rings as scanners do.
    """
    kspace = np.fft.fftn(signal, axes=(0, 1))
    for axis in (0, 1):
        f = np.abs(np.fft.fftfreq(signal.shape[axis])) / (0.5 * resolution)
        taper = np.where(f < 0.75, 1.0, 0.5 + 0.5 * np.cos(np.pi * np.clip((f - 0.75) * 4, 0, 1)))
        kspace *= taper.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    image = np.fft.ifftn(kspace, axes=(0, 1))
    image += noise * rng.standard_normal(signal.shape)
    image += 1j * noise * rng.standard_normal(signal.shape)
    return np.abs(image)
