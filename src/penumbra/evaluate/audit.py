"""Does uncertainty behave as its name says? Its trend over levels, with an interval.

Epistemic uncertainty must fall as labels are added and rise under shift; aleatoric uncertainty
must follow the noise of the labels.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from penumbra.evaluate.selective import spearman
from penumbra.evaluate.statistics import Interval, Verdict, bootstrap, verdict


@dataclass(frozen=True, slots=True)
class Trend:
    """A rank correlation with a level, and whether it has the sign that meaning demands."""

    correlation: Interval
    verdict: Verdict


def trend(
    levels: Sequence[float | int],
    values: Float[np.ndarray, "levels n"],
    *,
    direction: Literal["rises", "falls"],
    groups: Sequence[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Trend:
    """Each case's Spearman correlation of its uncertainty with the level, averaged over patients.

    Levels are label fractions, shift severities or label-noise rates; ``values[k, i]`` is case i's
    uncertainty at level k, so that differences between cases cancel. A case whose uncertainty never
    moves has no correlation; it is left out and counted.

    Raises:
        ValueError: the number of levels does not match the values.
    """
    if len(levels) != len(values):
        raise ValueError(f"{len(levels)} levels but {len(values)} rows of values")
    level = np.asarray(levels, dtype=np.float64)
    sign = 1.0 if direction == "rises" else -1.0
    per_case = [spearman(level, column) for column in values.T]
    correlation = bootstrap(per_case, groups, samples=samples, seed=seed)
    low, high = sorted((sign * correlation.low, sign * correlation.high))
    signed = replace(correlation, value=sign * correlation.value, low=low, high=high)
    return Trend(correlation, verdict(signed, threshold=np.nextafter(0.0, 1.0)))
