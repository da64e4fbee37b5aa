"""DICOM series."""

from pathlib import Path

from penumbra.data.volume import Volume
from penumbra.errors import DataError


def is_dicom(path: Path) -> bool:
    """Whether a file carries the DICOM mark at byte 128."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read(path: Path) -> Volume:
    raise DataError(f"{path}: DICOM is not read yet")
