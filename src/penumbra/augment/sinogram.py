"""The tomographic pair: line integrals of an image and filtered back-projection, differentiable.

A ray is the set of points with ``x cos(theta) + y sin(theta) = s``; x and y run along the image's
two axes in mm from its centre. Parallel and equiangular fan beams differ only in which (theta, s)
their detectors see. Kak & Slaney, Principles of Computerized Tomographic Imaging, chapter 3.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_CHUNK = 1 << 24
"""Samples held at a time."""


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

    def views(self) -> Tensor:
        """Angle of every view in radians."""
        turn = math.pi if self.source_mm is None else 2 * math.pi
        return torch.arange(self.angles, dtype=torch.float64) * (turn / self.angles)

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
    """Line integrals along every ray, in image units times mm.

    Bilinear samples along each ray, one per finer voxel spacing; zero outside the image.
    Differentiable in the image.
    """
    b, c, h, w = image.shape
    step = min(spacing_mm)
    reach = math.ceil(_radius((h, w), spacing_mm) / step)
    along = torch.arange(-reach, reach + 1, dtype=torch.float64) * step
    theta, s = scanner.rays()
    flat = image.reshape(1, b * c, h, w)  # images as channels share the sampling positions
    parts = []
    for chosen in _chunks(scanner.angles, b * c * scanner.detectors * len(along)):
        angle, offset = theta[chosen].reshape(-1, 1), s[chosen].reshape(-1, 1)
        x = offset * angle.cos() - along * angle.sin()
        y = offset * angle.sin() + along * angle.cos()
        grid = torch.stack([_normal(y, w, spacing_mm[1]), _normal(x, h, spacing_mm[0])], -1)
        values = F.grid_sample(flat, grid[None].to(image), align_corners=False)
        parts.append(values.sum(-1).view(b, c, -1, scanner.detectors))
    return torch.cat(parts, 2) * step


def _normal(position_mm: Tensor, n: int, spacing: float) -> Tensor:
    """Normalised coordinate in which -1 and 1 are the outer edges of the image."""
    return position_mm * (2 / (n * spacing))


def _chunks(angles: int, samples_per_angle: int) -> Iterator[slice]:
    size = max(1, _CHUNK // max(1, samples_per_angle))
    for start in range(0, angles, size):
        yield slice(start, min(start + size, angles))


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
    """Filtered back-projection on a grid of ``shape`` and ``spacing_mm``; inverts ``project``."""
    b, c = sinogram.shape[:2]
    h, w = shape
    flat = ramp_filter(sinogram, scanner).reshape(1, b * c, scanner.angles, scanner.detectors)
    x = ((torch.arange(h, dtype=torch.float64) - (h - 1) / 2) * spacing_mm[0])[None, :, None]
    y = ((torch.arange(w, dtype=torch.float64) - (w - 1) / 2) * spacing_mm[1])[None, None, :]
    views = scanner.views()
    image = torch.zeros(b * c, h, w, device=sinogram.device, dtype=sinogram.dtype)
    for chosen in _chunks(scanner.angles, b * c * h * w):
        view = views[chosen][:, None, None]
        offset = x * view.cos() + y * view.sin()
        weight = torch.ones(())
        if scanner.source_mm is not None:
            depth = scanner.source_mm + x * view.sin() - y * view.cos()
            weight = 1 / (depth**2 + offset**2)
            offset = torch.atan2(offset, depth)
        column = _normal(offset, scanner.detectors, scanner.pitch)
        row = (torch.arange(scanner.angles, dtype=torch.float64)[chosen] + 0.5) * 2
        row = (row / scanner.angles - 1)[:, None, None].expand_as(column)
        grid = torch.stack([column, row], -1).reshape(1, -1, w, 2)
        values = F.grid_sample(flat, grid.to(sinogram), align_corners=False)
        image = image + (values.view(b * c, -1, h, w) * weight.to(sinogram)).sum(1)
    turn = math.pi if scanner.source_mm is None else 2 * math.pi
    return (image * (turn / scanner.angles)).view(b, c, h, w)
