"""MedMNIST archives: one .npz with ``train_images``, ``train_labels``, and so for val and test.

A film has no file of its own; its path is ``<archive>.npz/<part>_images/<number>``. Patients are
not given, so every film counts as its own.
"""

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from penumbra.data.npz import BROKEN, claim
from penumbra.data.radiograph import assumed_affine
from penumbra.data.volume import Volume, by, refuse_size
from penumbra.errors import DataError, first_line
from penumbra.types import Case, Cohort, Modality, Part, Task

PARTS: tuple[Part, ...] = ("train", "val", "test")
CHANNEL = "radiograph"
MAX_BYTES = 2**33
"""Of a part's films, which are read together: ChestMNIST's 78,468 at 224 pixels take 3.9 GB."""


def recognises(root: Path) -> bool:
    """Whether the folder holds one .npz archive, or is one."""
    return _archive(root) is not None


def read(root: Path, modality: Modality) -> Cohort:
    """Films with findings: a lone 0/1 label is the finding ``positive``, several get numbers.

    Raises:
        DataError: no such archive, no films in it, or labels that are not 0 and 1 for each film.
    """
    archive = _archive(root)
    if archive is None:
        raise DataError(f"{root}: expected one MedMNIST archive (.npz)")
    cases: list[Case] = []
    width = 0
    for part in PARTS:
        films, labels = _shape(archive, f"{part}_images"), _array(archive, f"{part}_labels")
        if len(labels) != films[0] or labels.ndim > 2:
            raise DataError(
                f"{archive}: {part}_labels is {by(labels.shape)}, {part}_images {by(films)}; "
                "each film needs a row of labels"
            )
        labels = labels[:, None] if labels.ndim == 1 else labels
        width = labels.shape[1]
        if not np.isin(labels, (0, 1)).all():
            raise DataError(
                f"{archive}: {part}_labels holds {labels.max()}; only 0/1 labels are read, "
                "turn several classes into one column each"
            )
        cases += [
            Case(
                id=f"{part}_{number:05d}",
                patient=f"{part}_{number:05d}",
                images={CHANNEL: archive / f"{part}_images" / str(number)},
                findings=dict(zip(_findings(width), map(float, row), strict=True)),
                part=part,
            )
            for number, row in enumerate(labels)
        ]
    if not cases:
        raise DataError(f"{archive}: holds no films")
    return Cohort(archive.stem, Task(modality, (CHANNEL,), findings=_findings(width)), tuple(cases))


def holds(path: Path) -> bool:
    """Whether a path points into an archive."""
    return len(path.parents) > 1 and path.parents[1].suffix == ".npz" and path.parents[1].is_file()


def read_film(path: Path) -> Volume:
    """One film of an archive as [rows, columns].

    Raises:
        DataError: no such film, or it is not grey.
    """
    films = _array(path.parents[1], path.parent.name)
    if not path.name.isdigit() or int(path.name) >= len(films) or films.ndim != 3:
        raise DataError(f"{path}: no such grey film; {path.parent.name} is {films.shape}")
    film = films[int(path.name)].astype(np.float32)
    affine = assumed_affine(film.shape)
    return Volume(film, affine, film.shape, affine, full_scale=255.0)


def _findings(width: int) -> tuple[str, ...]:
    return ("positive",) if width == 1 else tuple(f"label {k}" for k in range(width))


def _archive(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix == ".npz" else None
    found = sorted(root.glob("*.npz"))
    return found[0] if len(found) == 1 else None


def _array(archive: Path, name: str) -> np.ndarray:
    return _cached(archive, name, archive.stat().st_mtime_ns)


@lru_cache(maxsize=2)  # films are read in their order, and a part of them may fill gigabytes
def _cached(archive: Path, name: str, changed_ns: int) -> np.ndarray:
    _shape(archive, name)
    try:
        with np.load(archive, allow_pickle=False) as arrays:
            return arrays[name]
    except BROKEN as error:
        raise _damaged(archive, name, error) from error


def _shape(archive: Path, name: str) -> tuple[int, ...]:
    """Of an array, which is not read for it; one that is too large is refused."""
    try:
        with zipfile.ZipFile(archive) as file:
            shape, size = claim(file, f"{name}.npy")
        if not shape:
            raise ValueError("one number, no list")
    except BROKEN as error:
        raise _damaged(archive, name, error) from error
    if size > MAX_BYTES:
        raise DataError(
            f"{archive}: '{name}' takes {size} bytes, more than the {MAX_BYTES} that are read "
            "together; take smaller films or split the archive"
        )
    refuse_size(shape[1:] or (1,), archive)
    return shape


def _damaged(archive: Path, name: str, error: Exception) -> DataError:
    return DataError(
        f"{archive}: '{name}' cannot be read ({first_line(error)}); download the archive again"
    )
