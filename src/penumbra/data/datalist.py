"""Data sets described by a dataset.json: the Medical Segmentation Decathlon and nnU-Net 1 and 2.

MSD lists ``training: [{image, label}]`` and may keep its channels in one 4-D file; nnU-Net has one
file per channel, ``imagesTr/<case>_0000.nii.gz``. Cases under imagesTs count when they have labels.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from penumbra.data import labels, tables
from penumbra.data.acquisition import protocol_of
from penumbra.data.geometry import stem
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Modality, Part

_CHANNEL_FILE = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_ENDINGS = (".nii.gz", ".nii", ".mha", ".png", ".tif")


def recognises(root: Path) -> bool:
    """Whether a dataset.json lists its cases, or stands beside nnU-Net's numbered channels."""
    file = root / "dataset.json"
    if not file.is_file():
        return False
    tree = tables.read_json(file)
    if not isinstance(tree, dict):
        return False
    return bool(tree.get("training")) or "channel_names" in tree or bool(_channel_files(root, "Tr"))


def read(root: Path, modality: Modality) -> Cohort:
    """Cases and task as the dataset.json describes them.

    Raises:
        DataError: it names no channels or labels, or files that do not exist.
    """
    file = root / "dataset.json"
    tree = tables.read_json(file)
    if not isinstance(tree, dict):
        raise DataError(f"{file}: expected a mapping with 'labels' and 'training'")
    channels = _channels(tree, file, modality)
    split = bool(_channel_files(root, "Tr"))
    cases = _from_names(root, channels) if split else _from_list(root, tree, file, channels)
    if not cases:
        raise DataError(f"{root}: dataset.json is there, but no image in imagesTr")
    cases = [
        replace(c, protocol=protocol_of(next(iter(c.images.values())), modality)) for c in cases
    ]
    task = labels.described_task(modality, channels, tree, file)
    return Cohort(str(tree.get("name") or root.name), task, tuple(cases))


def _channels(tree: dict[str, Any], file: Path, modality: Modality) -> tuple[str, ...]:
    named = tree.get("channel_names") or tree.get("modality") or {"0": modality}
    try:
        channels = tuple(str(named[key]) for key in sorted(named, key=int))
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f'{file}: channels must be {{"0": "T1", "1": "T2"}}') from error
    if len(set(channels)) < len(channels):
        return tuple(f"{name} {k}" for k, name in enumerate(channels))
    return channels


def _from_list(
    root: Path, tree: dict[str, Any], file: Path, channels: tuple[str, ...]
) -> list[Case]:
    cases = []
    listed = tree.get("training") or []
    if not isinstance(listed, list):
        raise DataError(f"{file}: 'training' must be a list of images and labels")
    for number, entry in enumerate(listed):
        where = f"{file}, training[{number}]"
        if not isinstance(entry, dict) or "image" not in entry:
            raise DataError(f'{where}: expected {{"image": ..., "label": ...}}')
        image = _existing(root, entry["image"], where)
        label = entry.get("label")
        cases.append(
            Case(
                id=stem(image),
                patient=stem(image),
                images=dict.fromkeys(channels, image),
                segmentation=_existing(root, label, where) if label else None,
            )
        )
    return cases


def _from_names(root: Path, channels: tuple[str, ...]) -> list[Case]:
    cases = []
    folders: tuple[tuple[str, Part | None], ...] = (("Tr", None), ("Ts", "test"))
    for suffix, part in folders:
        for case, files in _channel_files(root, suffix).items():
            if max(files) >= len(channels):
                raise DataError(
                    f"{files[max(files)]}: channel {max(files)}, but dataset.json names only "
                    f"{len(channels)}"
                )
            label = _label(root / f"labels{suffix}", case)
            if label is None and suffix == "Ts":
                continue
            images = {channels[k]: path for k, path in sorted(files.items())}
            cases.append(Case(case, case, images, label, part=part))
    return cases


def _channel_files(root: Path, suffix: str) -> dict[str, dict[int, Path]]:
    """case -> channel number -> file, in imagesTr or imagesTs."""
    found: dict[str, dict[int, Path]] = {}
    folder = root / f"images{suffix}"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        named = _CHANNEL_FILE.match(stem(path)) if path.name.endswith(_ENDINGS) else None
        if named:
            found.setdefault(named["case"], {})[int(named["channel"])] = path
    return found


def _label(folder: Path, case: str) -> Path | None:
    return next((p for e in _ENDINGS if (p := folder / f"{case}{e}").is_file()), None)


def _existing(root: Path, text: object, where: str) -> Path:
    path = root / str(text)
    if not tables.is_file(path):
        raise DataError(f"{where}: {path} does not exist; copy it there or remove the entry")
    return path
