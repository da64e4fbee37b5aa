"""From a file to a grid and back: reading in RAS+, cropping, resampling, restoring.

Every step is an exact map between voxel grids, kept in a ``Geometry`` so that a result can be
brought back to the scan's own shape and affine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped
from scipy import sparse

from penumbra.data import dicom, medmnist, metaimage, nifti, radiograph
from penumbra.data.body import bounding_box
from penumbra.data.volume import Volume, apart_mm, as_labels, from_ras, spacing_of
from penumbra.errors import DataError

SUFFIXES = (*nifti.SUFFIXES, *metaimage.SUFFIXES, *radiograph.SUFFIXES, *dicom.SUFFIXES)
"""Of the files that ``load_volume`` reads; a series may also be a folder, or have no suffix."""

Box = tuple[tuple[int, int], ...]
"""Start and stop along each axis."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a prepared grid lies in its scan.

    Attributes:
        file_shape, file_affine: the scan as its file stores it.
        full: the scan's shape in RAS+ order (rows, columns for a radiograph).
        crop: the part of the RAS+ scan that was kept.
        content: where that part lies in the prepared grid; the rest is padding.
        shape, affine: the prepared grid.
    """

    file_shape: tuple[int, ...]
    file_affine: Float[np.ndarray, "4 4"]
    full: tuple[int, ...]
    crop: Box
    content: Box
    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel spacing of the prepared grid."""
        return spacing_of(self.affine, len(self.shape))

    @property
    def file_spacing_mm(self) -> tuple[float, ...]:
        """Voxel spacing of the file."""
        return spacing_of(self.file_affine, len(self.file_shape))


def load_volume(path: Path, *, frame: int | None = None, label: bool = False) -> Volume:
    """Read NIfTI, MetaImage, a DICOM series (folder, zip, file) or a PNG/JPEG radiograph.

    Args:
        frame: which volume of a 4-D NIfTI file.
        label: keep integers, and refuse values that are not.

    Raises:
        DataError: missing, unreadable, damaged or of an unknown kind; the message says what to do.
    """
    name = path.name.lower()
    if medmnist.holds(path):
        return medmnist.read_film(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    if name.endswith(nifti.SUFFIXES):
        return nifti.read(path, frame=frame, label=label)
    if frame is not None:
        raise DataError(
            f"{path}: several channels name it, and only NIfTI holds several; give each its own"
        )
    if name.endswith(metaimage.SUFFIXES):
        return metaimage.read(path, label=label)
    if name.endswith(radiograph.SUFFIXES):
        return radiograph.read(path, label=label)
    if path.is_dir() or name.endswith(dicom.SUFFIXES) or dicom.is_dicom(path):
        volume = dicom.read(path)
        return replace(volume, array=as_labels(volume.array, path)) if label else volume
    raise DataError(
        f"{path}: unknown kind of file; NIfTI (.nii, .nii.gz), MetaImage (.mha), "
        "DICOM (folder, .zip, .dcm) and PNG/JPEG are read"
    )


def stem(path: Path) -> str:
    """A file's name without the suffix of its format, in whatever capitals.

    Example:
        >>> stem(Path("scans/BraTS2021_00000_t1.NII.GZ"))
        'BraTS2021_00000_t1'
    """
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(suffix)]


def same_grid(a: Volume, b: Volume) -> bool:
    """Whether two volumes have one shape and lie within half a voxel of each other everywhere."""
    if a.array.shape != b.array.shape:
        return False
    return apart_mm(a.affine, b.affine, a.array.shape) <= 0.5 * min(a.spacing_mm)


def weights_1d(source: int, target: int) -> sparse.csr_array:
    """Linear interpolation over one axis as a [target, source] matrix; rows sum to one.

    Both grids cover the same extent (voxel edges agree). When the target is coarser the triangle
    is widened to the target's spacing, which averages instead of aliasing.

    Example:
        >>> print(weights_1d(4, 2).toarray().round(3))
        [[0.429 0.429 0.143 0.   ]
         [0.    0.143 0.429 0.429]]
    """
    scale = source / target
    width = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale - 0.5
    first = np.floor(centre - width).astype(int)
    index = first[:, None] + np.arange(int(np.ceil(2 * width)) + 2)
    weight = np.clip(1 - np.abs(index - centre[:, None]) / width, 0, None)
    if scale > 1:
        weight[(index < 0) | (index >= source)] = 0
    weight /= weight.sum(1, keepdims=True)
    column = np.clip(index, 0, source - 1)
    row = np.broadcast_to(np.arange(target)[:, None], index.shape)
    keep = weight > 0
    return sparse.csr_array(
        (weight[keep], (row[keep], column[keep])), shape=(target, source), dtype=np.float32
    )


def resample(
    array: Shaped[np.ndarray, "*space"], shape: Sequence[int]
) -> Float[np.ndarray, "*target"]:
    """Linear interpolation to another number of voxels over the same extent, axis by axis."""
    result = np.asarray(array, dtype=np.float32)
    for axis, target in enumerate(shape):
        source = result.shape[axis]
        if source == target:
            continue
        moved = np.moveaxis(result, axis, 0)
        flat = weights_1d(source, target) @ moved.reshape(source, -1)
        result = np.moveaxis(flat.reshape(target, *moved.shape[1:]), 0, axis)
    return result


def resample_labels(
    array: Shaped[np.ndarray, "*space"], shape: Sequence[int]
) -> Shaped[np.ndarray, "*target"]:
    """Each class interpolated as a mask, then the largest: smooth outlines, no invented classes.

    Each class is interpolated inside its bounding box only; the most frequent one (the background)
    has what the others leave. Ties go to the background, then to the smaller value.
    """
    if tuple(array.shape) == tuple(shape):
        return array
    values, counts = np.unique(array, return_counts=True)
    usual = values[np.argmax(counts)]
    best = np.zeros(tuple(shape), dtype=np.float32)
    total = np.zeros_like(best)
    result = np.full(tuple(shape), usual, dtype=array.dtype)
    for value in values[values != usual]:
        share, window = _resample_in_box(array == value, shape)
        total[window] += share
        larger = share > best[window]
        best[window][larger] = share[larger]
        result[window][larger] = value
    result[1 - total >= best] = usual
    return result


def _resample_in_box(
    mask: Shaped[np.ndarray, "*space"], shape: Sequence[int]
) -> tuple[Float[np.ndarray, "*part"], tuple[slice, ...]]:
    """``resample`` of a mask, computed only where it is not zero; and where that is."""
    window, box = [], bounding_box(mask)
    part = mask[tuple(slice(low, high) for low, high in box)].astype(np.float32)
    for axis, ((low, high), target) in enumerate(zip(box, shape, strict=True)):
        weights = weights_1d(mask.shape[axis], target)[:, low:high]
        rows = np.flatnonzero(np.diff(weights.indptr))
        window.append(slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0))
        moved = np.moveaxis(part, axis, 0)
        flat = weights[window[-1]] @ moved.reshape(high - low, -1)
        part = np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, axis)
    return part, tuple(window)


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], wanted_mm: Sequence[float]
) -> tuple[int, ...]:
    """Voxels per axis that come nearest to the wanted spacing over the same extent.

    Axes beyond ``wanted_mm`` (the slices of an in-plane spacing) keep their own.
    """
    wanted = (*wanted_mm, *spacing_mm[len(wanted_mm) :])
    return tuple(
        max(1, round(n * have / want))
        for n, have, want in zip(shape, spacing_mm, wanted, strict=True)
    )


def grid_affine(
    affine: Float[np.ndarray, "4 4"], crop: Box, content: Box
) -> Float[np.ndarray, "4 4"]:
    """Affine of a prepared grid: crop, then resample over the same extent, then pad."""
    to_full = np.eye(4)
    for axis, ((start, stop), (low, high)) in enumerate(zip(crop, content, strict=True)):
        scale = (stop - start) / (high - low)
        to_full[axis, axis] = scale
        to_full[axis, 3] = start + (0.5 - low) * scale - 0.5
    return affine @ to_full


def to_file_grid(
    array: Shaped[np.ndarray, "*space"], geometry: Geometry, *, fill: float = 0.0
) -> Shaped[np.ndarray, "*file"]:
    """Bring one map on the prepared grid back to the scan's own shape and axis order.

    Integer maps (labels) are interpolated class by class; what was cropped away becomes ``fill``.
    """
    part = array[tuple(slice(low, high) for low, high in geometry.content)]
    size = tuple(stop - start for start, stop in geometry.crop)
    if np.issubdtype(array.dtype, np.floating):
        part = resample(part, size) if part.shape != size else part
    else:
        part = resample_labels(part, size)
    full = np.full(geometry.full, fill, dtype=part.dtype)
    full[tuple(slice(start, stop) for start, stop in geometry.crop)] = part
    return np.ascontiguousarray(from_ras(full, geometry.file_affine))
