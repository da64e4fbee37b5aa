"""How well a score ranks the positives first, and how often a threshold on it is right.

Labels are 1 present, 0 absent, NaN not stated, -1 uncertain; the last two are left out. Every
metric takes optional case weights, one row per bootstrap resample, and works on all rows at once.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from penumbra.evaluate.arrays import Array, as_numpy


def stated(labels: Array) -> NDArray[np.bool_]:
    """Where a label says present or absent.

    Raises:
        ValueError: a label is none of 1, 0, -1 and NaN.
    """
    values = np.asarray(as_numpy(labels), dtype=np.float64)
    known = (values == 0) | (values == 1)
    if not (known | (values == -1) | np.isnan(values)).all():
        wrong = np.unique(values[~(known | (values == -1) | np.isnan(values))])
        raise ValueError(f"labels must be 1, 0, -1 or NaN, got {wrong[:5].tolist()}")
    return known


def auroc(scores: Array, labels: Array) -> float:
    """Chance that a positive scores above a negative, a tie counting one half (Mann-Whitney).

    NaN when either class is absent among the stated labels.

    Example:
        >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        0.75
    """
    return float(weighted_auroc(*_kept(scores, labels))[0])


def average_precision(scores: Array, labels: Array) -> float:
    """Area under the precision-recall curve as a step function; ties share one threshold.

    Equal to scikit-learn's ``average_precision_score``; the share of positives is the value of a
    score that knows nothing. NaN when either class is absent among the stated labels.
    """
    return float(weighted_average_precision(*_kept(scores, labels))[0])


def weighted_auroc(
    scores: Float[np.ndarray, "n"],
    labels: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "s n"] | None = None,
) -> Float[np.ndarray, "s"]:
    """AUROC under each row of case weights; every label must be stated."""
    return _ratio(*_won_of_pairs(scores, labels, weights))


def stratified_auroc(
    scores: Float[np.ndarray, "n"],
    labels: Float[np.ndarray, "n"],
    strata: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "s n"] | None = None,
) -> Float[np.ndarray, "s"]:
    """AUROC over the pairs of cases within a stratum: scores of different ones are not compared.

    Strata are the folds of a cross-validation: each has a network of its own, and a network that
    trained on more cases of a finding expects more of them, which has nothing to do with ranking.
    """
    if weights is None:
        weights = np.ones((1, len(scores)))
    won, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for stratum in np.unique(strata):
        here = strata == stratum
        more = _won_of_pairs(scores[here], labels[here], weights[:, here])
        won, pairs = won + more[0], pairs + more[1]
    return _ratio(won, pairs)


def weighted_average_precision(
    scores: Float[np.ndarray, "n"],
    labels: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "s n"] | None = None,
) -> Float[np.ndarray, "s"]:
    """Average precision under each row of case weights; every label must be stated."""
    positive, negative = _by_threshold(scores, labels, weights)
    hits = np.cumsum(positive, axis=1)
    flagged = hits + np.cumsum(negative, axis=1)
    precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
    value = _ratio((positive * precision).sum(axis=1), positive.sum(axis=1))
    return np.where(negative.sum(axis=1) > 0, value, np.nan)


def choose_threshold(scores: Array, labels: Array) -> float:
    """The score that maximises sensitivity + specificity (Youden), for use on other cases.

    The threshold lies halfway between two neighboring scores, so that rounding cannot move a case
    across it; among equal maxima the highest wins. 0.5 when a class is absent.
    """
    kept, truth = _kept(scores, labels)
    if len(np.unique(truth)) < 2:
        return 0.5
    positive, negative = (row[0] for row in _by_threshold(kept, truth, None))
    gain = np.cumsum(positive) / positive.sum() - np.cumsum(negative) / negative.sum()
    levels = np.unique(kept)[::-1]
    best = int(np.argmax(gain))
    below = levels[best + 1] if best + 1 < len(levels) else levels[best]
    return float((levels[best] + below) / 2)


def _kept(scores: Array, labels: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = np.asarray(as_numpy(scores), dtype=np.float64)
    truth = np.asarray(as_numpy(labels), dtype=np.float64)
    if values.shape != truth.shape:
        raise ValueError(f"scores {values.shape} and labels {truth.shape} differ in shape")
    known = stated(truth)
    if np.isnan(values[known]).any():
        raise ValueError(f"{int(np.isnan(values[known]).sum())} scores are NaN")
    return values[known], truth[known]


def _won_of_pairs(
    scores: NDArray[np.float64], labels: NDArray[np.float64], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight of the pairs that the positive wins, and of all pairs of a positive and a negative."""
    positive, negative = _by_threshold(scores, labels, weights)
    # positives at one score beat the negatives below it and tie with those at it
    below = np.cumsum(negative[:, ::-1], axis=1)[:, ::-1] - negative / 2
    return (positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1)


def _by_threshold(
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
    weights: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight of positives and of negatives at every distinct score, highest score first."""
    if weights is None:
        weights = np.ones((1, len(scores)))
    if len(scores) == 0:
        return np.zeros((len(weights), 1)), np.zeros((len(weights), 1))
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf) != 0)
    weights, truth = weights[:, order], labels[order]
    positive = np.add.reduceat(weights * truth, starts, axis=1)
    negative = np.add.reduceat(weights * (1 - truth), starts, axis=1)
    return positive, negative


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
