"""Guarantees that hold for any model, if new patients are exchangeable with calibration patients.

Split conformal sets for findings, intervals for volumes, and risk control for structures. One
score per patient: voxels or images of one patient are not exchangeable with another's.
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


def control_risk(losses: Float[ndarray, "n grid"], *, alpha: float, bound: float = 1.0) -> int:
    """Column of the first setting whose expected loss on a new patient is at most ``alpha``.

    Conformal risk control (Angelopoulos et al. 2024): the least k with
    ``n/(n+1) mean_i L_ik + bound/(n+1) <= alpha``. Columns run from the strictest to the most
    cautious setting and every row must not rise.

    Raises:
        ValueError: a row rises, a loss is outside [0, bound], or no setting reaches ``alpha``.
    """
    if (np.diff(losses, axis=1) > 1e-9).any():
        raise ValueError("losses must not rise along the grid, from strict to cautious settings")
    if losses.min() < 0 or losses.max() > bound:
        raise ValueError(f"losses in [{losses.min():.3g}, {losses.max():.3g}], bound={bound}")
    n = len(losses)
    risk = n / (n + 1) * losses.mean(0) + bound / (n + 1)
    good = np.flatnonzero(risk <= alpha)
    if len(good) == 0:
        raise ValueError(
            f"no setting reaches alpha={alpha} with n={n} patients: the best is {risk[-1]:.3g}; "
            "calibrate on more patients or allow a larger loss"
        )
    return int(good[0])


def missed_share(
    probability: Float[ndarray, "*space"],
    reference: Bool[ndarray, "*space"],
    *,
    thresholds: Float[ndarray, " grid"],
) -> Float[ndarray, " grid"]:
    """Share of a structure's voxels with a probability below each threshold, in [0, 1].

    One patient's row for ``control_risk``: thresholds fall, so the share does not rise. A patient
    without the structure misses nothing: 0 everywhere.
    """
    inside = np.sort(probability[reference])
    if inside.size == 0:
        return np.zeros(len(thresholds))
    return np.searchsorted(inside, thresholds, side="left") / inside.size
