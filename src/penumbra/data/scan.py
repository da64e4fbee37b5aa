"""What the files of one case hold, checked against each other and against the task."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer

from penumbra.data import masks
from penumbra.data.geometry import load_volume, same_grid
from penumbra.data.volume import Volume, by
from penumbra.errors import DataError
from penumbra.types import Case, Task


def read_channels(case: Case, task: Task) -> Mapping[str, Volume]:
    """Channel -> image, for the channels of the task that the case has, all on one grid.

    Raises:
        DataError: the case has none of them, a file cannot be read, or their grids differ.
    """
    names = [c for c in task.channels if c in case.images]
    if not names:
        raise DataError(
            f"case {case.id}: has none of the channels {', '.join(task.channels)}; "
            f"it has {', '.join(case.images) or 'no image at all'}"
        )
    paths = [case.images[c] for c in names]
    volumes: dict[str, Volume] = {}
    for name, path in zip(names, paths, strict=True):
        # Channels that share one 4-D file are its frames, in the order of the channels.
        sharing = [n for n in case.images if case.images[n] == path]
        frame = sharing.index(name) if len(sharing) > 1 else None
        volumes[name] = load_volume(path, frame=frame)
        refuse_other_grid(volumes[names[0]], volumes[name], paths[0], path)
    return volumes


def refuse_other_grid(a: Volume, b: Volume, first: Path, second: Path) -> None:
    """Check that two images share their shape and, to half a voxel, their place in space.

    Raises:
        DataError: they do not; the message names both files.
    """
    if a.array.shape != b.array.shape:
        raise DataError(
            f"{second}: shape {by(b.file_shape)} differs from {by(a.file_shape)} of {first.name}; "
            "resample both to one grid"
        )
    if not same_grid(a, b):
        raise DataError(
            f"{second}: its affine differs from that of {first.name} by more than half a voxel; "
            "register or resample both to one grid, or correct the header"
        )


def finite(
    array: Float[np.ndarray, "*space"], path: Path, notes: list[str]
) -> Float[np.ndarray, "*space"]:
    """The image with NaN and infinite voxels set to its minimum, which ``notes`` then says.

    Raises:
        DataError: no voxel is finite, or all are equal.
    """
    finite = np.isfinite(array)
    if not finite.any():
        raise DataError(f"{path}: every voxel is NaN or infinite; export the image again")
    if not finite.all():
        notes.append(f"{path.name}: {int((~finite).sum())} NaN or infinite voxels set to minimum")
        array = np.where(finite, array, array[finite].min())
    refuse_flat(array, path)
    return array


def refuse_flat(array: Float[np.ndarray, "*space"], path: Path) -> None:
    """Refuse an image, or the part of it that shows the body, in which nothing is to be seen.

    Raises:
        DataError: all voxels are equal.
    """
    if array.min() == array.max():
        raise DataError(
            f"{path}: every voxel is {array.flat[0]:g}, the image is empty; "
            "export it again or remove the case"
        )


def read_labels(case: Case, task: Task, reference: Volume) -> Integer[np.ndarray, "*space"] | None:
    """Class indices in the grid of ``reference``; None where nothing is asked or labelled.

    Raises:
        DataError: the file cannot be read, lies on another grid, or holds a value that the task
            does not know.
    """
    if case.segmentation is None or not task.classes:
        return None
    volume = load_volume(case.segmentation, label=True)
    refuse_other_grid(reference, volume, next(iter(case.images.values())), case.segmentation)
    return class_indices(volume.array, task, case.segmentation)


def class_indices(
    labels: Integer[np.ndarray, "*space"], task: Task, path: Path
) -> Integer[np.ndarray, "*space"]:
    """Label values as class indices, -1 where ignored, in the smallest type that holds them.

    Raises:
        DataError: a value that the task does not know.
    """
    unknown = [int(v) for v in np.unique(labels) if int(v) not in task.label_values]
    if unknown:
        raise DataError(
            f"{path}: label value {unknown[0]} is out of range; the task knows "
            f"{', '.join(map(str, sorted(task.label_values)))}; correct the file or the label table"
        )
    known = np.array(sorted(task.label_values))
    index = np.array(
        [task.label_values[int(v)] for v in known],
        dtype=np.min_scalar_type(-max(2, len(task.classes))),
    )
    return index[np.searchsorted(known, labels)]


def read_regions(
    case: Case, task: Task, shape: tuple[int, ...]
) -> dict[int, Bool[np.ndarray, "*space"]]:
    """Map number -> expert mask that is not empty: 0 the region of interest, 1 + j finding j.

    Raises:
        DataError: a mask cannot be read, or its shape is not ``shape``.
    """
    regions: dict[int, Bool[np.ndarray, "*space"]] = {}
    for name, path in sorted(case.masks.items()):
        finding = masks.finding_of(name)
        if finding == masks.ROI:
            index = 0
        elif finding in task.findings:
            index = 1 + task.findings.index(finding)
        else:
            continue
        mask = masks.read_mask(case, name, path, shape)
        regions[index] = regions[index] | mask if index in regions else mask
    if case.roi is not None:
        regions[0] = masks.read_mask(case, masks.ROI, case.roi, shape)
    return {index: mask for index, mask in regions.items() if mask.any()}
