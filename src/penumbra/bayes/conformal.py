"""Guarantees that hold for any model, if new patients are exchangeable with calibration patients.

Split conformal sets for findings and intervals for volumes. One score per patient: voxels or images
of one patient are not exchangeable with another's.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

Values = Float[ndarray, " n"]


def conformal_quantile(scores: Values, *, alpha: float) -> float:
    """The ``ceil((n + 1)(1 - alpha))``-th smallest score; a new score exceeds it w.p. <= alpha.

    Vovk et al. 2005. Infinite when ``n < 1/alpha - 1``: so few patients promise nothing, and a set
    or interval built from it holds everything.

    Raises:
        ValueError: alpha is outside (0, 1), or a score is NaN.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha}: the error rate lies between 0 and 1")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    # The product is exact in theory; 0.1 is not exact in binary.
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def set_scores(probability: Float[ndarray, "n c"], label: Int[ndarray, " n"]) -> Values:
    """``1 - p(label)``, the score of least-ambiguous sets (Sadinle et al. 2019)."""
    return 1 - probability[np.arange(len(label)), label]


def prediction_sets(
    probability: Float[ndarray, "n c"], *, quantile: float | Sequence[float]
) -> Bool[ndarray, "n c"]:
    """Classes whose score stays within the quantile; may be empty or everything.

    A finding is a categorical of absent and present, ``[1 - p, p]``. One quantile per class gives
    class-conditional coverage when each was fitted on that class's patients alone.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.45, 0.55]])
        >>> prediction_sets(p, quantile=0.6).tolist()
        [[True, False], [True, True]]
    """
    return 1 - probability <= np.asarray(quantile)


def interval_scores(predicted: Values, spread: Values, truth: Values, *, floor: float) -> Values:
    """``|truth - predicted| / (spread + floor)``: how many spreads off each patient is.

    For volumes, ``predicted`` is the mean over posterior draws and ``spread`` their standard
    deviation; ``floor`` (same unit) keeps a patient without spread from deciding alone.

    Raises:
        ValueError: ``floor`` is not positive.
    """
    if floor <= 0:
        raise ValueError(f"floor={floor}: must be positive, in the unit of the volumes")
    return np.abs(truth - predicted) / (spread + floor)


def intervals(
    predicted: Values, spread: Values, *, quantile: float, floor: float
) -> Float[ndarray, "n 2"]:
    """``predicted -+ quantile (spread + floor)``, cut at 0: volumes are not negative."""
    half = quantile * (spread + floor)
    return np.stack([np.maximum(predicted - half, 0), predicted + half], 1)
