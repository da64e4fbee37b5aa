"""The grid that a stack of DICOM slices makes, from their positions alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from penumbra.errors import DataError

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ANGLE = 1e-3
_UNEVEN = 0.1
"""Share of the slice distance by which single distances may differ (rounding, couch motion)."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Slices in order along their normal and the RAS+ affine of [column, row, slice]."""

    order: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]
    step_mm: float


def place_datasets(path: Path, datasets: Sequence[Any]) -> Placed:
    """``place_slices`` of single-frame DICOM datasets.

    Raises:
        DataError: as ``place_slices``; or slices of different sizes.
    """
    sizes = {(int(d.Rows), int(d.Columns)) for d in datasets}
    if len(sizes) > 1:
        raise DataError(f"{path}: slices of different sizes {sorted(sizes)}; give one series")
    first = datasets[0]
    return place_slices(
        path,
        [[float(v) for v in d.ImagePositionPatient] for d in datasets],
        [[float(v) for v in d.ImageOrientationPatient] for d in datasets],
        (float(first.PixelSpacing[0]), float(first.PixelSpacing[1])),
        thickness_mm=float(first.get("SliceThickness") or 0),
    )


def place_slices(
    path: Path,
    positions: Sequence[Sequence[float]],
    orientations: Sequence[Sequence[float]],
    pixel_spacing_mm: tuple[float, float],
    *,
    thickness_mm: float = 0.0,
) -> Placed:
    """Sort slices along their common normal and give the affine of the stack.

    Oblique stacks, either direction and tilted gantries (a sheared grid) are exact.

    Args:
        positions: ImagePositionPatient of each slice, mm in LPS.
        orientations: ImageOrientationPatient: direction of a row, then of a column.
        pixel_spacing_mm: PixelSpacing: between rows, between columns.
        thickness_mm: SliceThickness, for a lone slice, which no position says anything of; 1 mm
            where it is not stated (0).

    Raises:
        DataError: differing orientations, two slices at one place, or a missing slice.
    """
    origin = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    axes = np.asarray(orientations, dtype=np.float64).reshape(-1, 6)
    if not (np.isfinite(origin).all() and np.isfinite(axes).all()):
        raise DataError(f"{path}: a slice position or orientation is not a number")
    if np.abs(axes - axes[0]).max() > _ANGLE:
        raise DataError(
            f"{path}: slices point in different directions (a localizer or several stacks in one "
            "series); give a folder with one stack"
        )
    along_row, along_column = axes[0, :3], axes[0, 3:]
    normal = np.cross(along_row, along_column)
    if abs(np.linalg.norm(normal) - 1) > 0.01:
        raise DataError(f"{path}: ImageOrientationPatient {axes[0].tolist()} is not a rotation")
    depth = origin @ normal
    order = np.argsort(depth, kind="stable")
    lone = normal * (thickness_mm if thickness_mm > 0 else 1.0)
    step = lone if len(depth) == 1 else _step(path, origin[order], depth[order])
    affine = np.eye(4)
    affine[:3, 0] = along_row * pixel_spacing_mm[1]
    affine[:3, 1] = along_column * pixel_spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = origin[order[0]]
    length = float(np.linalg.norm(step))
    return Placed(tuple(int(k) for k in order), _LPS_TO_RAS @ affine, length)


def _step(
    path: Path,
    origin: Float[np.ndarray, "n 3"],
    depth: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " 3"]:
    gaps = np.diff(depth)
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3 * max(usual, 1.0):
        at = depth[int(np.argmin(gaps))]
        raise DataError(
            f"{path}: two slices lie at {at:.2f} mm (several phases, echoes or copies in one "
            "series); give a folder with one of them"
        )
    if np.abs(gaps - usual).max() > _UNEVEN * usual:
        worst = int(np.argmax(np.abs(gaps - usual)))
        raise DataError(
            f"{path}: slices are {usual:.2f} mm apart, but {gaps[worst]:.2f} mm between "
            f"{depth[worst]:.2f} and {depth[worst + 1]:.2f} mm; slices are missing, "
            "export the series again"
        )
    return (origin[-1] - origin[0]) / (len(origin) - 1)
