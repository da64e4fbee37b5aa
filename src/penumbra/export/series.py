"""The source series of a prediction: its slices in order, and maps laid on them exactly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float, Shaped
from nibabel.filebasedimages import ImageFileError

from penumbra.data.dicom import NOT_IMAGES
from penumbra.data.slices import place_datasets
from penumbra.data.volume import apart_mm
from penumbra.errors import DataError, first_line

TOLERANCE_MM = 0.01
"""NIfTI keeps its affine in single precision; anything beyond is another grid."""


@dataclass(frozen=True)
class Series:
    """Slices along their normal, and the RAS+ affine of [column, row, slice]."""

    datasets: tuple[Any, ...]
    affine: Float[np.ndarray, "4 4"]

    @property
    def shape(self) -> tuple[int, int, int]:
        first = self.datasets[0]
        return int(first.Columns), int(first.Rows), len(self.datasets)


def read_series(folder: Path) -> Series:
    """Headers of the one series below a folder, in the order of their positions.

    Raises:
        DataError: pydicom is missing, there is no series or several, or slices do not make a grid.
    """
    try:
        import pydicom
    except ImportError:
        raise DataError(
            "DICOM needs pydicom and highdicom; pip install 'penumbra-imaging[dicom]'"
        ) from None
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError, EOFError):
            continue
        image = "ImagePositionPatient" in dataset and "Rows" in dataset
        if image and dataset.get("Modality") not in NOT_IMAGES:
            found.append(dataset)
    series = {str(d.SeriesInstanceUID) for d in found}
    if len(series) != 1:
        raise DataError(
            f"{folder}: {len(series)} image series with positions in space; "
            "give the folder of the one series that was predicted"
        )
    placed = place_datasets(folder, found)
    ordered = tuple(found[k] for k in placed.order)
    for dataset in ordered:
        # Often wrong, and it would be copied into what we write; positions are what counts.
        if "SpacingBetweenSlices" in dataset:
            dataset.SpacingBetweenSlices = placed.step_mm
    return Series(ordered, placed.affine)


def read_frames(path: Path, series: Series) -> Shaped[np.ndarray, "frames rows columns ..."]:
    """A map of the prediction as one frame per slice of the series, in the series' order.

    Raises:
        DataError: the map cannot be read, or does not lie on the series' grid; nothing is moved or
            resampled.
    """
    try:
        image = nibabel.load(path)
    except (OSError, ImageFileError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}); predict again") from error
    if image.shape[:3] != series.shape:
        raise DataError(
            f"{path}: shape {image.shape[:3]}, but the series has {series.shape} columns, rows "
            "and slices; give the series that was predicted"
        )
    off_mm = apart_mm(image.affine, series.affine, series.shape)
    if off_mm > TOLERANCE_MM:
        raise DataError(
            f"{path}: lies {off_mm:.2f} mm off the series; give the series that was predicted"
        )
    return np.ascontiguousarray(np.swapaxes(np.moveaxis(np.asanyarray(image.dataobj), 2, 0), 1, 2))
