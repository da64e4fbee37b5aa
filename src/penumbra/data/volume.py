"""One image as read from a file: voxels in RAS+ order (or rows and columns) and where they lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float, Integer, Shaped

from penumbra.errors import DataError

MAX_VOXELS = 2**30
"""The largest image that is read: 4 GiB as float32, ten times a whole-body CT at 1 mm."""


@dataclass(frozen=True, slots=True)
class Volume:
    """An image in RAS+ voxel order, and the grid in which its file stores it.

    Attributes:
        array: voxels [x, y, z] toward right, anterior, superior; [rows, columns] for a radiograph.
            float32 for images; a label file keeps an integer type.
        affine: voxel index -> mm in RAS+; assumed for a radiograph without pixel spacing.
        file_shape, file_affine: the grid as the file stores it, before reorientation.
        full_scale: the largest value that the detector or format can hold, where that is known.
        tags: what the header says about the acquisition, for DICOM.
    """

    array: Shaped[np.ndarray, "*space"]
    affine: Float[np.ndarray, "4 4"]
    file_shape: tuple[int, ...]
    file_affine: Float[np.ndarray, "4 4"]
    full_scale: float | None = None
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between neighbouring voxels along each axis."""
        return spacing_of(self.affine, self.array.ndim)


def spacing_of(affine: Float[np.ndarray, "4 4"], dim: int) -> tuple[float, ...]:
    """Length of the affine's columns: the voxel spacing in mm.

    Example:
        >>> spacing_of(np.diag([2.0, 2.0, 5.0, 1.0]), 3)
        (2.0, 2.0, 5.0)
    """
    return tuple(float(s) for s in np.linalg.norm(affine[:3, :dim], axis=0))


def apart_mm(
    a: Float[np.ndarray, "4 4"], b: Float[np.ndarray, "4 4"], shape: Sequence[int]
) -> float:
    """How far two grids of one shape lie apart along any axis, at the corner where it is most.

    Example:
        >>> apart_mm(np.eye(4), np.diag([1.0, 1.5, 1.0, 1.0]), (3, 3, 3))
        1.0
    """
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(len(shape), -1)
    offset = (a - b)[:3, : len(shape)] @ corners + (a - b)[:3, 3:]
    return float(np.abs(offset).max())


def in_ras(
    array: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], path: Path
) -> Volume:
    """Flip and permute the axes, without resampling, to the RAS+ order nearest to the affine.

    Raises:
        DataError: the affine is not finite or not invertible.
    """
    affine = np.asarray(affine, dtype=np.float64)
    usable = bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 1e-9
    turn = nib.orientations.io_orientation(affine) if usable else np.array([np.nan])
    if np.isnan(turn).any():  # no axis of the file follows one of the patient's
        raise DataError(
            f"{path}: the header's affine is not usable {affine[:3].tolist()}; "
            "write the file again with a valid orientation and voxel spacing"
        )
    turned = nib.orientations.apply_orientation(array, turn)
    ras_affine = affine @ nib.orientations.inv_ornt_aff(turn, array.shape)
    return Volume(turned, ras_affine, tuple(array.shape), affine)


def from_ras(
    array: Shaped[np.ndarray, "*space"], file_affine: Float[np.ndarray, "4 4"]
) -> Shaped[np.ndarray, "*file"]:
    """Undo ``in_ras``: the array in the axis order of the file."""
    if array.ndim == 2:
        return array
    ras = np.array([[0, 1], [1, 1], [2, 1]])
    turn = nib.orientations.ornt_transform(ras, nib.orientations.io_orientation(file_affine))
    return nib.orientations.apply_orientation(array, turn)


def by(shape: Sequence[int]) -> str:
    """Sizes as a reader writes them.

    Example:
        >>> by((240, 240, 155))
        '240x240x155'
    """
    return "x".join(map(str, shape))


def as_labels(array: Shaped[np.ndarray, "*space"], path: Path) -> Integer[np.ndarray, "*space"]:
    """Label values as integers.

    Raises:
        DataError: a value is not a whole number.
    """
    if np.issubdtype(array.dtype, np.integer):
        return array
    rounded = np.rint(array)
    wrong = ~(np.abs(array) < 2**31) | (rounded != array)
    if wrong.any():
        bad = array[wrong].flat[0]
        raise DataError(
            f"{path}: label value {bad} is not a whole number; "
            "write class ids, not probabilities, into a segmentation"
        )
    return rounded.astype(np.int32)


def refuse_size(shape: tuple[int, ...], path: Path) -> None:
    """Check a header's sizes before anything is allocated.

    Raises:
        DataError: an axis is empty, or the image would hold more than ``MAX_VOXELS``.
    """
    voxels = 1
    for size in shape:
        voxels *= int(size)
    if not shape or min(shape) < 1 or voxels > MAX_VOXELS:
        raise DataError(
            f"{path}: the header claims a size of {by(shape)}, which is "
            f"{'empty' if voxels < 1 else f'more than {MAX_VOXELS} voxels'}; "
            "the file is damaged or not an image of one scan"
        )
