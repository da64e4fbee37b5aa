"""Chest radiograph phantom: a 3-D thorax with findings, projected by the Beer-Lambert law."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from penumbra.data.phantom_shapes import PhantomCase, spawn
from penumbra.data.phantom_thorax import EXTENT_MM, FINDINGS, thorax

# Linear attenuation in 1/cm by effective photon energy in keV: mass attenuation coefficients of
# NIST XCOM / Hubbell & Seltzer 1995 (ICRU-44 soft tissue, cortical bone) times density in g/cm3.
ATTENUATION: Mapping[str, Mapping[int, float]] = {
    "soft": {40: 0.2688 * 1.06, 50: 0.2264 * 1.06, 60: 0.2048 * 1.06, 80: 0.1823 * 1.06},
    "bone": {40: 0.6655 * 1.92, 50: 0.4242 * 1.92, 60: 0.3148 * 1.92, 80: 0.2229 * 1.92},
}
THRESHOLD = 0.5
"""Severity from which a finding counts as present."""
SEVERITY_STD = 0.2
"""Standard deviation of a reader's judgement of severity at ``ambiguity=1``."""


@dataclass(frozen=True, slots=True)
class XrayScanner:
    """Beam, detector and display of one site.

    ``photons`` reach an uncovered pixel, ``scatter`` is the scatter fraction behind the grid,
    ``blur_px`` the detector's blur at 96 pixels, ``gamma`` the display curve. In an AP view the
    heart lies farther from the detector and is magnified.
    """

    name: str
    energy_kev: int
    photons: float
    scatter: float
    blur_px: float
    gamma: float
    view: Literal["PA", "AP"]


SCANNERS = (
    XrayScanner("site-a", 60, 60_000.0, 0.25, 0.35, 0.75, "PA"),
    XrayScanner("site-b", 80, 40_000.0, 0.35, 0.5, 0.62, "PA"),
    XrayScanner("site-c", 50, 90_000.0, 0.45, 0.45, 0.9, "AP"),
)
SHIFTED = XrayScanner("site-shift", 40, 120_000.0, 0.6, 0.8, 1.2, "AP")
"""A soft-beam portable unit with much scatter that no training case comes from."""


def transmission(
    path_cm: Mapping[str, Float[np.ndarray, "*space"]], energy_kev: int
) -> Float[np.ndarray, "*space"]:
    """Beer-Lambert: I / I0 = exp(-sum_m mu_m L_m), L in cm of material m at its full density.

    Example:
        >>> water_like = {"soft": np.array([0.0, 10.0])}
        >>> transmission(water_like, 60).round(4).tolist()  # exp(-0.2171 * 10)
        [1.0, 0.1141]
    """
    total = sum(ATTENUATION[m][energy_kev] * length for m, length in path_cm.items())
    return np.exp(-np.asarray(total))


def detect(
    transmitted: Float[np.ndarray, "rows cols"],
    rng: np.random.Generator,
    *,
    scanner: XrayScanner,
) -> Float[np.ndarray, "rows cols"]:
    """Detected fraction of the open beam: primary plus scatter, blurred, with Poisson noise.

    Scatter is the primary image spread over a twelfth of the field, added so that it makes up the
    scanner's scatter fraction of the mean exposure.
    """
    scale = max(transmitted.shape) / 96
    spread = gaussian_filter(transmitted, 8 * scale, mode="nearest")
    ratio = scanner.scatter / (1 - scanner.scatter)
    expected = gaussian_filter(transmitted + ratio * spread, scanner.blur_px * scale)
    return rng.poisson(scanner.photons * expected) / scanner.photons


def display(
    detected: Float[np.ndarray, "rows cols"], *, gamma: float, photons: float
) -> Shaped[np.ndarray, "rows cols"]:
    """8-bit radiograph, dense tissue white: -log of exposure, fitted to the patient's shadow.

    The 1st and 99th percentile where under 60 % of the open beam arrives become 0 and 255.
    """
    optical = -np.log(np.maximum(detected, 0.5 / photons))
    shadow = optical[detected < 0.6]
    low, high = np.percentile(shadow if shadow.size else optical, [1.0, 99.0])
    fraction = ((optical - low) / max(high - low, 1e-6)).clip(0, 1)
    return np.rint(255 * fraction**gamma).astype(np.uint8)


def draw_severities(rng: np.random.Generator) -> dict[str, float]:
    """Severity 0..1 of each finding: present in three of ten, subtle (below 0.5) in two of ten."""
    severities = {}
    for name in FINDINGS:
        kind = rng.uniform()
        present, subtle = rng.uniform(THRESHOLD, 1.0), rng.uniform(0.1, THRESHOLD)
        severities[name] = float(present if kind < 0.3 else subtle if kind < 0.5 else 0.0)
    return severities


def xray_phantom(
    seed: int,
    *,
    shape: tuple[int, int] = (96, 96),
    scanner: XrayScanner = SCANNERS[0],
    ambiguity: float = 0.0,
    readers: int = 3,
    body_seed: int | None = None,
) -> PhantomCase:
    """A frontal chest film with five findings of known severity, rows from the head down.

    The image's left is the patient's right, as films are hung. ``body_seed`` fixes the person,
    ``seed`` findings, readers and exposure, so that a patient can have several studies. A reader
    calls a finding when severity + 0.2 x ambiguity x N(0,1) reaches 0.5; "Lung Opacity" is called
    on the greater of the ground-glass and the consolidation severity.
    ``truth``: path lengths in cm by material, and ``severity`` in the order of ``findings``.

    Example:
        >>> case = xray_phantom(0, shape=(48, 48))
        >>> case.images["xray"].dtype, list(case.findings)[:2]
        (dtype('uint8'), ['Cardiomegaly', 'Lung Opacity'])
    """
    disease, reading, scan = spawn(seed, 3)
    body = np.random.default_rng(seed if body_seed is None else body_seed)
    severities = draw_severities(disease)
    path_cm, regions = thorax(
        body, disease, severities, shape=shape, magnification=1.12 if scanner.view == "AP" else 1.0
    )
    image = detect(transmission(path_cm, scanner.energy_kev), scan, scanner=scanner)

    called = dict(severities)
    called["Lung Opacity"] = max(severities["Lung Opacity"], severities["Consolidation"])
    severity = np.array(list(called.values()))
    doubt = SEVERITY_STD * ambiguity * reading.standard_normal((readers, len(called)))
    finding_readers = (severity + doubt >= THRESHOLD).astype(float)
    if ambiguity > 0:
        chance = ndtr((severity - THRESHOLD) / (SEVERITY_STD * ambiguity))
    else:
        chance = (severity >= THRESHOLD).astype(float)
    return PhantomCase(
        images={"xray": display(image, gamma=scanner.gamma, photons=scanner.photons)},
        spacing_mm=(EXTENT_MM[0] / shape[0], EXTENT_MM[1] / shape[1]),
        scanner=scanner.name,
        truth={**{f"{m}_cm": length for m, length in path_cm.items()}, "severity": severity},
        findings=dict(zip(called, finding_readers[0].tolist(), strict=True)),
        finding_readers=finding_readers,
        finding_probability=dict(zip(called, chance.tolist(), strict=True)),
        regions=regions,
    )
