"""DICOM series and radiographs: a folder, a zip archive or one file.

Geometry comes from ImagePositionPatient and ImageOrientationPatient of every slice; thickness and
SpacingBetweenSlices are often wrong and only compared, but for a lone slice, which has its
thickness. pydicom is needed (extra ``dicom``).
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from penumbra.data.radiograph import assumed_affine
from penumbra.data.slices import place_datasets, place_slices
from penumbra.data.volume import Volume, in_ras, refuse_size
from penumbra.errors import DataError, first_line

SUFFIXES = (".dcm", ".dicom", ".zip")
RADIOGRAPHY = {"CR", "DX", "RG", "MG", "RF", "XA", "PX", "IO"}
NOT_IMAGES = {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG", "OT", "DOC"}
MAX_FILES = 20_000
MAX_ZIP_BYTES = 2**32
MAX_RATIO = 2**14
"""Blank frames pack 2000:1 and better in JPEG 2000; a claim far above that is an attack."""

_TAGS = {
    "view": "ViewPosition",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "kernel": "ConvolutionKernel",
    "field_strength": "MagneticFieldStrength",
    "sequence": "SequenceName",
    "thickness_mm": "SliceThickness",
}
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What pydicom and its decoders raise on damaged files, beside pydicom's own errors."""


def is_dicom(path: Path) -> bool:
    """Whether a file carries the DICOM mark at byte 128."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read(path: Path) -> Volume:
    """One series as a RAS+ volume in HU or the scanner's units, or one radiograph as grey values.

    Radiographs come as [rows, columns] with bright bone (MONOCHROME1 is inverted) and the
    detector's full scale.

    Raises:
        DataError: no images, several series (they are listed), slices that do not make a regular
            grid, damaged or undecodable pixels, or pydicom is not installed.
    """
    try:
        import pydicom
    except ImportError:
        raise DataError(
            f"{path}: reading DICOM needs pydicom; pip install 'penumbra-imaging[dicom]'"
        ) from None
    broken = (*_BROKEN, pydicom.errors.BytesLengthException)
    try:
        headers = list(_images(path, pydicom))
    except broken as error:
        raise DataError(f"{path}: cannot be read as DICOM ({first_line(error)})") from error
    series = _one_series(path, headers)
    try:
        return _assemble(path, series)
    except broken as error:
        raise DataError(
            f"{path}: its pixels cannot be decoded ({first_line(error)}); the series is damaged or "
            "its compression is not supported, convert it to NIfTI or uncompressed DICOM"
        ) from error


def tags(path: Path) -> dict[str, str]:
    """What the first image below a path says of its acquisition; pixels are not read.

    Empty where nothing there is a readable DICOM image: ``read`` says why.
    """
    try:
        import pydicom
    except ImportError:
        return {}
    try:
        dataset = next(_images(path, pydicom), None)
    except (*_BROKEN, pydicom.errors.BytesLengthException, DataError):
        return {}
    return {} if dataset is None else _said(dataset)


def _said(dataset: Any) -> dict[str, str]:
    return {name: str(dataset.get(key)) for name, key in _TAGS.items() if dataset.get(key)}


def _files(path: Path) -> Iterator[tuple[str, Any]]:
    """Names and what to open, without unpacking an archive to disk."""
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        _refuse_many(path, len(found))
        yield from ((str(p), p) for p in found)
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            _refuse_many(path, len(members))
            if sum(m.file_size for m in members) > MAX_ZIP_BYTES:
                raise DataError(f"{path}: unpacks to more than {MAX_ZIP_BYTES >> 30} GiB")
            for member in members:
                with archive.open(member) as file:
                    yield f"{path}:{member.filename}", io.BytesIO(file.read(member.file_size))
    else:
        yield str(path), path


def _refuse_many(path: Path, count: int) -> None:
    if count > MAX_FILES:
        raise DataError(f"{path}: holds {count} files, more than {MAX_FILES}; give one series")


def _images(path: Path, pydicom: Any) -> Iterator[Any]:
    """The image datasets below a path, pixels not decoded; other files are passed over."""
    for name, source in _files(path):
        try:
            dataset = pydicom.dcmread(source, defer_size=4096 if isinstance(source, Path) else None)
        except pydicom.errors.InvalidDicomError:
            continue
        if "PixelData" not in dataset or dataset.get("Modality") in NOT_IMAGES:
            continue
        _refuse_claim(name, dataset)
        yield dataset


def _refuse_claim(name: str, dataset: Any) -> None:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    refuse_size((rows, columns, frames), Path(name))
    samples = int(dataset.get("SamplesPerPixel") or 1)
    claimed = rows * columns * frames * samples * max(1, int(dataset.BitsAllocated) // 8)
    ratio = MAX_RATIO if dataset.file_meta.TransferSyntaxUID.is_compressed else 1
    if claimed > len(dataset.PixelData) * ratio:
        raise DataError(
            f"{name}: the header claims {rows}x{columns}x{frames} pixels, more than its "
            f"{len(dataset.PixelData)} bytes can hold; the file is truncated, copy it again"
        )


def _one_series(path: Path, headers: list[Any]) -> list[Any]:
    if not headers:
        raise DataError(f"{path}: no DICOM images found; expected the files of one series")
    series: dict[str, list[Any]] = {}
    for dataset in headers:
        series.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(dataset)
    if len(series) > 1:
        lines = [
            f"  {uid}: {len(group)} image(s), {group[0].get('Modality', '?')}, "
            f"{group[0].get('SeriesDescription', 'no description')}"
            for uid, group in sorted(series.items())
        ]
        raise DataError(
            f"{path}: holds {len(series)} series; give a folder with one of\n" + "\n".join(lines)
        )
    return headers


def _assemble(path: Path, series: list[Any]) -> Volume:
    first = series[0]
    if first.get("Modality") in RADIOGRAPHY or "ImagePositionPatient" not in first:
        frames = int(first.get("NumberOfFrames") or 1)
        if "PerFrameFunctionalGroupsSequence" in first:
            return _enhanced(path, series)
        if len(series) > 1 or frames > 1:
            raise DataError(
                f"{path}: {len(series) * frames} images without positions in space; "
                "give one radiograph, or a series with ImagePositionPatient"
            )
        return _radiograph(first)
    placed = place_datasets(path, series)
    refuse_size((int(first.Rows), int(first.Columns), len(series)), path)
    pixels = np.stack([_values(series[k]).T for k in placed.order], axis=-1)
    volume = in_ras(pixels, placed.affine, path)
    stated = first.get("SpacingBetweenSlices")
    off_mm = 0.0 if stated is None else abs(abs(float(stated)) - placed.step_mm)
    wrong = len(series) > 1 and off_mm > 0.01 * placed.step_mm
    told = [("spacing", f"SpacingBetweenSlices says {stated} mm, positions {placed.step_mm:.3f}")]
    return _with_tags(volume, first, told if wrong else [])


def _enhanced(path: Path, series: list[Any]) -> Volume:
    """A multi-frame object: every frame has its own plane."""
    if len(series) > 1:
        raise DataError(f"{path}: {len(series)} multi-frame objects; give one")
    dataset = series[0]
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    shared = dataset.SharedFunctionalGroupsSequence[0]

    def group(frame: Any, name: str) -> Any:
        return (frame if name in frame else shared)[name].value[0]

    measures = group(frames[0], "PixelMeasuresSequence")
    spacing = measures.PixelSpacing
    placed = place_slices(
        path,
        [
            [float(v) for v in group(f, "PlanePositionSequence").ImagePositionPatient]
            for f in frames
        ],
        [
            [float(v) for v in group(f, "PlaneOrientationSequence").ImageOrientationPatient]
            for f in frames
        ],
        (float(spacing[0]), float(spacing[1])),
        thickness_mm=float(measures.get("SliceThickness") or 0),
    )
    stored = dataset.pixel_array.reshape(len(frames), int(dataset.Rows), int(dataset.Columns))
    slices = []
    for k in placed.order:
        known = "PixelValueTransformationSequence" in frames[k] or (
            "PixelValueTransformationSequence" in shared
        )
        scale = group(frames[k], "PixelValueTransformationSequence") if known else {}
        slope, intercept = scale.get("RescaleSlope", 1), scale.get("RescaleIntercept", 0)
        slices.append(stored[k].T.astype(np.float32) * float(slope) + float(intercept))
    return _with_tags(in_ras(np.stack(slices, axis=-1), placed.affine, path), dataset, [])


def _radiograph(dataset: Any) -> Volume:
    grey = _values(dataset)
    top = float(2 ** int(dataset.BitsStored) - 1)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        grey = top - grey
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    affine = assumed_affine(grey.shape)
    if spacing is not None:
        affine = np.diag([float(spacing[0]), float(spacing[1]), 1.0, 1.0])
    volume = Volume(grey, affine, grey.shape, affine, full_scale=top)
    return _with_tags(volume, dataset, [])


def _values(dataset: Any) -> np.ndarray:
    """Stored values times slope plus intercept, [rows, columns]."""
    stored = dataset.pixel_array
    if stored.ndim != 2:
        raise ValueError(f"{stored.ndim} pixel axes where rows and columns are expected")
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    return np.asarray(stored, dtype=np.float32) * float(slope) + float(intercept)


def _with_tags(volume: Volume, dataset: Any, told: list[tuple[str, str]]) -> Volume:
    return replace(volume, tags=(*_said(dataset).items(), *told))
