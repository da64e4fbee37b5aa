"""One segmented case in, its figures out: overlap, calibration, use of uncertainty."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from penumbra.evaluate import calibration, overlap, selective
from penumbra.evaluate.arrays import Array, as_numpy
from penumbra.evaluate.protocol import ALL, MEAN, mean_of_defined
from penumbra.types import IGNORE


@dataclass(frozen=True, slots=True)
class Rules:
    """The free choices of the segmentation metrics, in one place.

    Attributes:
        tolerance_mm: of surface Dice.
        margin_mm: by which the union of prediction and reference is widened to the region in which
            calibration is judged.
        bins: of the calibration errors.
    """

    tolerance_mm: float = 2.0
    margin_mm: float = 5.0
    bins: int = 15


def score_segmentation(
    probability: Float[Array, "c *space"],
    reference: Integer[Array, "*space"],
    *,
    regions: Mapping[str, Sequence[int]],
    spacing_mm: Sequence[float],
    uncertainty: Mapping[str, Float[Array, "*space"]] | None = None,
    rules: Rules = Rules(),
) -> dict[tuple[str, str], float]:
    """Every per-case segmentation figure: overlap, calibration, use of uncertainty.

    Args:
        regions: evaluated structure -> class indices whose union it is.
        uncertainty: name -> map; each gives ``error_auroc/<name>`` within the region of interest,
            and ``uncertainty/<name>/<aggregation>``, the case's own score.

    Undefined figures are NaN. Voxels with reference -1 count nowhere.
    """
    p, labels = as_numpy(probability), as_numpy(reference)
    predicted, counted = overlap.label_map(p), labels != IGNORE
    scores = _overlaps(predicted, labels, len(p), regions, spacing_mm, rules)
    scores |= _calibrations(p, labels, predicted, regions, spacing_mm, rules)
    if not uncertainty:
        return scores
    wrong = predicted != labels
    roi = region_of_interest(predicted > 0, labels > 0, spacing_mm=spacing_mm, rules=rules)
    for name, each in uncertainty.items():
        unsure = as_numpy(each)
        scores["error_auroc/" + name, ALL] = selective.error_auroc(
            unsure, wrong, within=roi & counted
        )
        for how in selective.AGGREGATIONS:
            scores[f"uncertainty/{name}/{how}", ALL] = selective.aggregate(
                unsure, predicted, how=how, valid=counted
            )
    return scores


def tally_segmentation(
    probability: Float[Array, "c *space"],
    reference: Integer[Array, "*space"],
    *,
    spacing_mm: Sequence[float],
    rules: Rules = Rules(),
) -> dict[str, calibration.Tally]:
    """A case's share of the cohort's reliability diagrams, ``roi`` and ``volume``.

    Add them over cases: memory stays flat however large the cohort is.
    """
    p, labels = as_numpy(probability), as_numpy(reference)
    predicted = overlap.label_map(p)
    roi = region_of_interest(predicted > 0, labels > 0, spacing_mm=spacing_mm, rules=rules)
    return {
        "roi": calibration.categorical(p, labels, within=roi, bins=rules.bins),
        "volume": calibration.categorical(p, labels, bins=rules.bins),
    }


def region_of_interest(
    prediction: Bool[Array, "*space"],
    reference: Bool[Array, "*space"],
    *,
    spacing_mm: Sequence[float],
    rules: Rules = Rules(),
) -> Bool[np.ndarray, "*space"]:
    """The union of both masks, widened by ``rules.margin_mm`` along every axis (a box)."""
    roi = (as_numpy(prediction) | as_numpy(reference)).astype(np.uint8)
    for axis, spacing in enumerate(spacing_mm):
        reach = round(rules.margin_mm / spacing)
        roi = maximum_filter1d(roi, 2 * reach + 1, axis=axis, mode="constant")
    return roi.astype(bool)


def _overlaps(
    predicted: NDArray[np.integer],
    labels: NDArray[np.integer],
    classes: int,
    regions: Mapping[str, Sequence[int]],
    spacing_mm: Sequence[float],
    rules: Rules,
) -> dict[tuple[str, str], float]:
    counts = overlap.confusion(predicted, labels, classes=classes)
    # an ignored voxel is background to both masks: it adds neither overlap nor border
    counted = labels != IGNORE
    scores = {}
    for name, members in regions.items():
        mine = np.isin(predicted, members) & counted
        true = np.isin(labels, members)
        apart = overlap.borders(mine, true, spacing_mm=spacing_mm)
        scores["dice", name] = overlap.dice(counts, members)
        scores["hd95_mm", name] = overlap.hd95(apart)
        scores["surface_dice", name] = overlap.surface_dice(apart, tolerance_mm=rules.tolerance_mm)
        absent, invented = not true.any(), bool(mine.any())
        scores["missed", name] = math.nan if absent else float(not invented)
        scores["false_alarm", name] = float(invented) if absent else math.nan
    for metric in ("dice", "hd95_mm", "surface_dice"):
        scores[metric, MEAN] = mean_of_defined([scores[metric, name] for name in regions])
    return scores


def _calibrations(
    p: NDArray[np.floating],
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    regions: Mapping[str, Sequence[int]],
    spacing_mm: Sequence[float],
    rules: Rules,
) -> dict[tuple[str, str], float]:
    scores = {}
    roi = region_of_interest(predicted > 0, labels > 0, spacing_mm=spacing_mm, rules=rules)
    for where, within in (("", roi), ("_volume", None)):
        tally = calibration.categorical(p, labels, within=within, bins=rules.bins)
        scores["ece" + where, ALL] = calibration.ece(tally)
        scores["ece_mass" + where, ALL] = calibration.ece(tally, scheme="mass")
        scores["brier" + where, ALL] = calibration.brier(tally)
        scores["nll" + where, ALL] = calibration.nll(tally)
    marginal = calibration.classwise(p, labels, within=roi, bins=rules.bins)
    scores["ece_class", MEAN] = mean_of_defined([calibration.ece(tally) for tally in marginal])
    for name, members in regions.items():
        mine, true = np.isin(predicted, members), np.isin(labels, members)
        near = region_of_interest(mine, true, spacing_mm=spacing_mm, rules=rules)
        near &= labels != IGNORE
        present = p[list(members)].sum(axis=0, dtype=np.float32)[near]
        tally = calibration.bernoulli(present.clip(0, 1), true[near], bins=rules.bins)
        scores["ece", name] = calibration.ece(tally)
    return scores
