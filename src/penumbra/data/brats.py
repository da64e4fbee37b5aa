"""BraTS folders: one per subject, one file per sequence, in every naming from 2013 to 2024.

2013, 2015: ``VSD.Brain.XX.O.MR_Flair.12345/*.mha``; 2017-2021: ``<id>_flair.nii.gz``;
2023: ``<id>-t2f.nii.gz``. Any of the sequences may be missing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from penumbra.data.geometry import load_volume, stem
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Modality, Task

CHANNELS = ("t1", "t1ce", "t2", "flair")
_SUFFIXES = (".nii.gz", ".nii", ".mha")
_WORDS = {
    "t1": "t1",
    "t1n": "t1",
    "t1ce": "t1ce",
    "t1c": "t1ce",
    "t1gd": "t1ce",
    "t2": "t2",
    "t2w": "t2",
    "flair": "flair",
    "t2f": "flair",
    "seg": "seg",
    "segm": "seg",
}
_ENDING = re.compile(r"(?:^|[_-])([A-Za-z0-9]+)$")
_VSD = re.compile(r"\.(?:MR_(Flair|T1c|T1|T2)|(OT))(?:\.|$)", re.IGNORECASE)
_STYLE_2023 = re.compile(r"-(?:t1n|t1c|t2w|t2f|seg)$", re.IGNORECASE)
_TIME_POINT = re.compile(r"(?<=pat\d{3})_\d+$|(?<=pat\d{4})_\d+$|(?<=-\d{5})-\d{3}$")

CLASSES = ("background", "core", "oedema", "enhancing")
REGIONS: Mapping[str, tuple[int, ...]] = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
VALUES_TO_2021: Mapping[int, int] = {0: 0, 1: 1, 2: 2, 3: 1, 4: 3}
"""1 necrosis, 2 oedema, 3 non-enhancing (2013 and 2015 only), 4 enhancing."""
VALUES_2023: Mapping[int, int] = {0: 0, 1: 1, 2: 2, 3: 3}
"""2023 renumbered the enhancing tumour to 3."""


def recognises(root: Path) -> bool:
    """Whether some folder below holds a file named after an MRI sequence."""
    return next(iter(_subjects(root)), None) is not None


def read(root: Path, modality: Modality) -> Cohort:
    """Cases of a BraTS release, and the task that its label values stand for.

    Sub-regions give the classes core, oedema and enhancing with regions WT, TC, ET; when no file
    of the cohort holds more than 0 and 1 there is one class ``tumour`` (region WT).
    Two subjects of one name (2015 has a pat0001 of either grade) are told apart by their folder.

    Raises:
        DataError: no subject folders, or two files for one sequence.
    """
    files = _by_name(list(_subjects(root)))
    if not files:
        raise DataError(
            f"{root}: no BraTS subjects; expected <subject>/<subject>_flair.nii.gz and siblings"
        )
    cases = tuple(
        Case(
            id=name,
            patient=_TIME_POINT.sub("", name),
            images={c: found[c] for c in CHANNELS if c in found},
            segmentation=found.get("seg"),
            protocol="+".join(c for c in CHANNELS if c in found),  # sites acquire their own set
        )
        for name, found in files.items()
    )
    channels = tuple(c for c in CHANNELS if any(c in case.images for case in cases))
    return Cohort(root.name, _task(cases, channels, modality), cases)


def sequence_of(path: Path) -> str | None:
    """The sequence (or ``seg``) that a file name stands for.

    Example:
        >>> sequence_of(Path("BraTS-GLI-00000-000-t2f.nii.gz"))
        'flair'
    """
    if not path.name.lower().endswith(_SUFFIXES):
        return None
    if vsd := _VSD.search(stem(path)):
        return "seg" if vsd[2] else _WORDS[vsd[1].lower()]
    ending = _ENDING.search(stem(path))
    return _WORDS.get(ending[1].lower()) if ending else None


def _by_name(subjects: list[tuple[Path, dict[str, Path]]]) -> dict[str, dict[str, Path]]:
    count = Counter(folder.name for folder, _ in subjects)
    named = (
        (f.name if count[f.name] == 1 else f"{f.parent.name}_{f.name}", found)
        for f, found in subjects
    )
    return dict(sorted(named))


def _subjects(root: Path) -> Iterable[tuple[Path, dict[str, Path]]]:
    """Subject folders and their files, at most three levels down (HGG/subject/VSD..., subject)."""
    for folder in sorted(p for p in root.glob("*") if p.is_dir()):
        found: dict[str, Path] = {}
        own = [f for f in folder.iterdir() if f.is_file()]
        nested = [f for d in folder.iterdir() if d.is_dir() for f in d.glob("VSD.*.mha")]
        for file in sorted(own + nested):
            sequence = sequence_of(file)
            if sequence is None:
                continue
            if sequence in found:
                raise DataError(
                    f"{file}: a second file for '{sequence}' ({found[sequence].name}); keep one"
                )
            found[sequence] = file
        if any(c in found for c in CHANNELS):
            yield folder, found
        elif folder.name.upper() in {"HGG", "LGG"}:
            yield from _subjects(folder)


def _task(cases: tuple[Case, ...], channels: tuple[str, ...], modality: Modality) -> Task:
    labelled = [c.segmentation for c in cases if c.segmentation is not None]
    if not labelled:
        return Task(modality, channels)
    if not any(_has_sub_regions(path) for path in labelled):
        return Task(modality, channels, ("background", "tumour"), {0: 0, 1: 1}, {"WT": (1,)})
    style_2023 = all(_STYLE_2023.search(stem(path)) for path in labelled)
    values = VALUES_2023 if style_2023 else VALUES_TO_2021
    return Task(modality, channels, CLASSES, values, REGIONS)


def _has_sub_regions(path: Path) -> bool:
    return bool(np.max(load_volume(path, label=True).array) > 1)
