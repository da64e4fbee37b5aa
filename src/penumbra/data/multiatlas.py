"""Multi-atlas folders: ``imagesTr/img0001.nii.gz`` with ``labelsTr/label0001.nii.gz``.

Also the official BTCV download (``img/`` and ``label/``, perhaps below ``Training/``). Structure
names come from ``labels`` in dataset.json, or are the numbers themselves.
"""

import re
from pathlib import Path

from penumbra.data import labels
from penumbra.data.acquisition import protocol_of
from penumbra.data.geometry import stem
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Modality

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
    images, segmentations = (_by_number(folder) for folder in folders)
    orphans = sorted(set(segmentations) - set(images))
    if orphans:
        raise DataError(
            f"{segmentations[orphans[0]]}: no image with the same number in {folders[0]}"
        )
    cases = tuple(
        Case(
            id=stem(path),
            patient=stem(path),
            images={modality: path},
            segmentation=segmentations.get(key),
            protocol=protocol_of(path, modality),
        )
        for key, path in sorted(images.items())
    )
    if not cases:
        raise DataError(f"{folders[0]}: no .nii.gz files")
    names = labels.names_of(root, segmentations.values())
    return Cohort(root.name, labels.organ_task(modality, (modality,), names), cases)


def _folders(root: Path) -> tuple[Path, Path] | None:
    pairs = ((root / images, root / label_folder) for images, label_folder in PAIRS)
    return next((p for p in pairs if p[0].is_dir() and p[1].is_dir()), None)


def _by_number(folder: Path) -> dict[str, Path]:
    """Files by the number at the end of their name, which an image shares with its label."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.nii*")):
        number = _NUMBER.search(stem(path))
        key = number[1] if number else stem(path)
        if key in found:
            raise DataError(f"{path}: has the same number as {found[key].name}; keep one")
        found[key] = path
    return found
