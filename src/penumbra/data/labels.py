"""Label tables: what the values in a segmentation file stand for."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from penumbra.data import tables
from penumbra.data.geometry import load_volume
from penumbra.errors import DataError
from penumbra.types import IGNORE, Modality, Task


def names_of(root: Path, segmentations: Iterable[Path]) -> dict[int, str]:
    """Value -> name, from dataset.json or labels.json in the folder, else from the files' values.

    Raises:
        DataError: the table is not readable as value -> name.
    """
    for file in ("labels.json", "dataset.json"):
        description = root / file
        if description.is_file():
            tree = tables.read_json(description)
            table = tree if isinstance(tree, dict) else {"labels": tree}
            given = table.get("labels", table if file == "labels.json" else None)
            if given:
                return from_msd(given, description)
    values = {0}
    for path in segmentations:
        values.update(int(v) for v in np.unique(load_volume(path, label=True).array))
    return {v: "background" if v == 0 else f"label {v}" for v in sorted(values)}


def described_task(
    modality: Modality, channels: tuple[str, ...], tree: object, source: Path
) -> Task:
    """The task of a dataset.json, in the Decathlon's or in nnU-Net's way of naming labels.

    Raises:
        DataError: it does not name labels.
    """
    given = tree.get("labels") if isinstance(tree, dict) else None
    if not isinstance(given, dict) or not given:
        raise DataError(f"{source}: no 'labels'; expected names and values of the structures")
    if all(str(key).lstrip("-").isdigit() for key in given):
        return organ_task(modality, channels, from_msd(given, source))
    return nnunet_task(modality, channels, given, source)


def from_msd(given: object, source: Path) -> dict[int, str]:
    """``{"0": "background", "1": "liver"}`` of the Medical Segmentation Decathlon.

    Raises:
        DataError: not such a mapping, or a name given twice.
    """
    try:
        names = {int(value): str(name) for value, name in dict(given).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise DataError(
            f'{source}: labels must map values to names, {{"0": "background", "1": "liver"}}'
        ) from error
    names.setdefault(0, "background")
    if len(set(names.values())) < len(names):
        raise DataError(f"{source}: two labels have the same name; give each its own")
    return names


def organ_task(
    modality: Modality,
    channels: tuple[str, ...],
    names: Mapping[int, str],
    findings: tuple[str, ...] = (),
) -> Task:
    """A task in which each structure is its own class and its own evaluated region."""
    order = sorted(names, key=lambda value: (value != 0, value))
    return Task(
        modality,
        channels,
        tuple(names[v] for v in order),
        {value: index for index, value in enumerate(order)},
        {names[v]: (index,) for index, v in enumerate(order) if index > 0},
        findings,
    )


def nnunet_task(modality: Modality, channels: tuple[str, ...], given: object, source: Path) -> Task:
    """nnU-Net 2: ``{"background": 0, "tumor core": [1, 3], "ignore": 4}``.

    A name with several values is a region, their union; every single value is a class, named after
    the first name that has it alone.

    Raises:
        DataError: not such a mapping.
    """
    try:
        table = {
            str(name): tuple(int(v) for v in (value if isinstance(value, list) else [value]))
            for name, value in dict(given).items()  # type: ignore[call-overload]
        }
    except (TypeError, ValueError) as error:
        raise DataError(
            f'{source}: labels must map names to values, {{"background": 0, "liver": 1}}'
        ) from error
    ignored = table.pop("ignore", ())
    values = sorted({0, *(v for group in table.values() for v in group)})
    alone = {group[0]: name for name, group in reversed(table.items()) if len(group) == 1}
    classes = tuple(alone.get(v, "background" if v == 0 else f"label {v}") for v in values)
    index = {value: k for k, value in enumerate(values)}
    regions = {
        name: tuple(index[v] for v in group) for name, group in table.items() if group != (0,)
    }
    return Task(modality, channels, classes, index | dict.fromkeys(ignored, IGNORE), regions)
