"""Multi-atlas folders: ``imagesTr/img0001.nii.gz`` with ``labelsTr/label0001.nii.gz``.

Also the official BTCV download (``img/`` and ``label/``, perhaps below ``Training/``). Structure
names come from ``labels`` in dataset.json, or are the numbers themselves.
"""

import re
from pathlib import Path

import numpy as np

from penumbra.data import tables
from penumbra.data.geometry import load_volume
from penumbra.data.thickness import slice_band
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Modality, Task

PAIRS = (("imagesTr", "labelsTr"), ("img", "label"), ("Training/img", "Training/label"))
_NUMBER = re.compile(r"(\d+)$")


def recognises(root: Path) -> bool:
    """Whether there is a folder of images beside a folder of labels."""
    return _folders(root) is not None


def read(root: Path, modality: Modality) -> Cohort:
    """One channel; each structure is its own region.

    Raises:
        DataError: a label without its image, or a label table that is not id -> name.
    """
    folders = _folders(root)
    if folders is None:
        raise DataError(f"{root}: expected imagesTr/ beside labelsTr/ (or img/ beside label/)")
    images, labels = (_by_number(folder) for folder in folders)
    orphans = sorted(set(labels) - set(images))
    if orphans:
        raise DataError(f"{labels[orphans[0]]}: no image with the same number in {folders[0]}")
    cases = tuple(
        Case(
            id=_stem(path),
            patient=_stem(path),
            images={modality: path},
            segmentation=labels.get(key),
            protocol=slice_band(path, modality),
        )
        for key, path in sorted(images.items())
    )
    if not cases:
        raise DataError(f"{folders[0]}: no .nii.gz files")
    names = _names(root, list(labels.values()))
    order = sorted(names)
    return Cohort(
        root.name,
        Task(
            modality,
            (modality,),
            tuple(names[v] for v in order),
            {value: index for index, value in enumerate(order)},
            {names[v]: (index,) for index, v in enumerate(order) if index > 0},
        ),
        cases,
    )


def _folders(root: Path) -> tuple[Path, Path] | None:
    for images, labels in PAIRS:
        if (root / images).is_dir() and (root / labels).is_dir():
            return root / images, root / labels
    return None


def _by_number(folder: Path) -> dict[str, Path]:
    """Files by the number at the end of their name, which an image shares with its label."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.nii*")):
        number = _NUMBER.search(_stem(path))
        key = number[1] if number else _stem(path)
        if key in found:
            raise DataError(f"{path}: has the same number as {found[key].name}; keep one")
        found[key] = path
    return found


def _names(root: Path, labels: list[Path]) -> dict[int, str]:
    description = root / "dataset.json"
    tree = tables.read_json(description) if description.is_file() else {}
    given = tree.get("labels") if isinstance(tree, dict) else None
    if given:
        return label_names(given, description)
    values = {0}
    for path in labels:
        values.update(int(v) for v in np.unique(load_volume(path, label=True).array))
    return {v: "background" if v == 0 else f"label {v}" for v in sorted(values)}


def label_names(given: object, source: Path) -> dict[int, str]:
    """Label value -> name, with 0 the background, from MSD's ``{"1": "liver"}``.

    Raises:
        DataError: not such a mapping.
    """
    try:
        names = {int(value): str(name) for value, name in dict(given).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise DataError(
            f'{source}: labels must map values to names, {{"0": "background", "1": "liver"}}'
        ) from error
    names.setdefault(0, "background")
    return names


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")
