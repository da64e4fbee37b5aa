"""NIfTI files, read with distrust: sizes against the file before anything is allocated."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from penumbra.data.volume import Volume, as_labels, by, in_ras, refuse_size
from penumbra.errors import DataError, first_line

SUFFIXES = (".nii.gz", ".nii")
_BROKEN = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    ArithmeticError,
    zlib.error,
)
"""What nibabel raises on damaged files."""

MAX_DEFLATE_RATIO = 1032
"""Deflate cannot compress better than 1032:1, so a header that promises more is lying."""


def header_of(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine, without reading voxels.

    Raises:
        DataError: no NIfTI header, or one that promises more than the file can hold.
    """
    image = _open(path)
    return tuple(int(n) for n in image.shape), np.asarray(image.affine, dtype=np.float64)


def read(path: Path, *, frame: int | None = None, label: bool = False) -> Volume:
    """One volume in RAS+; of a 4-D file the ``frame``-th.

    Raises:
        DataError: unreadable, truncated, 4-D without ``frame``, or labels that are not integers.
    """
    image = _open(path)
    with _to_the_end(path):
        array = _voxels(image, path, frame, label)
    return in_ras(array, image.affine, path)


def read_all(path: Path) -> list[Volume]:
    """Every volume of a file in RAS+, read once; a 3-D file holds one.

    Raises:
        DataError: unreadable or truncated.
    """
    image = _open(path)
    with _to_the_end(path):
        array = np.asarray(image.dataobj, dtype=np.float32)
    array = array if array.ndim == 4 else array[..., None]
    return [in_ras(array[..., k], image.affine, path) for k in range(array.shape[3])]


def _open(path: Path) -> nib.Nifti1Image:
    try:
        image = nib.load(path)
    except _BROKEN as error:
        raise DataError(
            f"{path}: not a readable NIfTI file ({first_line(error)}); copy it again or convert it"
        ) from error
    shape = tuple(int(n) for n in image.shape)
    refuse_size(shape, path)
    ratio = MAX_DEFLATE_RATIO if path.name.lower().endswith(".gz") else 1
    claimed = int(np.prod(shape, dtype=np.int64)) * image.get_data_dtype().itemsize
    if claimed > path.stat().st_size * ratio:
        raise DataError(
            f"{path}: the header claims {by(shape)} voxels, more than its "
            f"{path.stat().st_size} bytes can hold; the file is truncated, copy it again"
        )
    if len(shape) not in (3, 4):
        raise DataError(f"{path}: has {len(shape)} axes; expected one volume of 3 (or 4: channels)")
    return image


@contextmanager
def _to_the_end(path: Path) -> Iterator[None]:
    try:
        # A header's scale may overflow; what is not finite is judged with the image (scan.finite).
        with np.errstate(invalid="ignore", over="ignore"):
            yield
    except _BROKEN as error:
        raise DataError(
            f"{path}: cannot be read to its end ({first_line(error)}); "
            "the file is truncated or damaged, copy it again"
        ) from error


def _voxels(image: nib.Nifti1Image, path: Path, frame: int | None, label: bool) -> np.ndarray:
    frames = image.shape[3] if len(image.shape) == 4 else 1
    if frame is None and frames > 1:
        raise DataError(
            f"{path}: holds {frames} volumes where one is expected; split it, or name its "
            "channels in dataset.json"
        )
    if (frame or 0) >= frames:
        raise DataError(
            f"{path}: holds {frames} channel(s), and channel {frame} was asked for; give every "
            "channel a file of its own, or one 4-D file to all"
        )
    proxy = image.dataobj
    array = np.asarray(proxy[..., frame or 0] if len(image.shape) == 4 else proxy)
    if label:
        return as_labels(array, path)
    return np.asarray(array, dtype=np.float32)
