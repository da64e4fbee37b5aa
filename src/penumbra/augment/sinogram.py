"""The tomographic pair: line integrals of an image and filtered back-projection, differentiable.

A ray is the set of points with ``x cos(theta) + y sin(theta) = s``; x and y run along the image's
two axes in mm from its centre. Parallel and equiangular fan beams differ only in which (theta, s)
their detectors see. Kak & Slaney, Principles of Computerized Tomographic Imaging, chapter 3.
"""

import math
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

_ENTRIES = 1 << 22
"""Matrix entries per chunk of views: 32 MB. A small scanner is one chunk, and stays cached."""


@dataclass(frozen=True)
class Scanner:
    """Where the rays run.

    Attributes:
        angles: views, over half a turn (parallel) or a full turn (fan).
        detectors: rays per view, symmetric about the centre.
        pitch: distance of neighbouring rays: mm (parallel) or radians (fan).
        source_mm: distance of the source from the centre; ``None`` for parallel rays.
    """

    angles: int
    detectors: int
    pitch: float
    source_mm: float | None = None

    @property
    def turn(self) -> float:
        """Angle over which the views are spread."""
        return math.pi if self.source_mm is None else 2 * math.pi

    def views(self) -> Tensor:
        """Angle of every view in radians."""
        return torch.arange(self.angles, dtype=torch.float64) * (self.turn / self.angles)

    def offsets(self) -> Tensor:
        """Position of every detector: mm, or the fan angle in radians."""
        centre = (self.detectors - 1) / 2
        return (torch.arange(self.detectors, dtype=torch.float64) - centre) * self.pitch

    def rays(self) -> tuple[Tensor, Tensor]:
        """(theta, s) of every ray, [angles, detectors] each."""
        view, offset = self.views()[:, None], self.offsets()[None]
        if self.source_mm is None:
            return view + 0 * offset, offset + 0 * view
        return view + offset, self.source_mm * torch.sin(offset) + 0 * view


def parallel_scanner(
    shape: tuple[int, int], spacing_mm: tuple[float, float], angles: int | None = None
) -> Scanner:
    """A parallel scanner that sees the whole image, rays as dense as the finer voxel spacing."""
    pitch = min(spacing_mm)
    detectors = 2 * math.ceil(_radius(shape, spacing_mm) / pitch) + 1
    return Scanner(angles or math.ceil(detectors * math.pi / 2), detectors, pitch)


def fan_scanner(
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    source_mm: float = 570.0,
    angles: int | None = None,
) -> Scanner:
    """An equiangular fan scanner; 570 mm is a usual source-to-centre distance.

    Raises:
        ValueError: the source would lie inside the image.
    """
    radius = _radius(shape, spacing_mm)
    if radius >= source_mm:
        raise ValueError(f"source at {source_mm} mm lies inside an image of radius {radius:.0f} mm")
    pitch = min(spacing_mm) / source_mm
    detectors = 2 * math.ceil(math.asin(radius / source_mm) / pitch) + 1
    return Scanner(angles or math.ceil(detectors * math.pi), detectors, pitch, source_mm)


def _radius(shape: tuple[int, int], spacing_mm: tuple[float, float]) -> float:
    return 0.5 * math.hypot(*(n * s for n, s in zip(shape, spacing_mm, strict=True)))


def project(
    image: Float[Tensor, "b c h w"], scanner: Scanner, spacing_mm: tuple[float, float]
) -> Float[Tensor, "b c angles detectors"]:
    """Line integrals along every ray, in image units times mm; zero outside the image.

    Joseph's method (IEEE TMI 1982): a ray crosses the voxel lines of the axis that it is steeper
    to, with linear interpolation along the other one. Differentiable in the image.
    """
    b, c, h, w = image.shape
    columns = image.reshape(b * c, h * w).mT
    unit, scaled, spacing = _in_voxels(scanner, spacing_mm)
    parts = [
        projector(scaled, (h, w), spacing, views, _kind(image)) @ columns
        for views in _chunks(scanner.angles, scanner.detectors * 2 * max(h, w))
    ]
    return torch.cat(parts).mT.reshape(b, c, scanner.angles, scanner.detectors) * unit


def ramp_filter(
    sinogram: Float[Tensor, "b c angles detectors"], scanner: Scanner
) -> Float[Tensor, "b c angles detectors"]:
    """Band-limited ramp filter along the detectors (Kak & Slaney, equations 61 and 89).

    The kernel is sampled in space, not in frequency, so the mean of the image is right.
    """
    n = scanner.detectors
    length = 1 << (2 * n - 1).bit_length()
    index = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    odd = index.abs() % 2 == 1
    if scanner.source_mm is None:
        distance, centre = index * scanner.pitch, 1 / (4 * scanner.pitch**2)
        kernel = torch.where(odd, -1 / (math.pi * distance) ** 2, 0.0)
    else:
        distance, centre = torch.sin(index * scanner.pitch), 1 / (8 * scanner.pitch**2)
        kernel = torch.where(odd & (index.abs() < n), -0.5 / (math.pi * distance) ** 2, 0.0)
        weight = scanner.source_mm * torch.cos(scanner.offsets())
        sinogram = sinogram * weight.to(sinogram)
    kernel[0] = centre
    response = torch.fft.rfft(kernel).real.to(sinogram) * scanner.pitch
    spectrum = torch.fft.rfft(sinogram, length) * response
    return torch.fft.irfft(spectrum, length)[..., :n]


def fbp(
    sinogram: Float[Tensor, "b c angles detectors"],
    scanner: Scanner,
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
) -> Float[Tensor, "b c h w"]:
    """Filtered back-projection on a grid of ``shape`` and ``spacing_mm``; inverts ``project``.

    Differentiable in the sinogram.
    """
    b, c = sinogram.shape[:2]
    filtered = ramp_filter(sinogram, scanner)
    unit, scaled, spacing = _in_voxels(scanner, spacing_mm)
    image = torch.zeros(math.prod(shape), b * c, device=sinogram.device, dtype=sinogram.dtype)
    for views in _chunks(scanner.angles, 2 * math.prod(shape)):
        columns = filtered[:, :, views[0] : views[1]].reshape(b * c, -1).mT
        image = image + back_projector(scaled, shape, spacing, views, _kind(sinogram)) @ columns
    distance = 1.0 if scanner.source_mm is None else unit**2  # a fan's weights are 1/mm^2
    return image.mT.reshape(b, c, *shape) / distance


def _in_voxels(
    scanner: Scanner, spacing_mm: tuple[float, float]
) -> tuple[float, Scanner, tuple[float, float]]:
    """Lengths over the finer voxel spacing: scans that differ only in it share their matrices."""
    unit = min(spacing_mm)
    spacing = (round(spacing_mm[0] / unit, 9), round(spacing_mm[1] / unit, 9))
    if scanner.source_mm is None:
        return unit, replace(scanner, pitch=round(scanner.pitch / unit, 9)), spacing
    return unit, replace(scanner, source_mm=round(scanner.source_mm / unit, 9)), spacing


Views = tuple[int, int]
Kind = tuple[torch.device, torch.dtype]


def _kind(image: Tensor) -> Kind:
    return image.device, image.dtype


def _chunks(angles: int, entries_per_view: int) -> list[Views]:
    size = max(1, _ENTRIES // max(1, entries_per_view))
    return [(start, min(start + size, angles)) for start in range(0, angles, size)]


@lru_cache(maxsize=16)
def projector(
    scanner: Scanner,
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    views: Views,
    kind: Kind,
) -> Tensor:
    """Sparse matrix from the image's voxels to the rays of some views."""
    (h, w), (dx, dy) = shape, spacing_mm
    theta, s = (r[views[0] : views[1]].reshape(-1, 1) for r in scanner.rays())
    cos, sin = theta.cos(), theta.sin()
    steep = cos.abs() >= sin.abs()  # the ray runs along axis 1, so it meets every column once
    line = torch.arange(max(h, w), dtype=torch.float64)[None]
    x = (s - (line - (w - 1) / 2) * dy * sin) / torch.where(steep, cos, 1.0) / dx + (h - 1) / 2
    y = (s - (line - (h - 1) / 2) * dx * cos) / torch.where(steep, 1.0, sin) / dy + (w - 1) / 2
    position = torch.where(steep, x, y)
    length = torch.where(steep, dy / cos.abs(), dx / sin.abs())
    low = position.floor()
    cell = torch.stack([low, low + 1], -1)
    weight = torch.stack([low + 1 - position, position - low], -1) * length[..., None]
    met, other = torch.where(steep, w, h)[..., None], torch.where(steep, h, w)[..., None]
    index = torch.where(steep[..., None], cell * w + line[..., None], line[..., None] * w + cell)
    kept = (cell >= 0) & (cell < other) & (line[..., None] < met) & (weight > 0)
    return _rows(index.flatten(1), weight.flatten(1), kept.flatten(1), h * w, kind)


@lru_cache(maxsize=16)
def back_projector(
    scanner: Scanner,
    shape: tuple[int, int],
    spacing_mm: tuple[float, float],
    views: Views,
    kind: Kind,
) -> Tensor:
    """Sparse matrix from the filtered rays of some views to the voxels, with distance weights."""
    x, y = (
        ((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * d)
        for n, d in zip(shape, spacing_mm, strict=True)
    )
    x, y = (axis.reshape(-1, 1) for axis in torch.meshgrid(x, y, indexing="ij"))
    view = scanner.views()[None, views[0] : views[1]]
    offset = x * view.cos() + y * view.sin()
    weight = torch.full_like(offset, scanner.turn / scanner.angles)
    if scanner.source_mm is not None:
        depth = scanner.source_mm + x * view.sin() - y * view.cos()
        weight = weight / (depth**2 + offset**2)
        offset = torch.atan2(offset, depth)
    position = offset / scanner.pitch + (scanner.detectors - 1) / 2
    low = position.floor()
    cell = torch.stack([low, low + 1], -1)
    weight = torch.stack([low + 1 - position, position - low], -1) * weight[..., None]
    first = torch.arange(view.shape[1])[None, :, None] * scanner.detectors
    kept = (cell >= 0) & (cell < scanner.detectors)
    width = view.shape[1] * scanner.detectors
    return _rows((cell + first).flatten(1), weight.flatten(1), kept.flatten(1), width, kind)


def _rows(index: Tensor, weight: Tensor, kept: Tensor, width: int, kind: Kind) -> Tensor:
    """A compressed-row matrix from the entries that are kept in every row."""
    device, dtype = kind
    start = torch.zeros(len(kept) + 1, dtype=torch.int32)
    start[1:] = kept.sum(1).cumsum(0)
    with warnings.catch_warnings():  # torch announces, once, that compressed rows are in beta
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            start,
            index[kept].int(),
            weight[kept].to(dtype),
            (len(kept), width),
            device=device,
            check_invariants=False,
        )
