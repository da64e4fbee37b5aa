"""Intervals, paired tests and verdicts; the patient is the unit that is drawn again.

A statistic is a function of the values and of a matrix of case weights, one row per resample
(how often the bootstrap drew each case), so that all resamples are computed in one pass;
``by_repeating`` makes one from any function of a plain array.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import stats

from penumbra.evaluate.ranking import weighted_auroc, weighted_average_precision

Values = NDArray[np.float64]
Statistic = Callable[[Values, Values], Values]
Verdict = Literal["supported", "not supported", "undecided"]

CHUNK = 4_000_000
"""Weights held at once while resampling."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its two-sided bootstrap interval.

    Attributes:
        low, high: NaN when fewer than two groups are left: one patient shows no spread.
        n: groups (patients) with a defined value.
        undefined: values left out because they are NaN.
    """

    value: float
    low: float
    high: float
    n: int
    undefined: int = 0


def mean(values: Values, weights: Values) -> Values:
    """Weighted mean of the values, one per row of weights."""
    return _quotient(weights @ values, weights.sum(axis=1))


def auroc(values: Values, weights: Values) -> Values:
    """AUROC of rows ``(score, label)``; a statistic for ``bootstrap``."""
    return weighted_auroc(values[:, 0], values[:, 1], weights)


def average_precision(values: Values, weights: Values) -> Values:
    """Average precision of rows ``(score, label)``; a statistic for ``bootstrap``."""
    return weighted_average_precision(values[:, 0], values[:, 1], weights)


def by_repeating(function: Callable[[Values], float]) -> Statistic:
    """A statistic from a function of a plain array of cases, by repeating the drawn cases."""

    def statistic(values: Values, weights: Values) -> Values:
        drawn = weights.astype(np.int64)
        return np.array([function(np.repeat(values, row, axis=0)) for row in drawn])

    return statistic


def bootstrap(
    values: Sequence[float] | Float[np.ndarray, "n *columns"],
    groups: Sequence[Hashable] | None = None,
    *,
    statistic: Statistic = mean,
    samples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a statistic when patients are drawn with replacement.

    Args:
        values: one per case (or one row per case); cases with a NaN are left out and counted.
        groups: patient of each case, all of whose cases are drawn together; none: one case each.

    Resamples in which the statistic is undefined (one class only) are left out of the interval.

    Raises:
        ValueError: values and groups differ in length.

    Example:
        >>> bootstrap([0.5, 0.5, 0.5]).low
        0.5
    """
    rows = np.asarray(values, dtype=np.float64)
    member = np.arange(len(rows)) if groups is None else _group_index(groups)
    if len(member) != len(rows):
        raise ValueError(f"{len(rows)} values but {len(member)} groups")
    defined = ~np.isnan(rows.reshape(len(rows), -1)).any(axis=1)
    rows, member = rows[defined], member[defined]
    undefined = int((~defined).sum())
    if len(rows) == 0:
        return Interval(np.nan, np.nan, np.nan, 0, undefined)
    value = float(statistic(rows, np.ones((1, len(rows))))[0])
    draws = np.concatenate(
        [statistic(rows, weights) for weights in resamples(member, samples=samples, seed=seed)]
    )
    return interval(value, draws, n=len(np.unique(member)), undefined=undefined, level=level)


def resamples(
    groups: Sequence[Hashable] | NDArray[np.int64], *, samples: int = 2000, seed: int = 0
) -> Iterator[NDArray[np.float64]]:
    """Case weights [s, n] of the bootstrap, a chunk of resamples at a time.

    All cases of a group carry how often that group was drawn. The same groups and seed give the
    same draws, so figures computed over one iteration are paired.
    """
    member = _group_index(groups)
    count = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // len(member))
    for start in range(0, samples, step):
        size = min(step, samples - start)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=size)
        yield drawn[:, member].astype(np.float64)


def interval(
    value: float, draws: Values, *, n: int, undefined: int = 0, level: float = 0.95
) -> Interval:
    """A value with the percentiles of its resamples; undefined resamples are left out."""
    defined = draws[~np.isnan(draws)]
    if n < 2 or len(defined) == 0:
        return Interval(value, np.nan, np.nan, n, undefined)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), n, undefined)


def paired_bootstrap(
    a: Sequence[float] | Float[np.ndarray, "n"],
    b: Sequence[float] | Float[np.ndarray, "n"],
    groups: Sequence[Hashable] | None = None,
    *,
    relative: bool = False,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of mean(a) - mean(b) over the same cases; ``relative`` divides it by mean(b).

    A case with either value missing is left out of both.
    """
    pairs = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)], axis=1)

    def gain(values: Values, weights: Values) -> Values:
        first, second = mean(values[:, 0], weights), mean(values[:, 1], weights)
        return _quotient(first - second, second) if relative else first - second

    return bootstrap(pairs, groups, statistic=gain, samples=samples, seed=seed)


def crossed_bootstrap(
    values: Float[np.ndarray, "seeds n"],
    groups: Sequence[Hashable] | None = None,
    *,
    over: Float[np.ndarray, "seeds n"] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of a mean over seeds and patients when both are drawn again, independently.

    Trainings differ by chance as patients do; an interval over patients alone takes one training
    for the method. ``over`` turns the mean of ``values`` into a ratio to the mean of ``over``: pass
    ``a - b`` over ``b`` for the relative gain of arm a. Missing entries are left out and counted.

    With a single seed only the patients vary, and the interval says nothing about trainings.

    Raises:
        ValueError: ``groups`` does not name one patient per column.
    """
    below = np.ones_like(values) if over is None else over
    defined = ~(np.isnan(values) | np.isnan(below))
    top, bottom = np.where(defined, values, 0.0), np.where(defined, below, 0.0)
    seeds, n = values.shape
    member = np.arange(n) if groups is None else _group_index(groups)
    if len(member) != n:
        raise ValueError(f"{n} values but {len(member)} groups")
    rng = np.random.default_rng([seed, 1])
    draws = []
    for weights in resamples(member, samples=samples, seed=seed):
        trained = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=len(weights))
        numerator, denominator = (
            np.einsum("sn,sn->s", trained @ side, weights) for side in (top, bottom)
        )
        draws.append(_quotient(numerator, denominator))
    value = float(_quotient(top.sum(keepdims=True)[0], bottom.sum(keepdims=True)[0])[0])
    patients = len(np.unique(member[defined.any(axis=0)]))
    return interval(value, np.concatenate(draws), n=patients, undefined=int((~defined).sum()))


def wilcoxon(
    a: Sequence[float] | Float[np.ndarray, "n"], b: Sequence[float] | Float[np.ndarray, "n"]
) -> float:
    """Two-sided p of the Wilcoxon signed-rank test over paired cases.

    Pairs with a NaN are left out; 1 when no pair differs, NaN without pairs.
    """
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    difference = difference[~np.isnan(difference)]
    if len(difference) == 0:
        return float("nan")
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference[difference != 0]).pvalue)


def holm(p: Sequence[float] | Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Holm's step-down adjusted p values, in the order given; NaN stays NaN and is not counted.

    Example:
        >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full_like(values, np.nan)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    steps = np.array([(len(order) - rank) * values[i] for rank, i in enumerate(order)])
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if order else []
    return adjusted


def verdict(effect: Interval, *, threshold: float) -> Verdict:
    """Whether data support "the effect is at least ``threshold``" (proposal 3.1).

    ``supported`` when the whole interval reaches the threshold, ``not supported`` when the whole
    interval stays below it, ``undecided`` when the interval spans it or is missing.

    Example:
        >>> verdict(Interval(0.18, 0.16, 0.21, n=40), threshold=0.15)
        'supported'
    """
    if np.isnan([effect.low, effect.high]).any():
        return "undecided"
    if effect.low >= threshold:
        return "supported"
    return "not supported" if effect.high < threshold else "undecided"


def _quotient(top: Values, bottom: Values) -> Values:
    return np.divide(top, bottom, out=np.full_like(bottom, np.nan), where=bottom != 0)


def _group_index(groups: Sequence[Hashable] | NDArray[np.int64]) -> NDArray[np.int64]:
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(group, len(seen)) for group in groups], dtype=np.int64)
