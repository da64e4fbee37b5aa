"""The files of a scan, matched to the channels that a model was trained with."""

import re
from pathlib import Path

from penumbra.data import manifest
from penumbra.data.cohort import read_cohort
from penumbra.data.geometry import SUFFIXES, stem
from penumbra.errors import DataError
from penumbra.types import Case, Task


def cases_of(scan: Path, task: Task) -> list[Case]:
    """The case that a scan is, or all that a table lists (``cases.csv`` or a folder with one).

    Raises:
        DataError: as ``case_of``; or a case of the table has none of the channels, or a name that
            is no file name.
    """
    if not manifest.recognises(scan):
        return [case_of(scan, task)]
    return [
        _unlabelled(case, task, scan) for case in read_cohort(scan, modality=task.modality).cases
    ]


def _unlabelled(case: Case, task: Task, table: Path) -> Case:
    if Path(case.id).name != case.id:
        raise DataError(f"{table}: case '{case.id}' cannot name files; leave out separators")
    named = {_joined(channel): file for channel, file in case.images.items()}
    images = {c: named[_joined(c)] for c in task.channels if _joined(c) in named}
    if len(task.channels) == len(case.images) == 1:
        images = dict.fromkeys(task.channels, *case.images.values())
    if not images:
        raise DataError(
            f"{table}: case '{case.id}' has {', '.join(case.images)}, the model reads "
            f"{', '.join(task.channels)}; name the columns so"
        )
    return Case(id=case.id, patient=case.patient, images=images)


def case_of(scan: Path, task: Task) -> Case:
    """The files of an unlabelled case, matched to the task's channels by name.

    Raises:
        DataError: the scan has none of the channels, or one channel could be several files.
    """
    name = stem(scan)
    files = sorted(scan.iterdir()) if scan.is_dir() else [scan]
    single = len(task.channels) == 1
    series = single and scan.is_dir()  # its slices are one image, whatever their names
    named = {f: _channel(f, task.channels) for f in files if not (series and _is_dicom(f))}
    matched = {}
    for channel in task.channels:
        mine = [f for f, found in named.items() if found == channel]
        if len(mine) > 1:
            listed = ", ".join(f.name for f in mine)
            raise DataError(f"{scan}: {listed} could each be {channel}; leave one in the folder")
        if mine:
            matched[channel] = mine[0]
    if not matched and single:
        matched = {task.channels[0]: _only(files, scan)}
    if not matched:
        raise DataError(
            f"{scan}: none of the channels {', '.join(task.channels)} is there; name the files "
            f"like {name}_{task.channels[0]}.nii.gz, in one folder per case"
        )
    return Case(id=name, patient=name, images=matched)


def _channel(path: Path, channels: tuple[str, ...]) -> str | None:
    """The channel that a file's name ends with, whatever its capitals and separators.

    Of several the longest: ``x_T1-post.nii.gz`` is ``T1 post``, not ``post``.
    """
    words = _words(stem(path).lower())
    ends = {"".join(words[k:]) for k in range(len(words))}
    found = [channel for channel in channels if _joined(channel) in ends]
    return max(found, key=len, default=None)


def _joined(channel: str) -> str:
    return "".join(_words(channel.lower()))


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text) if word]


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
