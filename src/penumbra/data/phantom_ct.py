"""Abdominal CT phantom: organs as solids of known Hounsfield units, and how scanners see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from penumbra.data.phantom_shapes import (
    PhantomCase,
    ellipsoid,
    grid_mm,
    inside_probability,
    reader_offsets_mm,
    smooth_field,
    spawn,
    tilted,
    warped,
)

EXTENT_MM = (384.0, 320.0, 204.0)
Kernel = Literal["soft", "medium", "sharp"]
Phase = Literal["portal", "arterial"]

ORGANS: Mapping[str, int] = {
    "spleen": 1,
    "right kidney": 2,
    "left kidney": 3,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior vena cava": 9,
}
"""Organ -> label value, both as in the multi-atlas challenge (BTCV)."""

LABELS = (0, *ORGANS.values())

# Centre and radii in mm (x right, y front, z head; two of each: a vessel along z), tilt in degrees.
SOLIDS: Mapping[str, tuple[tuple[tuple[float, ...], tuple[float, ...], float], ...]] = {
    "spleen": (((-100.0, -26.0, 32.0), (25.0, 44.0, 44.0), -28.0),),
    "right kidney": (((62.0, -46.0, -26.0), (26.0, 27.0, 52.0), 0.0),),
    "left kidney": (((-62.0, -46.0, -14.0), (26.0, 27.0, 52.0), 0.0),),
    "liver": (
        ((72.0, 8.0, 28.0), (72.0, 76.0, 68.0), 0.0),
        ((10.0, 48.0, 46.0), (62.0, 32.0, 34.0), 0.0),
    ),
    "stomach": (((-52.0, 42.0, 36.0), (42.0, 36.0, 44.0), 0.0),),
    "aorta": (((-9.0, -34.0), (11.5, 11.5), 0.0),),
    "inferior vena cava": (((20.0, -31.0), (14.0, 11.0), 0.0),),
}

# Unenhanced HU at 120 kVp: textbook values (e.g. Lamba et al. 2014 for organs), rounded.
NATIVE_HU: Mapping[str, float] = {
    "air": -1000.0,
    "lung": -840.0,
    "fat": -100.0,
    "muscle": 55.0,
    "bowel": 30.0,
    "gas": -950.0,
    "cortical bone": 700.0,
    "marrow": 170.0,
    "spleen": 47.0,
    "right kidney": 32.0,
    "left kidney": 32.0,
    "liver": 57.0,
    "stomach": 15.0,
    "aorta": 42.0,
    "inferior vena cava": 42.0,
}
INDEX = {name: i for i, name in enumerate(NATIVE_HU)}

# Enhancement in HU at 120 kVp by contrast phase, after Bae 2010 (Radiology 256:32), rounded.
ENHANCEMENT_HU: Mapping[Phase, Mapping[str, float]] = {
    "portal": {
        "muscle": 10.0,
        "bowel": 30.0,
        "spleen": 75.0,
        "right kidney": 145.0,
        "left kidney": 145.0,
        "liver": 55.0,
        "stomach": 5.0,
        "aorta": 115.0,
        "inferior vena cava": 90.0,
    },
    "arterial": {
        "muscle": 5.0,
        "bowel": 25.0,
        "spleen": 90.0,
        "right kidney": 115.0,
        "left kidney": 115.0,
        "liver": 15.0,
        "stomach": 3.0,
        "aorta": 260.0,
        "inferior vena cava": 25.0,
    },
}
# Attenuation of iodine and of bone mineral relative to water grows as the beam softens: relative
# to 120 kVp, from the 41, 31, 25 and 21 HU per mg I/ml usual in CT physics texts.
IODINE: Mapping[int, float] = {80: 1.64, 100: 1.24, 120: 1.0, 140: 0.84}
BONE: Mapping[int, float] = {80: 1.35, 100: 1.14, 120: 1.0, 140: 0.92}

# Kernel: (cut-off of the smoothing in cycles/mm, overshoot at mid frequencies)
KERNELS: Mapping[Kernel, tuple[float, float]] = {
    "soft": (0.055, 0.0),
    "medium": (0.085, 0.0),
    "sharp": (0.13, 0.6),
}


@dataclass(frozen=True, slots=True)
class CtScanner:
    """Tube voltage, reconstruction kernel, contrast phase, and noise in HU at the medium kernel."""

    name: str
    kvp: int
    kernel: Kernel
    noise_hu: float
    phase: Phase = "portal"


SCANNERS = (
    CtScanner("site-a", 120, "medium", 9.0),
    CtScanner("site-b", 100, "soft", 14.0),
    CtScanner("site-c", 140, "sharp", 7.0),
)
SHIFTED = CtScanner("site-shift", 80, "sharp", 22.0, phase="arterial")
"""A low-dose arterial-phase scanner that no training case comes from."""


def material_hu(scanner: CtScanner, material: str) -> float:
    """HU = native + iodine enhancement of the phase x the voltage's factor; bone mineral scaled."""
    native = NATIVE_HU[material]
    if material in {"cortical bone", "marrow"}:
        return native * BONE[scanner.kvp]
    enhancement = ENHANCEMENT_HU[scanner.phase].get(material, 0.0)
    return native + enhancement * IODINE[scanner.kvp]


def reconstruct(
    hu: Float[np.ndarray, "x y z"],
    rng: np.random.Generator,
    *,
    scanner: CtScanner,
    spacing_mm: tuple[float, ...],
) -> Float[np.ndarray, "x y z"]:
    """The image a filtered back-projection would give: blurred by the kernel's transfer function
    M(f), with zero-mean noise whose power spectrum is |f| M(f)^2 (Riederer et al. 1978).

    ``noise_hu`` is the standard deviation that the medium kernel would give, so a sharp kernel is
    noisier than a soft one at the same dose.
    """
    fx, fy = (np.fft.fftfreq(n, s) for n, s in zip(hu.shape[:2], spacing_mm[:2], strict=True))
    f = np.hypot(fx[:, None], fy[None, :])[..., None]
    transfer, reference = _transfer(f, scanner.kernel), _transfer(f, "medium")
    level = scanner.noise_hu / np.sqrt(np.mean(f * reference**2))
    spectrum = np.fft.fftn(hu, axes=(0, 1)) * transfer
    white = np.fft.fftn(rng.standard_normal(hu.shape), axes=(0, 1))
    spectrum += level * white * np.sqrt(f) * transfer
    return np.fft.ifftn(spectrum, axes=(0, 1)).real


def ct_phantom(
    seed: int,
    *,
    shape: tuple[int, int, int] = (64, 64, 24),
    scanner: CtScanner = SCANNERS[0],
    ambiguity: float = 0.0,
    readers: int = 3,
) -> PhantomCase:
    """An upper abdomen with seven labelled organs on one scanner, HU, in RAS+ order.

    The seed fixes the anatomy and readers whatever the scanner. ``truth["material"]`` indexes
    ``NATIVE_HU`` and ``truth["hu"]`` is the noise-free map; with ``ambiguity=0`` the segmentation
    is exactly the organs of that map. Readers disagree on where organs end, never on which
    organ is nearest, so a voxel's probability is shared by one organ and the background.

    Example:
        >>> case = ct_phantom(0, shape=(32, 32, 8))
        >>> case.images["ct"].dtype, case.segmentation.shape
        (dtype('int16'), (32, 32, 8))
    """
    anatomy, reading, scan = spawn(seed, 3)
    points, spacing = grid_mm(shape, EXTENT_MM)
    material, distances = _abdomen(points, anatomy, spacing)
    nearest = np.argmin(distances, axis=0)
    distance = np.min(distances, axis=0)
    organ_material = np.array([INDEX[name] for name in ORGANS], np.uint8)[nearest]
    material = np.where(distance < 0, organ_material, material)

    value = np.array(list(ORGANS.values()), np.uint8)[nearest]
    offsets = reader_offsets_mm(reading, shape, spacing, ambiguity=ambiguity, readers=readers)
    drawn = np.where(distance + offsets < 0, value, np.uint8(0))
    inside = inside_probability(distance, ambiguity)
    probability = np.stack([1 - inside, *(inside * (value == v) for v in ORGANS.values())])

    hu = np.array([material_hu(scanner, name) for name in NATIVE_HU])[material]
    hu = hu + 4.0 * smooth_field(scan, shape, spacing, 9.0) * (hu > -200)
    image = reconstruct(hu, scan, scanner=scanner, spacing_mm=spacing)
    return PhantomCase(
        images={"ct": np.rint(image.clip(-1024, 3071)).astype(np.int16)},
        spacing_mm=spacing,
        scanner=scanner.name,
        truth={"material": material, "hu": hu.astype(np.float32)},
        segmentation=drawn[0],
        readers=drawn,
        label_values=LABELS,
        probability=probability.astype(np.float32),
    )


def _transfer(f: Float[np.ndarray, "..."], kernel: Kernel) -> Float[np.ndarray, "..."]:
    cutoff, boost = KERNELS[kernel]
    ratio = f / cutoff
    return np.exp(-0.5 * ratio**2) * (1 + boost * ratio**2)


def _abdomen(
    points: Float[np.ndarray, "d *space"], rng: np.random.Generator, spacing: tuple[float, ...]
) -> tuple[UInt8[np.ndarray, "*space"], Float[np.ndarray, "o *space"]]:
    """Background materials, and the signed distance of every organ in the order of ``ORGANS``.

    RAS+: x > 0 is the patient's right, y > 0 the front, z > 0 the head; lengths in mm.
    """
    shape = points.shape[1:]
    girth = np.float32(rng.uniform(0.88, 1.08))
    p = warped(points / girth, rng, amplitude_mm=4.0, length_mm=32.0, spacing_mm=spacing)
    x, y, z = p
    side = np.stack([np.abs(x), y, z])
    fat = rng.uniform(10.0, 26.0)
    skin = ellipsoid(p[:2], (0, 0), (176, 126))
    cavity = np.maximum(skin + fat + 11.0, ellipsoid(p[:2], (0, 4), (162, 110)))
    dome = 84 - 24 * ((np.abs(x) - 72) / 62) ** 2 - 22 * ((y - 10) / 92) ** 2 - 8 * (x < 0)
    vertebra = np.minimum(
        ellipsoid(p[:2], (0, -62), (22, 17)), ellipsoid(side[:2], (0, -92), (6, 15))
    )
    heart = ellipsoid(p, (-14, 30, 106), (62, 50, 36))

    material = np.full(shape, INDEX["air"], np.uint8)
    material[skin < 0] = INDEX["fat"]
    material[skin < -fat] = INDEX["muscle"]
    material[cavity < 0] = INDEX["fat"]
    _bowel(material, (cavity < -4) & (z < 20) & (y > -18), rng, spacing)
    material[(cavity < -2) & (z > dome)] = INDEX["lung"]
    material[heart < 0] = INDEX["muscle"]
    for muscle in (((34, -86), (27, 22)), ((38, -58), (14, 17))):
        material[(ellipsoid(side[:2], *muscle) < 0) & (skin < -6)] = INDEX["muscle"]
    ribs = (np.abs(cavity - 3) < 4) & (np.cos(2 * np.pi * (z - 0.55 * y) / 30) > 0.45) & (z > -40)
    material[ribs & (np.abs(x) > 35)] = INDEX["cortical bone"]
    material[vertebra < 0] = INDEX["cortical bone"]
    disc = np.cos(2 * np.pi * z / 34) > 0.86
    material[vertebra < -4] = INDEX["marrow"]
    material[(vertebra < 0) & disc & (y > -80)] = INDEX["muscle"]
    material[ellipsoid(p[:2], (0, -82), (8, 6)) < 0] = INDEX["bowel"]  # spinal canal

    jitter = rng.normal(0.0, 4.0, (len(ORGANS), 3)) * (1, 1, 1.5)
    size = rng.uniform(0.88, 1.12, len(ORGANS))
    retroperitoneal = np.maximum(cavity + 2, 1.0 - vertebra)
    below_lungs = np.maximum(retroperitoneal, z - dome + 3)
    distances = []
    for i, name in enumerate(ORGANS):
        limit = retroperitoneal if name == "aorta" else below_lungs
        distances.append(
            np.maximum(_organ(name, p - jitter[i].reshape(3, 1, 1, 1), size[i]), limit)
        )
    return material, np.stack(distances).astype(np.float32)


def _organ(name: str, p: Float[np.ndarray, "d *space"], size: float) -> Float[np.ndarray, "*space"]:
    """Signed distance in mm of one organ; ``size`` scales each solid about its own centre."""
    solids = [
        tilted(p[: len(c)], c, [size * r for r in radii], axes=(0, 1), degrees=degrees)
        for c, radii, degrees in SOLIDS[name]
    ]
    return np.minimum.reduce(solids)


def _bowel(
    material: UInt8[np.ndarray, "*space"],
    room: Bool[np.ndarray, "*space"],
    rng: np.random.Generator,
    spacing: tuple[float, ...],
) -> None:
    """Fill the lower front of the cavity with loops between fat, some with gas: distractors."""
    loops = smooth_field(rng, material.shape, spacing, 11.0)
    gas = smooth_field(rng, material.shape, spacing, 14.0)
    material[room & (loops > -0.1)] = INDEX["bowel"]
    material[room & (loops > 0.35) & (gas > 0.9)] = INDEX["gas"]
