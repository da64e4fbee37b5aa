"""The files of a scan, matched to the channels that a model was trained with."""

from pathlib import Path

from penumbra.errors import DataError
from penumbra.types import Case, Task

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".dcm", ".zip")


def case_of(scan: Path, task: Task) -> Case:
    """The files of an unlabelled case, matched to the task's channels by name.

    Raises:
        DataError: the scan has none of the channels, or one file could be several.
    """
    name = scan.name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    files = sorted(scan.iterdir()) if scan.is_dir() else [scan]
    matched = {c: f for c in task.channels for f in files if _is_channel(f, c)}
    if not matched and len(task.channels) == 1:
        matched = {task.channels[0]: _only(files, scan)}
    if not matched:
        raise DataError(
            f"{scan}: none of the channels {', '.join(task.channels)} is there; name the files "
            f"like {name}_{task.channels[0]}.nii.gz, in one folder per case"
        )
    return Case(id=name, patient=name, images=matched)


def _is_channel(path: Path, channel: str) -> bool:
    stem = path.name.lower()
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.endswith((f"_{channel}", f"-{channel}")) or stem == channel


def _only(files: list[Path], scan: Path) -> Path:
    """The one image of a single-channel scan; a DICOM folder is read as a whole."""
    images = [f for f in files if f.name.lower().endswith(SUFFIXES) and not _is_dicom(f)]
    if scan.is_dir() and not images:
        return scan
    if len(images) > 1:
        listed = ", ".join(f.name for f in images[:5])
        raise DataError(f"{scan}: holds {len(images)} images ({listed}); name one of them")
    return images[0] if images else scan


def _is_dicom(path: Path) -> bool:
    return path.suffix.lower() == ".dcm"
