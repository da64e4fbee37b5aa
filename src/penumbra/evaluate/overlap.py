"""How well two masks agree: Dice from one confusion count, distances between their borders.

Rules for empty masks, the same for every metric here: when neither mask has a voxel the metric is
undefined (NaN, to be left out of means and counted); when only one of them is empty, Dice and
surface Dice are 0 and the Hausdorff distance is the diagonal of the scan, the worst that fits in
it (BraTS: 373.13 mm, the diagonal of 240 x 240 x 155), so that missing a lesion is never
rewarded by leaving the case out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray
from scipy.spatial import KDTree

from penumbra.data import body
from penumbra.evaluate.arrays import Array, as_numpy
from penumbra.types import IGNORE

CHUNK = 1 << 15
"""Voxels counted at once: what fits in a core's cache."""


def confusion(
    prediction: Integer[Array, "*space"], reference: Integer[Array, "*space"], *, classes: int
) -> Integer[np.ndarray, "c c"]:
    """Voxel counts with the reference's class in rows and the predicted class in columns.

    Voxels whose reference is -1 are not counted. Every overlap metric of every region follows
    from this one pass over the labels.

    Raises:
        ValueError: a label lies outside -1..classes-1, or a prediction outside 0..classes-1.

    Example:
        >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), classes=2)
        array([[1, 1],
               [0, 1]])
    """
    predicted, true = as_numpy(prediction).ravel(), as_numpy(reference).ravel()
    counts = np.zeros((classes + 1) * classes, dtype=np.int64)
    for start in range(0, len(true), CHUNK):
        here = slice(start, start + CHUNK)
        column, row = predicted[here].astype(np.int64), true[here].astype(np.int64)
        _check_labels(column, lowest=0, classes=classes, name="prediction")
        _check_labels(row, lowest=IGNORE, classes=classes, name="reference")
        # row 0 collects the ignored voxels
        row += 1
        row *= classes
        row += column
        counts += np.bincount(row, minlength=len(counts))
    return counts.reshape(classes + 1, classes)[1:]


def dice(counts: Integer[np.ndarray, "c c"], members: Sequence[int]) -> float:
    r"""Dice of the region that is the union of the classes ``members``, in 0..1.

    $$ 2 |P \cap R| / (|P| + |R|) $$

    NaN when the region is absent from both masks.

    Example:
        >>> dice(np.array([[1, 1], [0, 1]]), [1])
        0.6666666666666666
    """
    chosen = list(members)
    overlap = counts[np.ix_(chosen, chosen)].sum()
    total = counts[:, chosen].sum() + counts[chosen, :].sum()
    return float(2 * overlap / total) if total else float("nan")


@dataclass(frozen=True, slots=True)
class Borders:
    """Distances in mm from every border voxel of one mask to the border of the other.

    Attributes:
        to_reference: one per border voxel of the prediction; empty when either mask is empty.
        to_prediction: one per border voxel of the reference.
        empty: which mask has no voxel.
        diagonal_mm: of the whole scan.
    """

    to_reference: NDArray[np.float64]
    to_prediction: NDArray[np.float64]
    empty: tuple[bool, bool]
    diagonal_mm: float


def borders(
    prediction: Bool[Array, "*space"],
    reference: Bool[Array, "*space"],
    *,
    spacing_mm: Sequence[float],
) -> Borders:
    """Border-to-border distances, measured on the crop of the masks' union.

    A border voxel has a face neighbor outside its mask, or lies at the edge of the scan. Voxels on
    both borders are at distance 0 and are never searched for.

    Raises:
        ValueError: ``spacing_mm`` does not have one positive entry per axis.
    """
    predicted, true = as_numpy(prediction), as_numpy(reference)
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (predicted.ndim,) or not (spacing > 0).all():
        raise ValueError(
            f"spacing_mm must hold {predicted.ndim} positive numbers, got {tuple(spacing_mm)}"
        )
    diagonal = float(np.linalg.norm(spacing * predicted.shape))
    empty = (not predicted.any(), not true.any())
    if any(empty):
        none = np.empty(0)
        return Borders(none, none, empty, diagonal)
    crop = bounding_box(predicted | true)
    of_predicted, of_true = border(predicted[crop]), border(true[crop])
    return Borders(
        _nearest(of_predicted, of_true, spacing),
        _nearest(of_true, of_predicted, spacing),
        empty,
        diagonal,
    )


def hd95(distances: Borders) -> float:
    """The larger of the two directed 95th-percentile border distances, in mm (MONAI's HD95).

    medpy pools both directions before taking the percentile, and surface-distance weights by
    area: their values differ from this one. NaN when both masks are empty; the diagonal of the
    scan when one is.
    """
    if all(distances.empty):
        return float("nan")
    if any(distances.empty):
        return distances.diagonal_mm
    return float(
        max(np.percentile(distances.to_reference, 95), np.percentile(distances.to_prediction, 95))
    )


def surface_dice(distances: Borders, *, tolerance_mm: float) -> float:
    """Share of both borders' voxels that lie within ``tolerance_mm`` of the other border.

    Nikolov et al. 2018 (normalised surface Dice), with border voxels counted equally as MONAI
    does. In 0..1; NaN when both masks are empty, 0 when one is.
    """
    if all(distances.empty):
        return float("nan")
    if any(distances.empty):
        return 0.0
    both = np.concatenate([distances.to_reference, distances.to_prediction])
    return float((both <= tolerance_mm).mean())


def bounding_box(
    mask: Bool[np.ndarray, "*space"], *, margin: Sequence[int] | None = None
) -> tuple[slice, ...]:
    """The smallest box that holds every voxel of a mask that has some, widened by ``margin``."""
    return tuple(slice(low, high) for low, high in body.bounding_box(mask, margin=margin))


def widen(mask: Bool[np.ndarray, "*space"], reach: Sequence[int]) -> Bool[np.ndarray, "*space"]:
    """The mask widened by ``reach`` voxels along every axis (by a box)."""
    wide = np.zeros_like(mask)
    if not mask.any():
        return wide
    box = bounding_box(mask, margin=reach)
    grown = mask[box]
    for axis, more in enumerate(reach):
        grown = np.moveaxis(_widen_first(np.moveaxis(grown, axis, 0), more), 0, axis)
    wide[box] = grown
    return wide


def members_mask(
    labels: Integer[np.ndarray, "*space"], members: Sequence[int], *, classes: int
) -> Bool[np.ndarray, "*space"]:
    """Where a label is one of ``members``; an ignored voxel (-1) is in no region."""
    table = np.zeros(classes + 1, dtype=bool)
    table[list(members)] = True
    return table[labels]  # -1 reads the last entry, which is False


def border(mask: Bool[np.ndarray, "*space"]) -> Bool[np.ndarray, "*space"]:
    """Voxels of a mask with a face neighbor outside it; beyond the array nothing belongs to it."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        moved, kept = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        moved[1:] &= kept[:-1]
        moved[:-1] &= kept[1:]
        moved[0] = False
        moved[-1] = False
    return mask & ~inner


def _widen_first(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    done = 0
    while done < reach:
        # a shift by up to done + 1 leaves no gap, at the edge either: the reach doubles every step
        step = min(done + 1, reach - done)
        grown = mask.copy()
        grown[step:] |= mask[:-step]
        grown[:-step] |= mask[step:]
        mask, done = grown, done + step
    return mask


def _nearest(
    sources: NDArray[np.bool_], targets: NDArray[np.bool_], spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    apart = _places(sources & ~targets)
    distances = np.zeros(int(sources.sum()))
    if len(apart):
        tree = KDTree(_places(targets) * spacing, leafsize=32)
        distances[: len(apart)] = tree.query(apart * spacing)[0]
    return distances


def _places(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """``np.argwhere``, by way of flat indices: several times faster on sparse masks."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)


def _check_labels(labels: NDArray[np.integer], *, lowest: int, classes: int, name: str) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < lowest or high >= classes:
        raise ValueError(
            f"{name}: expected class indices {lowest}..{classes - 1}, got {low}..{high}"
        )


def label_map(probability: Float[Array, "c *space"]) -> Integer[np.ndarray, "*space"]:
    """The most probable class of every voxel; the lowest index wins a tie."""
    p = as_numpy(probability)
    # one sweep per class is several times faster than argmax over a leading axis
    best, label = p[0].copy(), np.zeros(p.shape[1:], dtype=np.int32)
    for c in range(1, len(p)):
        higher = p[c] > best
        label[higher] = c
        np.maximum(best, p[c], out=best)
    return label
