"""Probability maps as other programs write them: nnU-Net's npz, NIfTI in 4-D or file per class.

Nothing is unpickled: of nnU-Net only the arrays are read, and the geometry comes from the label
file, whose grid the map must have.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from penumbra.data import labels as label_tables
from penumbra.data import nifti, tables
from penumbra.data.geometry import load_volume, stem
from penumbra.data.npz import BROKEN, claim
from penumbra.data.scan import refuse_other_grid
from penumbra.data.volume import Volume, by, in_ras, refuse_size
from penumbra.errors import DataError, first_line
from penumbra.types import Task

KEYS = ("probabilities", "softmax")
"""nnU-Net 2 and nnU-Net 1."""
SUM_TOLERANCE = 0.02
"""Half precision over a few dozen classes rounds this far."""
MOST_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class ForeignCase:
    """One predicted case: an npz, a 4-D NIfTI, or a folder with one NIfTI per class."""

    id: str
    prediction: Path
    label: Path


def find_cases(predictions: Path, labels: Path) -> list[ForeignCase]:
    """Every prediction with its label file of the same name, in the order of their names.

    Raises:
        DataError: no prediction is there, one has no label file, or two are of one case.
    """
    if not predictions.is_dir():
        raise DataError(f"{predictions}: no such folder; check the path after --predictions")
    paths = [path for path in sorted(predictions.iterdir()) if _case_of(path) is not None]
    # nnU-Net writes its segmentations beside the probabilities.
    npz = [path for path in paths if path.suffix == ".npz"]
    found: dict[str, Path] = {}
    for path in npz or paths:
        name = str(_case_of(path))
        if name in found:
            raise DataError(f"{path}: of the same case as {found[name].name}; keep one")
        found[name] = path
    if not found:
        raise DataError(
            f"{predictions}: no probability maps; expected <case>.npz (nnU-Net with "
            "--save_probabilities), 4-D <case>.nii.gz, or folders <case>/<class>.nii.gz"
        )
    return [ForeignCase(name, path, _label(labels, name)) for name, path in found.items()]


def read_task(predictions: Path, labels: Path) -> Task | None:
    """Classes and regions from the dataset.json beside predictions or labels; None without one.

    Raises:
        DataError: the file does not name labels.
    """
    for folder in (predictions, labels, labels.parent):
        file = folder / "dataset.json"
        if not file.is_file():
            continue
        return label_tables.described_task("ct", ("image",), tables.read_json(file), file)
    return None


def unnamed_task(classes: int) -> Task:
    """Classes that nobody named: value k is ``label k``."""
    names = {k: "background" if k == 0 else f"label {k}" for k in range(classes)}
    return label_tables.organ_task("ct", ("image",), names)


def read_case(
    case: ForeignCase, task: Task | None
) -> tuple[Float[np.ndarray, "c x y z"], Volume, Task]:
    """Probabilities and label values of a case in RAS+, and the task that they answer.

    Probabilities sum to exactly 1 afterwards. Where only the foreground is there (NIfTI), the
    background is what it leaves.

    Raises:
        DataError: another grid than the labels, not probabilities, or not the task's classes.
    """
    label = load_volume(case.label, label=True)
    if case.prediction.is_dir():
        maps = _class_files(case, label, task)
    elif case.prediction.suffix == ".npz":
        maps = _npz(case.prediction, label)
    else:
        maps = _nifti(case, label)
    task = task or unnamed_task(len(maps))
    return _as_probabilities(maps, case.prediction, task), label, task


def _case_of(path: Path) -> str | None:
    if path.is_dir():
        return path.name if any(path.glob("*.nii*")) else None
    for suffix in (".npz", *nifti.SUFFIXES):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return None


def _label(folder: Path, case: str) -> Path:
    for suffix in nifti.SUFFIXES:
        path = folder / f"{case}{suffix}"
        if path.is_file():
            return path
    raise DataError(f"{folder}: no label {case}.nii.gz for the prediction of {case}; add it")


def _npz(path: Path, label: Volume) -> Float[np.ndarray, "c x y z"]:
    """nnU-Net keeps [class, z, y, x] in the axis order of the image file."""
    try:
        _refuse_burst(path)
        with np.load(path, allow_pickle=False) as archive:
            key = next((k for k in KEYS if k in archive.files), None)
            if key is None:
                raise DataError(
                    f"{path}: holds {', '.join(archive.files) or 'nothing'}; expected "
                    f"'{KEYS[0]}' as nnU-Net writes with --save_probabilities"
                )
            array = archive[key]
    except BROKEN as error:
        raise DataError(
            f"{path}: not a readable npz ({first_line(error)}); predict the case again"
        ) from error
    if array.ndim != 4:
        raise DataError(f"{path}: has {array.ndim} axes; expected class, z, y, x")
    maps = array.transpose(0, 3, 2, 1)
    if maps.shape[1:] != label.file_shape:
        raise DataError(
            f"{path}: shape {by(maps.shape[1:])} (x, y, z) differs from {by(label.file_shape)} of "
            "its label; nnU-Net 1 crops its softmax, export it at the image's full size"
        )
    return np.stack([in_ras(m, label.file_affine, path).array for m in maps]).astype(np.float32)


def _refuse_burst(path: Path) -> None:
    """Sizes as the headers state them, before anything is allocated."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            shape, _ = claim(archive, member)
            refuse_size(shape[-3:], path)
            if len(shape) > 4 or (len(shape) == 4 and shape[0] > MOST_CLASSES):
                raise ValueError(f"it claims the shape {by(shape)}")


def _nifti(case: ForeignCase, label: Volume) -> Float[np.ndarray, "c x y z"]:
    path = case.prediction
    volumes = nifti.read_all(path)
    if len(volumes) == 1:
        raise DataError(
            f"{path}: one volume; expected one probability map per class (4-D). "
            "A label map cannot be calibrated: save the softmax"
        )
    refuse_other_grid(label, volumes[0], case.label, path)
    return np.stack([volume.array for volume in volumes]).astype(np.float32)


def _class_files(
    case: ForeignCase, label: Volume, task: Task | None
) -> Float[np.ndarray, "c x y z"]:
    folder = case.prediction
    if task is None:
        raise DataError(
            f"{folder}: one file per class needs the values of the classes; put a dataset.json "
            '{"labels": {"background": 0, "liver": 1}} beside the predictions'
        )
    found = {stem(p): p for p in folder.glob("*.nii*")}
    plain = {_plain(name): path for name, path in found.items()}
    missing = [name for name in task.classes[1:] if _plain(name) not in plain]
    if missing:
        raise DataError(f"{folder}: no {missing[0]}.nii.gz; every class needs its probability map")
    maps = []
    for name in task.classes[1:]:
        path = plain[_plain(name)]
        volume = load_volume(path)
        refuse_other_grid(label, volume, case.label, path)
        maps.append(volume.array)
    return np.stack(maps).astype(np.float32)


def _plain(name: str) -> str:
    return name.lower().replace(" ", "_")


def _as_probabilities(
    maps: Float[np.ndarray, "k x y z"], path: Path, task: Task
) -> Float[np.ndarray, "c x y z"]:
    classes = len(task.classes)
    low, high = float(maps.min()), float(maps.max())
    if not (np.isfinite(maps).all() and low >= -1e-3 and high <= 1 + 1e-3):
        raise DataError(
            f"{path}: values {low:.3g} to {high:.3g} are not probabilities; save the softmax, "
            "not the logits"
        )
    maps = maps.clip(0, 1)
    total = maps.sum(0)
    if len(maps) == classes - 1 and float(total.max()) <= 1 + SUM_TOLERANCE:
        maps = np.concatenate([np.maximum(1 - total, 0)[None], maps])
        total = maps.sum(0)
    if len(maps) != classes:
        raise DataError(
            f"{path}: {len(maps)} maps, but the task has {classes} classes "
            f"({', '.join(task.classes[:6])}{', ...' if classes > 6 else ''})"
        )
    off = float(np.abs(total - 1).max())
    if off > SUM_TOLERANCE:
        raise DataError(
            f"{path}: probabilities sum to {1 + off:.3g} at worst, not to 1; classes must exclude "
            "each other (softmax), overlapping sigmoid maps cannot be judged as one segmentation"
        )
    return maps / total
