"""Whether a map points at the finding: against the expert's mask, one map and one mask at a time.

A map is any non-negative saliency (attention, Grad-CAM, a prior). An empty mask makes every metric
NaN: there is nothing to find.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from penumbra.evaluate.arrays import Array, as_numpy
from penumbra.evaluate.ranking import average_precision

GRID = tuple(float(t) for t in np.arange(0.2, 0.81, 0.05).round(2))
"""Thresholds tried on validation maps (the grid of CheXlocalize)."""


def hit(attention: Float[Array, "*space"], mask: Bool[Array, "*space"]) -> float:
    """Pointing game: 1 when the map's maximum lies in the mask, else 0.

    Several equal maxima count as the chance that one of them drawn at random lies in the mask, so
    a constant map scores the mask's share of the image.
    """
    shown, true = _checked(attention, mask)
    return float(true[shown == shown.max()].mean()) if true.any() else float("nan")


def iou(
    attention: Float[Array, "*space"],
    mask: Bool[Array, "*space"],
    *,
    threshold: float | Literal["otsu"] = "otsu",
) -> float:
    """Intersection over union of the mask and the map above a threshold, in 0..1.

    The map is first stretched to 0..1, so a threshold tuned on validation maps carries over; a
    constant map selects nothing and scores 0.
    """
    shown, true = _checked(attention, mask)
    if not true.any():
        return float("nan")
    stretched = stretch(shown)
    cut = _otsu(stretched) if threshold == "otsu" else threshold
    chosen = stretched > cut
    return float((chosen & true).sum() / (chosen | true).sum())


def tune_threshold(
    attentions: Sequence[Float[Array, "*_"]],
    masks: Sequence[Bool[Array, "*_"]],
    *,
    grid: Sequence[float] = GRID,
) -> float:
    """The threshold with the best mean IoU over validation maps; the lowest wins a tie.

    Raises:
        ValueError: no mask has a voxel.
    """
    scores = np.array(
        [
            [iou(a, m, threshold=t) for t in grid]
            for a, m in zip(attentions, masks, strict=True)
            if as_numpy(m).any()
        ]
    )
    if scores.size == 0:
        raise ValueError("a threshold cannot be tuned: every mask is empty")
    return float(grid[int(scores.mean(axis=0).argmax())])


def auprc(attention: Float[Array, "*space"], mask: Bool[Array, "*space"]) -> float:
    """Average precision of the map's voxels as a detector of the mask's voxels.

    The mask's share of the image is the value of a constant map.
    """
    shown, true = _checked(attention, mask)
    if not true.any():
        return float("nan")
    return average_precision(shown.ravel(), true.ravel()) if not true.all() else 1.0


def centroid_error_mm(
    attention: Float[Array, "*space"],
    mask: Bool[Array, "*space"],
    *,
    spacing_mm: Sequence[float],
) -> float:
    """Distance in mm between the map's center of mass and the mask's.

    The map's minimum is subtracted first, so that a constant offset does not pull the center to
    the middle of the image; a constant map is centered in the image.
    """
    shown, true = _checked(attention, mask)
    if not true.any():
        return float("nan")
    offset = _center(shown - shown.min()) - _center(true.astype(np.float64))
    return float(np.linalg.norm(offset * np.asarray(spacing_mm, dtype=np.float64)))


def mass_in_mask(attention: Float[Array, "*space"], mask: Bool[Array, "*space"]) -> float:
    """Share of the map's sum that lies in the mask (energy-based pointing), in 0..1.

    NaN for a map of zeros.
    """
    shown, true = _checked(attention, mask)
    total = shown.sum()
    return float(shown[true].sum() / total) if true.any() and total > 0 else float("nan")


def score(
    attention: Float[Array, "*space"],
    mask: Bool[Array, "*space"],
    *,
    spacing_mm: Sequence[float],
    threshold: float = 0.5,
) -> dict[str, float]:
    """Every metric of this file for one map, by name; ``threshold`` is tuned on validation maps."""
    return {
        "hit": hit(attention, mask),
        "iou_otsu": iou(attention, mask),
        "iou_tuned": iou(attention, mask, threshold=threshold),
        "auprc": auprc(attention, mask),
        "centroid_error_mm": centroid_error_mm(attention, mask, spacing_mm=spacing_mm),
        "mass_in_mask": mass_in_mask(attention, mask),
    }


def stretch(attention: Float[np.ndarray, "*space"]) -> Float[np.ndarray, "*space"]:
    """The map between its minimum (0) and maximum (1); zeros when it is constant."""
    low, high = attention.min(), attention.max()
    return (attention - low) / (high - low) if high > low else np.zeros_like(attention)


def _otsu(stretched: NDArray[np.float64]) -> float:
    return float(threshold_otsu(stretched)) if stretched.max() > 0 else 0.5


def _center(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    weight = weight if weight.sum() > 0 else np.ones_like(weight)
    total = weight.sum()
    axes = range(weight.ndim)
    profiles = [weight.sum(axis=tuple(a for a in axes if a != axis)) for axis in axes]
    return np.array([profile @ np.arange(len(profile)) / total for profile in profiles])


def _checked(attention: Array, mask: Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    shown = as_numpy(attention).astype(np.float64)
    if not (np.isfinite(shown).all() and shown.min() >= 0):
        raise ValueError("a map must be finite and non-negative; take the absolute value first")
    return shown, as_numpy(mask)
