"""Slices and patches for training, whole cases for evaluation, as plain dictionaries.

A two-dimensional patch of a volume is a three-dimensional one that is a single slice thick, so
radiographs, slices and volumes share this code. What lies beyond the scan is padding: background
value, label ``IGNORE``, ``valid`` and ``body`` false.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

from penumbra.config import Data
from penumbra.data.preprocess import AIR_FLOOR_HU, Prepared
from penumbra.data.store import Store
from penumbra.types import IGNORE

Batch = dict[str, Tensor]


class Patches(Dataset[Batch]):
    """Random patches of some cases of a store; the key is the only source of chance.

    ``patches[key]`` is a function of (seed, key) alone, whatever was read before and in whichever
    process: case ``key % n`` of a permutation that is drawn anew for every epoch ``key // n``, and
    a patch in it drawn from ``default_rng((seed, 1, key))``. Keys may exceed ``len``:
    they are step * batch + i.
    """

    def __init__(self, store: Store, indices: Sequence[int], *, settings: Data, seed: int) -> None:
        if not indices:
            raise ValueError("no cases to draw patches from; is this part of the split empty?")
        self.store = store
        self.indices = tuple(indices)
        self.settings = settings
        self.seed = seed
        self._epoch = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def case_of(self, key: int) -> str:
        """The id of the case that ``self[key]`` is cut from."""
        return self.store.cases[self._index(key)].id

    def _index(self, key: int) -> int:
        epoch, place = divmod(int(key), len(self.indices))
        if self._epoch[0] != epoch:  # a permutation of thousands costs more than a small film
            rng = np.random.default_rng((self.seed, 0, epoch))
            self._epoch = epoch, rng.permutation(len(self.indices))
        return self.indices[self._epoch[1][place]]

    def __getitem__(self, key: int) -> Batch:
        index = self._index(key)
        prepared = self.store[index]
        rng = np.random.default_rng((self.seed, 1, key))
        thick = len(prepared.geometry.shape) - len(self.settings.patch)
        patch = (*self.settings.patch, *(1,) * thick)
        centre = _draw_centre(prepared, patch, self.settings.foreground, rng)
        start = tuple(
            _start(n, p, c) for n, p, c in zip(prepared.geometry.shape, patch, centre, strict=True)
        )
        item = _cut(self.store, index, start, patch)
        return {k: v.squeeze(-1) if k in _SPATIAL and thick else v for k, v in item.items()}


def whole(store: Store, index: int) -> Batch:
    """A whole case as a batch: for ``store.dim`` 2 one row per slice (or the radiograph), else one.

    Rows of a volume are its axial slices from the feet upward; stack predictions along the last
    axis and give them to ``preprocess.restore``.
    """
    prepared = store[index]
    shape = prepared.geometry.shape
    item = _cut(store, index, (0,) * len(shape), shape)
    if len(shape) == store.dim:
        return {k: v[None] for k, v in item.items()}
    slices = shape[-1]
    batch = {}
    for name, value in item.items():
        if name in _SPATIAL:
            batch[name] = value.movedim(-1, 0)
        elif name == "position":
            batch[name] = value.repeat(slices, 1)
            middles = np.arange(slices, dtype=np.float32) + np.float32(0.5)
            ends = np.array(prepared.body_box[-1], dtype=np.float32)
            batch[name][:, -1] = torch.from_numpy(_fraction_of(middles, *ends))
        else:
            batch[name] = value.expand(slices, *value.shape)
    return batch


_SPATIAL = ("image", "segmentation", "body", "valid", "masks")


def _draw_centre(
    prepared: Prepared, patch: Sequence[int], foreground: float, rng: np.random.Generator
) -> tuple[int, ...]:
    """A labelled voxel, moved by up to a quarter patch, or any voxel of the body's box.

    Class, then slice, then voxel: rare classes and slices are met as often as large ones.
    """
    box = prepared.body_box
    rows = prepared.foreground
    if rng.random() >= foreground or len(rows) == 0:
        return tuple(int(rng.integers(low, high)) for low, high in box)
    rows = rows[rows[:, 0] == rng.choice(np.unique(rows[:, 0]))]
    rows = rows[rows[:, -1] == rng.choice(np.unique(rows[:, -1]))]
    voxel = rows[rng.integers(len(rows)), 1:]
    moved = []
    for v, p, (low, high) in zip(voxel.tolist(), patch, box, strict=True):
        at = int(v) + int(rng.integers(-(p // 4), p // 4 + 1))
        moved.append(min(max(at, min(low, v)), max(high - 1, v)))  # np.clip takes 20 times as long
    return tuple(moved)


def _start(size: int, patch: int, centre: int) -> int:
    """First voxel of the patch: inside the scan when it fits, else the scan lies in its middle."""
    if patch >= size:
        return -((patch - size) // 2)
    return min(max(centre - patch // 2, 0), size - patch)


def _cut(store: Store, index: int, start: Sequence[int], patch: Sequence[int]) -> Batch:
    prepared, task = store[index], store.task
    shape = prepared.geometry.shape
    inside = tuple(
        slice(max(0, s), min(n, s + p)) for s, p, n in zip(start, patch, shape, strict=True)
    )
    # Where that lies in the patch. Small patches cost as many microseconds as there are calls, so
    # all arrays are made in their last size and filled once.
    place = tuple(slice(w.start - s, w.stop - s) for w, s in zip(inside, start, strict=True))
    channels, maps = len(prepared.image), 1 + len(task.findings)
    background = AIR_FLOOR_HU if task.modality == "ct" else 0.0
    item = {
        "image": np.full((channels, *patch), background, dtype=np.float32),
        "body": np.zeros(patch, dtype=bool),
        "valid": np.zeros(patch, dtype=bool),
        "position": _position(prepared, inside),
        "extent": _extent(prepared, inside),
        "protocol": _index(store.protocols, prepared.case.protocol),
        "case": np.array(index),
        "patient": _index(store.patients, prepared.case.patient),
        "masks": np.zeros((maps, *patch), dtype=np.float32),
        "annotated": np.zeros(maps, dtype=bool),
    }
    item["image"][:, *place] = prepared.image[:, *inside]
    item["body"][place] = prepared.body[inside]
    item["valid"][_content(prepared, start)] = True
    for row, index_of_map in enumerate(prepared.mapped):
        item["masks"][index_of_map][place] = prepared.masks[row][inside] / np.float32(255)
        item["annotated"][index_of_map] = True
    if task.classes:
        item["segmentation"] = np.full(patch, IGNORE, dtype=np.int64)
        if prepared.segmentation is not None:
            item["segmentation"][place] = prepared.segmentation[inside]
            item["masks"][0] = item["segmentation"] > 0
            item["annotated"][0] = True
    if task.findings:
        item["findings"] = prepared.findings
    return {name: torch.from_numpy(value) for name, value in item.items()}


def _content(prepared: Prepared, start: Sequence[int]) -> tuple[slice, ...]:
    """Where a patch shows the scan: not beyond it, nor the padding of a resized radiograph."""
    box = prepared.geometry.content
    return tuple(slice(max(0, a - s), max(0, b - s)) for (a, b), s in zip(box, start, strict=True))


def _position(prepared: Prepared, inside: tuple[slice, ...]) -> Float[np.ndarray, " axes"]:
    centre = np.array([(w.start + w.stop) / 2 for w in inside], dtype=np.float32)
    return _fraction_of(centre, *np.array(prepared.body_box, dtype=np.float32).T)


def _extent(prepared: Prepared, inside: tuple[slice, ...]) -> Float[np.ndarray, " axes"]:
    """The cut's sides over the body's."""
    body = [high - low for low, high in prepared.body_box]
    sides = [(w.stop - w.start) / n for w, n in zip(inside, body, strict=True)]
    return np.array(sides, dtype=np.float32)


def _fraction_of(
    centre: Float[np.ndarray, "..."], first: ArrayLike, last: ArrayLike
) -> Float[np.ndarray, "..."]:
    """Where a coordinate lies between the body's ends: 0 at the first, 1 at the last."""
    share = (centre - first) / (np.asarray(last) - first)
    return np.minimum(np.maximum(share, 0, dtype=np.float32), 1, dtype=np.float32)


def _index(names: Sequence[str], name: str | None) -> Shaped[np.ndarray, ""]:
    return np.array(-1 if name is None else names.index(name))
