"""What the phantoms share: solids on a millimetre grid, smooth random fields, simulated readers.

A structure is a signed distance d(x) in mm, negative inside. A reader draws its boundary at
``d(x) + sigma a(x) = 0`` with a smooth unit-variance Gaussian field a, independent of the image,
so the probability that a reader calls x inside is known exactly: Phi(-d(x) / sigma).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from scipy.special import ndtr

BOUNDARY_STD_MM = 4.0
"""Standard deviation of a reader's boundary at ``ambiguity=1``, about a soft lesion's margin."""


@dataclass(frozen=True, slots=True)
class PhantomCase:
    """One simulated scan and everything that is true of it.

    Attributes:
        images: channel -> image in stored units (MRI arbitrary, CT in HU, X-ray 0..255).
        segmentation: label values as the first reader drew them.
        readers: every reader's label values; equal to each other when nothing is ambiguous.
        label_values: values that may occur, background first.
        probability: exact chance of each label value under the readers' law, in their order.
        findings: the first reader's image-level labels, 1 or 0.
        finding_readers: every reader's findings, in the order of ``findings``.
        finding_probability: exact chance that a reader calls each finding present.
        regions: where a structure or a present finding shows.
        truth: the noise-free physics, by name (tissue index, HU, path lengths in cm).
    """

    images: Mapping[str, Shaped[np.ndarray, "*space"]]
    spacing_mm: tuple[float, ...]
    scanner: str
    truth: Mapping[str, Shaped[np.ndarray, "..."]]
    segmentation: UInt8[np.ndarray, "*space"] | None = None
    readers: UInt8[np.ndarray, "r *space"] | None = None
    label_values: tuple[int, ...] = ()
    probability: Float[np.ndarray, "k *space"] | None = None
    findings: Mapping[str, float] = field(default_factory=dict)
    finding_readers: Float[np.ndarray, "r f"] | None = None
    finding_probability: Mapping[str, float] = field(default_factory=dict)
    regions: Mapping[str, Shaped[np.ndarray, "*space"]] = field(default_factory=dict)


def spawn(seed: int, count: int) -> list[np.random.Generator]:
    """Independent generators, so that changing one (the scanner) leaves the others (anatomy)."""
    return [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(count)]


def grid_mm(
    shape: Sequence[int], extent_mm: Sequence[float | int]
) -> tuple[Float[np.ndarray, "d *space"], tuple[float, ...]]:
    """Voxel centres in mm, origin in the middle of the field of view, and the voxel spacing.

    Example:
        >>> points, spacing = grid_mm((4, 2), (8.0, 8.0))
        >>> spacing, points[0, :, 0].tolist()
        ((2.0, 4.0), [-3.0, -1.0, 1.0, 3.0])
    """
    spacing = tuple(float(e) / n for e, n in zip(extent_mm, shape, strict=True))
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32), spacing


def ellipsoid(
    points: Float[np.ndarray, "d *space"],
    centre: Sequence[float | int],
    radii: Sequence[float | int],
) -> Float[np.ndarray, "*space"]:
    """Signed distance in mm to an ellipsoid, first order: exact on the surface and for spheres.

    With k = |p / r| and g = |p / r^2| it is k (k - 1) / g; at the centre, minus the least radius.

    Example:
        >>> points = np.array([[0.0, 3.0], [0.0, 0.0]], dtype=np.float32)
        >>> ellipsoid(points, (0, 0), (2, 2)).tolist()
        [-2.0, 1.0]
    """
    shape = (-1,) + (1,) * (points.ndim - 1)
    r = np.asarray(radii, np.float32).reshape(shape)
    scaled = (points - np.asarray(centre, np.float32).reshape(shape)) / r
    k = np.sqrt(np.sum(scaled**2, axis=0))
    g = np.sqrt(np.sum((scaled / r) ** 2, axis=0))
    middle = np.float32(min(radii))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(g > 1e-9, k * (k - 1) / g, -middle).astype(np.float32)


def tilted(
    points: Float[np.ndarray, "d *space"],
    centre: Sequence[float | int],
    radii: Sequence[float | int],
    *,
    axes: tuple[int, int],
    degrees: float,
) -> Float[np.ndarray, "*space"]:
    """Like ``ellipsoid``, with the solid turned about its centre from the first axis to the second.

    Example:
        >>> points = np.array([[0.0, 0.0], [5.0, 2.0]], dtype=np.float32)
        >>> tilted(points, (0, 0), (5, 2), axes=(0, 1), degrees=90.0)[0].round(3).tolist()
        0.0
    """
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    local = points - np.asarray(centre, np.float32).reshape((-1,) + (1,) * (points.ndim - 1))
    a, b = axes
    local[a], local[b] = c * local[a] + s * local[b], c * local[b] - s * local[a]
    return ellipsoid(local, np.zeros(len(local)).tolist(), radii)


def smooth_field(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    length_mm: float,
) -> Float[np.ndarray, "*space"]:
    """A stationary periodic Gaussian field with mean 0 and variance exactly 1 at every voxel.

    White noise filtered in the Fourier domain by a Gaussian of standard deviation ``length_mm``,
    divided by the filter's root mean square.
    """
    noise = np.fft.rfftn(rng.standard_normal(shape))
    power = 1.0
    for axis, (n, s) in enumerate(zip(shape, spacing_mm, strict=True)):
        last = axis == len(shape) - 1
        response = np.exp(-0.5 * (2 * np.pi * np.fft.fftfreq(n, s) * length_mm) ** 2)
        power *= float(np.mean(response**2))
        if last:
            response = np.exp(-0.5 * (2 * np.pi * np.fft.rfftfreq(n, s) * length_mm) ** 2)
        noise *= response.reshape((-1,) + (1,) * (len(shape) - 1 - axis))
    axes = tuple(range(len(shape)))
    return (np.fft.irfftn(noise, shape, axes=axes) / np.sqrt(power)).astype(np.float32)


def warped(
    points: Float[np.ndarray, "d *space"],
    rng: np.random.Generator,
    *,
    amplitude_mm: float,
    length_mm: float,
    spacing_mm: Sequence[float],
) -> Float[np.ndarray, "d *space"]:
    """The points moved by a smooth random displacement: one anatomy becomes another person's."""
    shape = points.shape[1:]
    shift = [smooth_field(rng, shape, spacing_mm, length_mm) for _ in range(points.shape[0])]
    return points + np.float32(amplitude_mm) * np.stack(shift)


def inside_probability(
    distance_mm: Float[np.ndarray, "*space"], ambiguity: float
) -> Float[np.ndarray, "*space"]:
    """Chance that a reader calls a voxel inside: Phi(-d / sigma), sigma = 4 mm x ambiguity.

    Example:
        >>> d = np.array([-4.0, 0.0, 4.0], dtype=np.float32)
        >>> inside_probability(d, 1.0).round(3).tolist(), inside_probability(d, 0.0).tolist()
        ([0.841, 0.5, 0.159], [1.0, 0.0, 0.0])
    """
    if ambiguity == 0:
        return (distance_mm < 0).astype(float)
    return ndtr(-distance_mm.astype(float) / (BOUNDARY_STD_MM * ambiguity))


def reader_offsets_mm(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    *,
    ambiguity: float,
    readers: int,
) -> Float[np.ndarray, "r *space"]:
    """How far inwards each reader moves every boundary; correlated over 12 mm, zero if certain."""
    fields = [smooth_field(rng, shape, spacing_mm, 12.0) for _ in range(readers)]
    return np.float32(BOUNDARY_STD_MM * ambiguity) * np.stack(fields)
