"""Where the body is: a mask per scan, from intensities alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.filters import threshold_otsu

from penumbra.types import Modality

AIR_HU = -500.0
"""Between lung (about -850) and fat (about -100): what lies above belongs to the envelope."""

STRIPPED = 0.2
"""Share of voxels exactly at the minimum above which a scan may count as skull-stripped."""

_COARSE = 96
"""Morphology runs on a grid of at most about this many voxels per axis."""


def body_mask(
    image: Float[np.ndarray, "c *space"], *, modality: Modality
) -> Bool[np.ndarray, "*space"]:
    """The body's envelope; air inside it (lungs, bowel) counts as body.

    MRI: what differs from the background of a skull-stripped scan, else Otsu's threshold on the
    mean of the channels. CT: above ``AIR_HU``, or above the floor of a scan that was clipped above
    it. X-ray: the frame without constant borders. Falls back to the whole frame when nothing is
    found.
    """
    match modality:
        case "xray":
            return _exposed(image[0])
        case "ct":
            raw = image[0] > max(AIR_HU, float(image[0].min()) + 1.0)
        case "mri":
            raw = _tissue(image)
    mask = _envelope(raw)
    return mask if mask.any() else np.ones(raw.shape, dtype=bool)


def _tissue(image: Float[np.ndarray, "c *space"]) -> Bool[np.ndarray, "*space"]:
    low = image.min(axis=tuple(range(1, image.ndim)), keepdims=True)
    empty = (image == low).all(axis=0)
    if empty.mean() > STRIPPED and _rim(empty).mean() > 0.99:
        return ~empty
    high = np.percentile(image.reshape(len(image), -1), 99.5, axis=1).reshape(low.shape)
    # The square root brings dim tissue far from a coil or beside bright fluid above the air.
    mean = np.sqrt(np.clip((image - low) / np.maximum(high - low, 1e-6), 0, 1)).mean(axis=0)
    sample = mean[tuple(slice(None, None, max(1, n // 64)) for n in mean.shape)]
    return mean > 0.7 * threshold_otsu(sample) if np.ptp(sample) > 0 else ~empty


def _rim(mask: Bool[np.ndarray, "*space"]) -> Bool[np.ndarray, " n"]:
    """The in-plane border: the scanner's noise is there unless somebody has removed it."""
    return np.concatenate([mask[[0, -1]].ravel(), mask[:, [0, -1]].ravel()])


def _envelope(raw: Bool[np.ndarray, "*space"]) -> Bool[np.ndarray, "*space"]:
    """Opened, largest component, closed and filled slice by slice, on a coarse grid."""
    step = tuple(max(1, round(n / _COARSE)) for n in raw.shape)
    coarse = raw[tuple(slice(None, None, s) for s in step)]
    flat = np.ones((3, 3, 1) if raw.ndim == 3 else (3, 3), dtype=bool)
    opened = ndimage.binary_opening(coarse, flat)
    kept = _largest(opened if opened.any() else coarse)
    closed = _closed(kept, flat)
    filled = (
        np.stack([ndimage.binary_fill_holes(s) for s in np.moveaxis(closed, -1, 0)], axis=-1)
        if raw.ndim == 3
        else ndimage.binary_fill_holes(closed)
    )
    for axis, s in enumerate(step):
        filled = np.repeat(filled, s, axis=axis)
    return filled[tuple(slice(0, n) for n in raw.shape)]


def _closed(mask: Any, structure: Bool[np.ndarray, "..."]) -> Any:
    padded = np.pad(mask, 3)
    return ndimage.binary_closing(padded, structure, iterations=2)[(slice(3, -3),) * mask.ndim]


def _largest(mask: Bool[np.ndarray, "*space"]) -> Bool[np.ndarray, "*space"]:
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def _exposed(image: Float[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """Rows and columns at the rim whose values differ by less than 1 % of the range are border."""
    limit = 0.01 * max(float(np.ptp(image)), 1e-6)
    mask = np.zeros(image.shape, dtype=bool)
    rows = np.flatnonzero(np.ptp(image, axis=1) > limit)
    columns = np.flatnonzero(np.ptp(image, axis=0) > limit)
    if len(rows) and len(columns):
        mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    else:
        mask[:] = True
    return mask


def bounding_box(
    mask: Bool[np.ndarray, "*space"], *, margin: Sequence[int] | None = None
) -> tuple[tuple[int, int], ...]:
    """Start and stop of what is true, along each axis, widened by ``margin`` inside the array.

    The whole array when nothing is true.
    """
    box = [slice(0, n) for n in mask.shape]
    for axis in range(mask.ndim):  # each on what the axes before have left
        others = tuple(a for a in range(mask.ndim) if a != axis)
        found = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if len(found):
            box[axis] = slice(int(found[0]), int(found[-1]) + 1)
    reach = margin or [0] * mask.ndim
    return tuple(
        (max(0, side.start - more), min(size, side.stop + more))
        for side, more, size in zip(box, reach, mask.shape, strict=True)
    )
