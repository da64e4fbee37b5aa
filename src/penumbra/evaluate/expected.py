"""What a case will probably score, from its uncertainty alone: a line through validation cases."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LEAST_CASES = 4
"""Fewer points say nothing of a slope."""


@dataclass(frozen=True, slots=True)
class ExpectedScore:
    """``score = intercept + slope * uncertainty``, cut to 0..1; the slope is never positive.

    Attributes:
        error: mean absolute error of the line on validation cases that it had not seen
            (leave one out), in units of the score.
        cases: behind the line.
    """

    intercept: float
    slope: float
    error: float
    cases: int

    def at(self, uncertainty: float) -> float:
        return float(np.clip(self.intercept + self.slope * uncertainty, 0, 1))

    def of(self, uncertainty: float) -> dict[str, float | int]:
        """The expectation with its error, as summaries state it."""
        return {"value": self.at(uncertainty), "error": self.error, "cases": self.cases}


def from_record(record: Mapping[str, float]) -> ExpectedScore | None:
    """The line that ``asdict`` made a record of; None for an empty one."""
    if not record:
        return None
    return ExpectedScore(**{**record, "cases": int(record["cases"])})  # type: ignore[arg-type]


def fit_expected(
    uncertainty: Float[np.ndarray, " n"], score: Float[np.ndarray, " n"]
) -> ExpectedScore | None:
    """The least-squares line of a score on the uncertainty; None for fewer than four cases.

    A line, because a few dozen validation cases hardly bear more; where the score rises with the
    uncertainty the slope is 0 and the line is the mean. Cases with a NaN are left out.

    Example:
        >>> line = fit_expected(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.9, 0.8, 0.7, 0.6]))
        >>> round(line.at(0.25), 6), round(line.error, 6)
        (0.75, 0.0)
    """
    known = ~(np.isnan(uncertainty) | np.isnan(score))
    x, y = uncertainty[known].astype(np.float64), score[known].astype(np.float64)
    if len(x) < LEAST_CASES:
        return None
    errors = []
    for k in range(len(x)):
        intercept, slope = _line(np.delete(x, k), np.delete(y, k))
        errors.append(abs(float(np.clip(intercept + slope * x[k], 0, 1)) - y[k]))
    intercept, slope = _line(x, y)
    return ExpectedScore(intercept, slope, float(np.mean(errors)), len(x))


def _line(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> tuple[float, float]:
    apart = x - x.mean()
    spread = float(apart @ apart)
    slope = min(float(apart @ y) / spread, 0.0) if spread > 0 else 0.0
    return float(y.mean() - slope * x.mean()), slope
