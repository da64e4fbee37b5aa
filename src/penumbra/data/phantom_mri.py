"""Brain MRI phantom: a skull-stripped brain with a tumour of known tissues, on a known scanner."""

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
from penumbra.data.phantom_signal import SCANNERS, TISSUES, MriScanner, acquire, tissue_signals

EXTENT_MM = (180.0, 204.0, 150.0)
LABELS = (0, 1, 2, 4)
"""BraTS: background, necrotic core, oedema, enhancing tumour."""
INDEX = {name: i for i, name in enumerate(TISSUES)}


def mri_phantom(
    seed: int,
    *,
    shape: tuple[int, int, int] = (64, 64, 24),
    scanner: MriScanner = SCANNERS[0],
    ambiguity: float = 0.0,
    readers: int = 3,
) -> PhantomCase:
    """A skull-stripped brain with a glioma-like tumour on one scanner, in RAS+ order.

    The seed fixes the anatomy, tumour and readers whatever the scanner, so one person can be
    imaged twice. ``truth["tissue"]`` indexes ``TISSUES``; with ``ambiguity=0`` the segmentation
    is exactly those tissues. ``truth["brain"]`` is the brain mask.

    Example:
        >>> case = mri_phantom(0, shape=(32, 32, 8))
        >>> sorted(case.images), case.segmentation.shape
        (['flair', 't1', 't1ce', 't2'], (32, 32, 8))
    """
    anatomy, lesion, reading, scan = spawn(seed, 4)
    points, spacing = grid_mm(shape, EXTENT_MM)
    tissue, brain, bounds = _brain(points, anatomy, spacing)
    whole, core, necrosis = _tumour(points, lesion, spacing, bounds)
    for name, distance in (("oedema", whole), ("enhancing", core), ("necrosis", necrosis)):
        tissue[distance < 0] = INDEX[name]

    offsets = reader_offsets_mm(reading, shape, spacing, ambiguity=ambiguity, readers=readers)
    drawn = np.stack([_labels(whole + a, core + a, necrosis + a) for a in offsets])
    p_whole, p_core, p_necrosis = (
        inside_probability(d, ambiguity) for d in (whole, core, necrosis)
    )
    probability = np.stack([1 - p_whole, p_necrosis, p_whole - p_core, p_core - p_necrosis])
    return PhantomCase(
        images=_scan(tissue, brain, scan, scanner, spacing),
        spacing_mm=spacing,
        scanner=scanner.name,
        truth={"tissue": tissue, "brain": brain},
        segmentation=drawn[0],
        readers=drawn,
        label_values=LABELS,
        probability=probability.astype(np.float32),
    )


def _labels(
    whole: Float[np.ndarray, "*space"],
    core: Float[np.ndarray, "*space"],
    necrosis: Float[np.ndarray, "*space"],
) -> UInt8[np.ndarray, "*space"]:
    """BraTS values from nested signed distances."""
    return np.where(necrosis < 0, 1, np.where(core < 0, 4, np.where(whole < 0, 2, 0))).astype(
        np.uint8
    )


def _brain(
    points: Float[np.ndarray, "d *space"], rng: np.random.Generator, spacing: tuple[float, ...]
) -> tuple[UInt8[np.ndarray, "*space"], Bool[np.ndarray, "*space"], Float[np.ndarray, "2 *space"]]:
    """Tissue map, brain mask, and signed distances to where a tumour may grow:
    to the inside of the brain, and to the outside of the ventricles.
    """
    shape = points.shape[1:]
    scale = (1 + 0.05 * rng.standard_normal(3)).clip(0.9, 1.08).reshape(3, 1, 1, 1)
    p = warped(
        points / scale.astype(np.float32),
        rng,
        amplitude_mm=2.5,
        length_mm=28.0,
        spacing_mm=spacing,
    )
    x, y, z = p
    side = np.stack([np.abs(x), y, z])
    surface = ellipsoid(p, (0, 0, 0), (69, 85, 64))
    # Gyri: sulci are the zero set of a smooth field, |field| x its length being about the distance
    # to it; cortex lines them, and CSF fills them near the surface.
    length = 5.0
    sulcus = length * np.abs(smooth_field(rng, shape, spacing, length))
    depth = np.minimum(-surface, np.abs(x) + 3.0 + 100 * (z < -10))
    fissure = np.where(z > -5, np.abs(x) - 1.8, 9.0) + 0.04 * (90 - np.abs(y)).clip(0)
    v = rng.uniform(0.85, 1.35)
    body = tilted(side, (11, 0, 14), (6 * v, 32 * v, 9 * v), axes=(0, 1), degrees=-8.0)
    horn = tilted(side, (22, -30, 4), (5.5 * v, 19, 9), axes=(0, 1), degrees=24.0)
    third = ellipsoid(p, (0, -2, 2), (2.6 * v, 14, 10))
    ventricles = np.minimum(np.minimum(body, horn), third)
    thalamus = ellipsoid(side, (11, -10, 4), (9, 14, 9))
    caudate = ellipsoid(side, (14, 20, 12), (5.5, 11, 9))
    putamen = tilted(side, (26, 6, 4), (6, 16, 10), axes=(0, 1), degrees=14.0)

    tissue = np.full(shape, INDEX["air"], np.uint8)
    brain = surface < 0
    tissue[brain] = INDEX["white"]
    tissue[brain & ((depth < 4.0) | (sulcus < 4.6 * (1 - depth / 24)))] = INDEX["grey"]
    tissue[brain & (np.minimum(np.minimum(thalamus, caudate), putamen) < 0)] = INDEX["deep grey"]
    tissue[brain & (-surface < 15) & (sulcus < 1.6 * (1 + surface / 15))] = INDEX["csf"]
    tissue[brain & ((ventricles < 0) | (fissure < 0))] = INDEX["csf"]
    return tissue, brain, np.stack([surface + 3.0, 1.5 - ventricles])


def _tumour(
    points: Float[np.ndarray, "d *space"],
    rng: np.random.Generator,
    spacing: tuple[float, ...],
    bounds: Float[np.ndarray, "2 *space"],
) -> tuple[Float[np.ndarray, "*space"], ...]:
    """Nested signed distances of whole tumour, tumour core and necrosis.

    The core displaces ventricles; oedema stops at them.
    """
    shape = points.shape[1:]
    direction = rng.standard_normal(3) * (1.0, 1.0, 0.55)
    direction /= np.linalg.norm(direction)
    direction[0] = np.copysign(max(abs(direction[0]), 0.45), direction[0])
    centre = (direction * rng.uniform(28.0, 42.0) * (1.0, 1.2, 0.8)).tolist()
    radius = rng.uniform(9.0, 20.0)
    radii = (radius * rng.uniform(0.8, 1.25, 3)).tolist()
    rough = smooth_field(rng, shape, spacing, 9.0)
    fingers = smooth_field(rng, shape, spacing, 7.0)
    pockets = smooth_field(rng, shape, spacing, 6.0)
    core = ellipsoid(points, centre, radii) + 2.0 * rough
    spread = rng.uniform(5.0, 15.0)
    whole = np.minimum(core - spread + 5.0 * fingers, core - 2.0)
    rim = rng.uniform(5.0, 8.0)
    core = np.maximum(core, bounds[0])
    whole = np.minimum(np.maximum(whole, bounds.max(axis=0)), core)
    return whole, core, np.maximum(core + rim + 1.5 * pockets, core)


def _scan(
    tissue: UInt8[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    rng: np.random.Generator,
    scanner: MriScanner,
    spacing: tuple[float, ...],
) -> dict[str, Float[np.ndarray, "x y z"]]:
    """The four sequences, skull-stripped: background exactly 0, as BraTS distributes them."""
    texture = 1 + 0.04 * smooth_field(rng, tissue.shape, spacing, 5.0)
    spread = 1 + 0.03 * rng.standard_normal(len(TISSUES))
    shading = np.exp(scanner.bias * smooth_field(rng, tissue.shape, spacing, 55.0))
    table = [tissue_signals(scanner, t) for t in TISSUES.values()]
    images = {}
    for channel in ("flair", "t1", "t1ce", "t2"):
        signal = np.array([row[channel] for row in table]) * spread
        clean = signal[tissue] * texture * shading
        image = acquire(clean, rng, noise=scanner.noise, resolution=scanner.resolution)
        images[channel] = (scanner.gain * image * brain).astype(np.float32)
    return images
