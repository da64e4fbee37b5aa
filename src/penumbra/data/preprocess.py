"""One case, from its files to arrays on the grid and in the units on which everything else works.

Read in RAS+, check, crop to the body, resample, bring to stored units:
CT in HU, MRI and X-ray as fractions of the display range (see ``penumbra.types``).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped, UInt8

from penumbra.config import Data
from penumbra.data import geometry, scan
from penumbra.data.body import body_mask, bounding_box
from penumbra.data.geometry import Box, Geometry
from penumbra.data.volume import Volume
from penumbra.errors import DataError
from penumbra.types import IGNORE, Case, Modality, Task

AIR_FLOOR_HU = -1024.0
"""Values below are the scanner's padding outside its circle, not tissue."""

CEILING_HU = float(np.finfo(np.float16).max)
"""65,504, the largest value that the store's half precision holds; metal lies far below."""

PERCENTILES = (0.5, 99.5)
"""Of the body's voxels; they become 0 and 1 in MRI (proposal 2.2.3: eps in this range)."""

MARGIN = 2
"""Voxels kept around the body when cropping."""

_FOREGROUND_PER_SLICE = 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """A case as arrays; in memory from ``prepare``, memory-mapped from the store.

    Attributes:
        image: stored units; a channel that the case lacks is zero and named in ``missing``.
        segmentation: class index, ``IGNORE`` where nothing is known.
        findings: one value per finding of the task: 1, 0, -1 uncertain, NaN not stated.
        body: inside the body and inside the scan.
        masks: expert regions as 0..255 for 0..1; ``mapped[k]`` is the map that row k belongs to:
            0 the region of interest, 1 + j finding j.
        foreground: rows (class or map, voxel index ...) of up to 16 labelled voxels per class and
            slice, from which patches are centred.
        body_box: bounding box of the body.
        notes: what was repaired while reading.
    """

    case: Case
    image: Float[np.ndarray, "c *space"]
    segmentation: Integer[np.ndarray, "*space"] | None
    findings: Float[np.ndarray, " f"]
    body: Bool[np.ndarray, "*space"]
    masks: UInt8[np.ndarray, "k *space"]
    mapped: tuple[int, ...]
    geometry: Geometry
    foreground: Integer[np.ndarray, "n axes"]
    body_box: Box
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.case.id

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        return self.geometry.spacing_mm


def prepare(case: Case, task: Task, settings: Data) -> Prepared:
    """Read one case and bring it to the grid and the units of the store.

    Works without labels too, for prediction. A radiograph has two space axes, a volume three even
    when the task is slice-wise; slices are taken along the last axis.

    Raises:
        DataError: a file is unreadable; images and labels do not share a grid; an image is all NaN
            or constant; it has more or fewer axes than the task reads; a label value is not one of
            the task's. The message names file and remedy.
    """
    volumes = scan.read_channels(case, task)
    reference = next(iter(volumes.values()))
    shape = reference.array.shape
    _refuse_dim(len(shape), case.images[next(iter(volumes))], task, settings)
    notes: list[str] = []
    image = np.stack(
        [
            scan.finite(volumes[c].array, case.images[c], notes)
            if c in volumes
            else np.zeros(shape)
            for c in task.channels
        ],
        dtype=np.float32,
    )
    present = [k for k, c in enumerate(task.channels) if c in volumes]
    labels = scan.read_labels(case, task, reference)
    regions = scan.read_regions(case, task, shape)
    body = body_mask(image[present], modality=task.modality)
    crop = _crop_box(body, labels, task.modality)
    window = tuple(slice(start, stop) for start, stop in crop)
    image, body = image[:, *window], body[window]
    for k in present:
        scan.refuse_flat(image[k], case.images[task.channels[k]])
    _cut_at_ceiling(image, case, task, notes)
    _to_units(image, body, task.modality, present, reference.full_scale)
    placed = _place(reference, crop, settings, task.modality)
    segmentation = None if labels is None else _fit_labels(labels[window], placed)
    expert = [_fit(region[window].astype(np.float32), placed) for region in regions.values()]
    body = _fit(body.astype(np.float32), placed) > 0.5
    stored_masks = np.stack(expert) if expert else np.zeros((0, *placed.shape))
    stored_masks = np.rint(255 * stored_masks).astype(np.uint8)
    return Prepared(
        case=case,
        image=np.stack([_fit(c, placed) for c in image]),
        segmentation=segmentation,
        findings=np.array([case.findings.get(f, np.nan) for f in task.findings], dtype=np.float32),
        body=body,
        masks=stored_masks,
        mapped=tuple(regions),
        geometry=placed,
        foreground=_foreground(segmentation, stored_masks, tuple(regions), case.id),
        body_box=bounding_box(body),
        missing=tuple(c for c in task.channels if c not in volumes),
        notes=tuple(notes),
    )


def _refuse_dim(dim: int, path: Path, task: Task, settings: Data) -> None:
    if dim < settings.dim:
        raise DataError(f"{path}: a radiograph, but the task is 3-D; set data.dim 2")
    if dim > 2 and task.modality == "xray":
        raise DataError(
            f"{path}: a volume, but the task reads radiographs; give PNG, JPEG, TIFF or a DICOM "
            "radiograph, or choose the modality of the scan"
        )


def restore(
    array: Shaped[np.ndarray, "..."], placed: Geometry, *, fill: float | Sequence[float] = 0.0
) -> Shaped[np.ndarray, "..."]:
    """A map on the prepared grid, brought back to the scan's own shape and axis order.

    The last axes are space; axes before them (classes, draws) are kept. Floating maps are
    interpolated linearly, integer maps class by class; what was cropped away becomes ``fill``, one
    value or one for each map. Write the result with ``placed.file_affine``.
    """
    dim = len(placed.shape)
    leading = array.shape[: array.ndim - dim]
    maps = array.reshape(-1, *array.shape[array.ndim - dim :])
    fills = np.broadcast_to(fill, len(maps))
    back = np.stack(
        [geometry.to_file_grid(m, placed, fill=f) for m, f in zip(maps, fills, strict=True)]
    )
    return back.reshape(*leading, *back.shape[1:])


def _crop_box(
    body: Bool[np.ndarray, "*space"],
    labels: Integer[np.ndarray, "*space"] | None,
    modality: Modality,
) -> Box:
    if modality == "xray":
        return tuple((0, n) for n in body.shape)
    inside = body if labels is None else body | (labels > 0)
    return bounding_box(inside, margin=[MARGIN] * inside.ndim)


def _cut_at_ceiling(
    image: Float[np.ndarray, "c *space"], case: Case, task: Task, notes: list[str]
) -> None:
    """In place, for CT, which is stored in its own unit; ``notes`` then say what was cut."""
    if task.modality != "ct":
        return
    for channel, values in zip(task.channels, image, strict=True):
        above = int((values > CEILING_HU).sum())
        if above:
            notes.append(
                f"{case.images[channel].name}: {above} voxels above {CEILING_HU:.0f} set to it; "
                "are these Hounsfield units?"
            )
            np.minimum(values, CEILING_HU, out=values)


def _to_units(
    image: Float[np.ndarray, "c *space"],
    body: Bool[np.ndarray, "*space"],
    modality: Modality,
    present: list[int],
    full_scale: float | None,
) -> None:
    """In place: HU above the scanner's floor, or fractions of the display range."""
    match modality:
        case "ct":
            np.maximum(image, AIR_FLOOR_HU, out=image)
        case "xray":
            image /= full_scale or max(float(image.max()), 1.0)
        case "mri":
            for k in present:
                # Exact zeros inside the envelope of a skull-stripped brain are not tissue.
                inside = image[k][body & (image[k] > image[k].min())]
                inside = inside if inside.size else image[k].ravel()
                low, high = np.percentile(inside[:: max(1, inside.size // 2**20)], PERCENTILES)
                if high <= low:
                    low, high = image[k].min(), image[k].max()
                np.clip((image[k] - low) / (high - low), 0, 1, out=image[k])


def _place(reference: Volume, crop: Box, settings: Data, modality: Modality) -> Geometry:
    size = tuple(stop - start for start, stop in crop)
    content = tuple((0, n) for n in size)
    shape = size
    if modality == "xray" and settings.image_size is not None:
        scale = min(want / have for want, have in zip(settings.image_size, size, strict=True))
        shape = settings.image_size
        fitted = tuple(
            min(want, max(1, round(n * scale))) for n, want in zip(size, shape, strict=True)
        )
        before = tuple((want - n) // 2 for n, want in zip(fitted, shape, strict=True))
        content = tuple((b, b + n) for b, n in zip(before, fitted, strict=True))
    elif modality != "xray" and settings.spacing_mm is not None:
        shape = geometry.resampled_shape(size, reference.spacing_mm, settings.spacing_mm)
        content = tuple((0, n) for n in shape)
    return Geometry(
        file_shape=reference.file_shape,
        file_affine=reference.file_affine,
        full=reference.array.shape,
        crop=crop,
        content=content,
        shape=shape,
        affine=geometry.grid_affine(reference.affine, crop, content),
    )


def _fit(array: Float[np.ndarray, "*space"], placed: Geometry) -> Float[np.ndarray, "*target"]:
    part = geometry.resample(array, [high - low for low, high in placed.content])
    return np.pad(part, _padding(placed)) if part.shape != placed.shape else part


def _fit_labels(
    array: Integer[np.ndarray, "*space"], placed: Geometry
) -> Integer[np.ndarray, "*target"]:
    part = geometry.resample_labels(array, [high - low for low, high in placed.content])
    if part.shape == placed.shape:
        return part
    return np.pad(part, _padding(placed), constant_values=IGNORE)


def _padding(placed: Geometry) -> list[tuple[int, int]]:
    return [(low, n - high) for (low, high), n in zip(placed.content, placed.shape, strict=True)]


def _foreground(
    segmentation: Integer[np.ndarray, "*space"] | None,
    expert: UInt8[np.ndarray, "k *space"],
    mapped: tuple[int, ...],
    case_id: str,
) -> Integer[np.ndarray, "n axes"]:
    rng = np.random.default_rng(zlib.crc32(case_id.encode()))
    dim = expert.ndim - 1
    rows = [np.zeros((0, 1 + dim), dtype=np.int32)]
    if segmentation is not None:
        present = np.unique(segmentation[segmentation > 0])
        rows += [_spread(segmentation == index, int(index), rng) for index in present]
    else:
        found = zip(expert, mapped, strict=True)
        rows += [_spread(region > 127, index, rng) for region, index in found if index > 0]
    return np.concatenate(rows)


def _spread(
    mask: Bool[np.ndarray, "*space"], index: int, rng: np.random.Generator
) -> Integer[np.ndarray, "n axes"]:
    """Up to 16 voxels of every slice that the mask meets, so that small slices are met as often."""
    voxels = rng.permutation(np.argwhere(mask))
    voxels = voxels[np.argsort(voxels[:, -1], kind="stable")]
    first = np.searchsorted(voxels[:, -1], voxels[:, -1])
    kept = voxels[np.arange(len(voxels)) - first < _FOREGROUND_PER_SLICE]
    return np.column_stack([np.full(len(kept), index), kept]).astype(np.int32)
