"""What is promised of a new patient: conformal volume intervals and sets of findings.

Fitted on validation patients (``assess.conformal``), held for any model as long as new patients are
exchangeable with them. The credible interval beside it is the posterior's own word.
"""

import numpy as np
from jaxtyping import Float

from penumbra.bayes.conformal import intervals, prediction_sets
from penumbra.trained import Calibration

LEVEL = 0.9


def volume_interval(
    draws_ml: Float[np.ndarray, " t"], region: str, calibration: Calibration
) -> tuple[float, float] | None:
    """``mean -+ quantile (std + floor)`` in ml; none where too few patients were seen."""
    quantile = calibration.volume_quantile.get(region)
    if quantile is None:
        return None
    mean, spread = (np.array([float(x)]) for x in (draws_ml.mean(), draws_ml.std()))
    floor = calibration.volume_floor_ml[region]
    low, high = intervals(mean, spread, quantile=quantile, floor=floor)[0]
    return float(low), float(high)


def finding_set(probability: float, finding: str, calibration: Calibration) -> list[str] | None:
    """The answers that cannot be excluded: absent, present, both or neither; none: no promise."""
    quantile = calibration.finding_quantile.get(finding)
    if quantile is None:
        return None
    coin = np.array([[1 - probability, probability]])
    kept = prediction_sets(coin, quantile=quantile)[0]
    return [name for name, inside in zip(("absent", "present"), kept, strict=True) if inside]
