"""Prepared cases on disk, memory-mapped: reading a slice touches that slice.

One folder per case, named by a hash of its files, the task and the settings that shape it, so
a changed file or setting makes a new folder and nothing else is built again. A folder is written
beside its place and renamed, so it is whole or absent; a damaged one is found by its checksums.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penumbra.config import Data
from penumbra.data import medmnist
from penumbra.data.geometry import Geometry
from penumbra.data.preprocess import Prepared, prepare
from penumbra.errors import DataError, WriteError
from penumbra.files import building, sweep
from penumbra.types import Case, Cohort, Task

FORMAT = 3
"""Part of every key: raise it when what ``prepare`` gives changes."""

_ARRAYS = ("image", "segmentation", "body", "masks", "foreground")
_OPEN = 64
_WHOLE_FILE_BYTES = 2**20


class Store:
    """The prepared cases of a cohort, opened on demand.

    Attributes:
        task: of the cohort.
        cases: those that could be prepared, in the order of the cohort.
        skipped: case id -> why it could not be read (``on_error: skip``).
        protocols: the acquisition protocols that occur, sorted; the index is the label.
        patients: the patients that occur, sorted; the index is the label.
        dim: 2 when volumes are read slice by slice (and for radiographs), else 3.
    """

    def __init__(
        self,
        task: Task,
        cases: Sequence[Case],
        folders: Sequence[Path],
        *,
        dim: int,
        skipped: dict[str, str],
    ) -> None:
        self.task = task
        self.dim = dim
        self.cases = tuple(cases)
        self.skipped = skipped
        self.protocols = tuple(sorted({c.protocol for c in cases if c.protocol is not None}))
        self.patients = tuple(sorted({c.patient for c in cases}))
        self._folders = tuple(folders)
        self._open: OrderedDict[int, Prepared] = OrderedDict()

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> Prepared:
        """A case with memory-mapped arrays (image float16); the last 64 stay open."""
        if index in self._open:
            self._open.move_to_end(index)
            return self._open[index]
        prepared = _open(self._folders[index], self.cases[index], self.task)
        self._open[index] = prepared
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return prepared

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def indices(self, part: str | None) -> tuple[int, ...]:
        """Positions of the cases of one part; all of them for ``None``."""
        return tuple(i for i, c in enumerate(self.cases) if part is None or c.part == part)


def build(
    cohort: Cohort,
    settings: Data,
    folder: Path,
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Store:
    """Prepare every case that is not in the store yet, and open the store.

    Args:
        folder: where prepared cases lie; several cohorts and settings may share it.
        progress: called as (done, of, case id) after each case.

    Raises:
        DataError: a case cannot be read and ``settings.on_error`` is "stop", or none can be.
        WriteError: the folder cannot be written, whatever ``on_error`` says.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"{folder}: cannot be created ({error.strerror}); choose another"
        ) from error
    sweep(folder)
    cases, folders, skipped = [], [], {}
    for number, case in enumerate(cohort.cases, start=1):
        try:
            place = folder / key_of(case, cohort.task, settings)
            if not is_whole(place):
                _write(prepare(case, cohort.task, settings), place)
        except DataError as error:
            if settings.on_error == "stop" or isinstance(error, WriteError):
                raise
            skipped[case.id] = str(error)
        else:
            cases.append(case)
            folders.append(place)
        if progress is not None:
            progress(number, len(cohort.cases), case.id)
    if not cases:
        first = next(iter(skipped.values()), "the cohort has no cases")
        raise DataError(f"{cohort.name}: no case could be prepared; the first: {first}")
    return Store(cohort.task, cases, folders, dim=settings.dim, skipped=skipped)


def key_of(case: Case, task: Task, settings: Data) -> str:
    """Name of a case's folder: a hash of its files' content and of all that shapes the result."""
    paths = [*case.images.values(), case.segmentation, *case.masks.values(), case.roi]
    facts = {
        "format": FORMAT,
        "id": case.id,
        "images": sorted(case.images),
        "masks": list(case.masks),  # as their files are listed
        "files": [None if p is None else fingerprint(p) for p in paths],
        "task": [task.modality, task.channels, task.classes, sorted(task.label_values.items())],
        "findings": task.findings,
        "spacing_mm": settings.spacing_mm,
        "image_size": settings.image_size,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def fingerprint(path: Path) -> str:
    """A hash that changes with a file's content.

    Small files are hashed whole. Of larger ones the size and both ends: a gzip file ends with the
    checksum of what it holds; for others the time of change stands in for the middle.

    Raises:
        DataError: the file does not exist or cannot be read.
    """
    if medmnist.holds(path):
        film = medmnist.read_film(path).array
        return hashlib.sha256(film.tobytes()).hexdigest()
    try:
        if path.is_dir():
            inside = [fingerprint(p) for p in sorted(path.rglob("*")) if p.is_file()]
            return hashlib.sha256("".join(inside).encode()).hexdigest()
        facts = path.stat()
        with path.open("rb") as file:
            if facts.st_size <= _WHOLE_FILE_BYTES:
                return hashlib.sha256(file.read()).hexdigest()
            ends = file.read(65536)
            file.seek(-65536, os.SEEK_END)
            ends += file.read()
        changed = 0 if path.name.endswith(".gz") else facts.st_mtime_ns
        return hashlib.sha256(ends + f"{facts.st_size} {changed}".encode()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def is_whole(place: Path) -> bool:
    """Whether a case's folder is there, with the checksums it was written with."""
    try:
        meta = json.loads((place / "meta.json").read_text())
        return all(_checksum(place / name) == crc for name, crc in meta["checksums"].items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _write(prepared: Prepared, place: Path) -> None:
    try:
        with building(place) as temporary:
            try:
                _fill(prepared, temporary)
                if place.exists():
                    shutil.rmtree(place)  # damaged
                temporary.rename(place)
            except OSError:
                if not is_whole(place):  # else another process was first, which is as good
                    raise
    except OSError as error:
        raise WriteError(
            f"{place}: cannot be written ({error.strerror}); free space or choose another folder"
        ) from error


def _fill(prepared: Prepared, folder: Path) -> None:
    for name in _ARRAYS:
        array = getattr(prepared, name)
        if array is not None:
            stored = array.astype(np.float16) if name == "image" else array
            np.save(folder / f"{name}.npy", np.asfortranarray(stored))
    g = prepared.geometry
    meta = {
        "case": prepared.id,
        "mapped": prepared.mapped,
        "body_box": prepared.body_box,
        "missing": prepared.missing,
        "notes": prepared.notes,
        "geometry": {
            "file_shape": g.file_shape,
            "file_affine": g.file_affine.tolist(),
            "full": g.full,
            "crop": g.crop,
            "content": g.content,
            "shape": g.shape,
            "affine": g.affine.tolist(),
        },
        "checksums": {p.name: _checksum(p) for p in sorted(folder.glob("*.npy"))},
    }
    (folder / "meta.json").write_text(json.dumps(meta))


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(2**22):
            crc = zlib.crc32(chunk, crc)
    return crc


def _open(folder: Path, case: Case, task: Task) -> Prepared:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        arrays: dict[str, Any] = {
            # As plain arrays: numpy's own class for maps costs more than a small patch.
            name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
            if f"{name}.npy" in meta["checksums"]
            else None
            for name in _ARRAYS
        }
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{folder}: the prepared case {case.id} is damaged; remove the folder and run again"
        ) from error
    g = meta["geometry"]
    placed = Geometry(
        file_shape=tuple(g["file_shape"]),
        file_affine=np.array(g["file_affine"]),
        full=tuple(g["full"]),
        crop=_box(g["crop"]),
        content=_box(g["content"]),
        shape=tuple(g["shape"]),
        affine=np.array(g["affine"]),
    )
    return Prepared(
        case=case,
        findings=np.array([case.findings.get(f, np.nan) for f in task.findings], dtype=np.float32),
        mapped=tuple(meta["mapped"]),
        geometry=placed,
        body_box=_box(meta["body_box"]),
        missing=tuple(meta["missing"]),
        notes=tuple(meta["notes"]),
        **arrays,
    )


def _box(pairs: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(low), int(high)) for low, high in pairs)
