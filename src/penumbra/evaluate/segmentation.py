"""One segmented case in, its figures out: overlap, calibration, use of uncertainty."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray

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
            ``uncertainty/<name>/<aggregation>``, the case's own score, and
            ``structure_uncertainty/<name>``, its mean where a region was predicted.

    Undefined figures are NaN. Voxels with reference -1 count nowhere.
    """
    p, labels = as_numpy(probability), as_numpy(reference)
    predicted = overlap.label_map(p)
    masks = {
        name: (
            overlap.members_mask(predicted, members, classes=len(p)) & (labels != IGNORE),
            overlap.members_mask(labels, members, classes=len(p)),
        )
        for name, members in regions.items()
    }
    roi = region_of_interest(predicted > 0, labels > 0, spacing_mm=spacing_mm, rules=rules)
    scores = _overlaps(masks, spacing_mm, rules)
    counts = overlap.confusion(predicted, labels, classes=len(p))
    for name, members in regions.items():
        scores["dice", name] = overlap.dice(counts, members)
    for metric in ("dice", "hd95_mm", "surface_dice"):
        scores[metric, MEAN] = mean_of_defined([scores[metric, name] for name in regions])
    scores |= score_calibration(p, labels, regions=regions, spacing_mm=spacing_mm, rules=rules)
    for name, each in (uncertainty or {}).items():
        unsure = as_numpy(each)
        for region, (mine, _) in masks.items():
            inside = float(unsure[mine].mean()) if mine.any() else math.nan
            scores[f"structure_uncertainty/{name}", region] = inside
    return scores | _uses(uncertainty or {}, predicted, labels, roi)


def score_calibration(
    probability: Float[Array, "c *space"],
    reference: Integer[Array, "*space"],
    *,
    regions: Mapping[str, Sequence[int]],
    spacing_mm: Sequence[float],
    rules: Rules = Rules(),
) -> dict[tuple[str, str], float]:
    """The calibration figures of ``score_segmentation`` alone, e.g. after temperature scaling."""
    p, labels = as_numpy(probability), as_numpy(reference)
    predicted, counted = overlap.label_map(p), labels != IGNORE
    around = partial(region_of_interest, spacing_mm=spacing_mm, rules=rules)
    scores = _calibrations(p, labels, around(predicted > 0, labels > 0), rules)
    for name, members in regions.items():
        mine = overlap.members_mask(predicted, members, classes=len(p)) & counted
        true = overlap.members_mask(labels, members, classes=len(p))
        near = around(mine, true) & counted
        present = np.sum([p[c][near] for c in members], axis=0, dtype=np.float64).clip(0, 1)
        tally = calibration.bernoulli(present, true[near], bins=rules.bins)
        scores["ece", name] = calibration.ece(tally)
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
    reach = [round(rules.margin_mm / spacing) for spacing in spacing_mm]
    return overlap.widen(as_numpy(prediction) | as_numpy(reference), reach)


def _overlaps(
    masks: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    spacing_mm: Sequence[float],
    rules: Rules,
) -> dict[tuple[str, str], float]:
    scores = {}
    for name, (mine, true) in masks.items():
        apart = overlap.borders(mine, true, spacing_mm=spacing_mm)
        scores["hd95_mm", name] = overlap.hd95(apart)
        scores["surface_dice", name] = overlap.surface_dice(apart, tolerance_mm=rules.tolerance_mm)
        unpredicted, absent = apart.empty
        scores["missed", name] = math.nan if absent else float(unpredicted)
        scores["false_alarm", name] = float(not unpredicted) if absent else math.nan
    return scores


def _calibrations(
    p: NDArray[np.floating],
    labels: NDArray[np.integer],
    roi: NDArray[np.bool_],
    rules: Rules,
) -> dict[tuple[str, str], float]:
    scores = {}
    for where, within in (("", roi), ("_volume", None)):
        tally = calibration.categorical(p, labels, within=within, bins=rules.bins)
        scores["ece" + where, ALL] = calibration.ece(tally)
        scores["ece_mass" + where, ALL] = calibration.ece(tally, scheme="mass")
        scores["brier" + where, ALL] = calibration.brier(tally)
        scores["nll" + where, ALL] = calibration.nll(tally)
    marginal = calibration.classwise(p, labels, within=roi, bins=rules.bins)
    scores["ece_class", MEAN] = mean_of_defined([calibration.ece(tally) for tally in marginal])
    return scores


def _uses(
    uncertainty: Mapping[str, Array],
    predicted: NDArray[np.integer],
    labels: NDArray[np.integer],
    roi: NDArray[np.bool_],
) -> dict[tuple[str, str], float]:
    counted, wrong = labels != IGNORE, predicted != labels
    scores = {}
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
