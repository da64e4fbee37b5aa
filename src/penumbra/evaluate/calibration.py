r"""Whether a probability of 0.8 is right 80 % of the time.

One record, ``Tally``, holds what a case contributes: counts per fine confidence bin and sums of
the proper scores. Tallies add, so a cohort is judged in constant memory, and every figure here is
read from a tally. For categorical voxels the confidence is the largest probability and a hit means
that its class is right; for a Bernoulli label (a finding, or one class against the rest) the
confidence is the probability of "present" and a hit means that it is present.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy.typing import NDArray

from penumbra.evaluate.arrays import Array, as_numpy
from penumbra.evaluate.overlap import label_map
from penumbra.evaluate.ranking import stated
from penumbra.types import IGNORE

FINE = 1000
"""Fine bins per reported bin: what equal-mass edges are resolved to."""

NLL_FLOOR = 1e-7
"""Probabilities below this count as this in the NLL, so that one float32 zero is not infinite."""

CHUNK = 1 << 18
"""Voxels worked on at once."""

Scheme = Literal["width", "mass"]


@dataclass(frozen=True, slots=True)
class Tally:
    """Sufficient statistics of calibration; ``a + b`` is the tally of both sets of predictions.

    Attributes:
        bins: number of reported bins.
        count, confidence, hits: per fine bin, number of predictions, sum of their confidences and
            number of hits.
        brier_sum, nll_sum: proper scores summed over predictions.
    """

    bins: int
    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    hits: NDArray[np.float64]
    brier_sum: float
    nll_sum: float

    def __add__(self, other: "Tally") -> "Tally":
        if self.bins != other.bins:
            raise ValueError(f"tallies of {self.bins} and {other.bins} bins cannot be added")
        return Tally(
            self.bins,
            self.count + other.count,
            self.confidence + other.confidence,
            self.hits + other.hits,
            self.brier_sum + other.brier_sum,
            self.nll_sum + other.nll_sum,
        )

    @property
    def n(self) -> float:
        """Number of predictions tallied."""
        return float(self.count.sum())


@dataclass(frozen=True, slots=True)
class Reliability:
    """One reliability diagram: per bin, its mass (sums to 1), mean confidence and hit rate.

    Confidence and hit rate of an empty bin are NaN.
    """

    mass: NDArray[np.float64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def empty(bins: int = 15) -> Tally:
    """The tally of no prediction, where a sum over cases starts."""
    none = np.zeros(bins * FINE)
    return Tally(bins, none, none, none, 0.0, 0.0)


def categorical(
    probability: Float[Array, "c *space"],
    reference: Integer[Array, "*space"],
    *,
    within: Bool[Array, "*space"] | None = None,
    bins: int = 15,
) -> Tally:
    """Tally mutually exclusive classes.

    Voxels with reference -1 or outside ``within`` are left out.

    Raises:
        ValueError: probabilities lie outside 0..1 or do not sum to 1 (within 0.01, as stored
            8-bit maps do), or the reference names no class.
    """
    tally = empty(bins)
    for p, labels in _voxels(probability, reference, within):
        chosen = np.take_along_axis(p, labels[None], axis=0)[0]
        hit = label_map(p) == labels
        squared = np.einsum("cv,cv->", p, p) - 2 * chosen.sum() + labels.size
        tally += _tally(p.max(axis=0), hit, float(squared), _nll(chosen), bins)
    return tally


def classwise(
    probability: Float[Array, "c *space"],
    reference: Integer[Array, "*space"],
    *,
    within: Bool[Array, "*space"] | None = None,
    bins: int = 15,
) -> tuple[Tally, ...]:
    """One Bernoulli tally per class against the rest (marginal calibration, Kull et al. 2019)."""
    tallies = [empty(bins)] * len(probability)
    for p, labels in _voxels(probability, reference, within):
        for c in range(len(p)):
            tallies[c] += _bernoulli(p[c], labels == c, bins)
    return tuple(tallies)


def bernoulli(probability: Float[Array, "*shape"], labels: Array, *, bins: int = 15) -> Tally:
    """Tally the probability of "present" against labels 1 and 0; -1 and NaN are left out.

    Raises:
        ValueError: a probability lies outside 0..1, or a label is none of 1, 0, -1 and NaN.
    """
    truth = np.asarray(as_numpy(labels), dtype=np.float64)
    known = stated(truth)
    p = as_numpy(probability)[known].astype(np.float64)
    _check_range(p)
    return _bernoulli(p, truth[known] == 1, bins)


def reliability(tally: Tally, *, scheme: Scheme = "width") -> Reliability:
    """Collect the fine bins into equally wide bins, or into bins of equal mass.

    Equal-mass edges may cut through a fine bin; its predictions are then shared out in
    proportion, as if they were all alike.
    """
    columns = np.stack([tally.count, tally.confidence, tally.hits])
    match scheme:
        case "width":
            merged = columns.reshape(3, tally.bins, FINE).sum(axis=2)
        case "mass":
            merged = _equal_mass(columns, tally.bins)
    count, confidence, hits = merged
    total = max(tally.n, 1.0)
    return Reliability(
        count / total,
        np.divide(confidence, count, out=np.full_like(count, np.nan), where=count > 0),
        np.divide(hits, count, out=np.full_like(count, np.nan), where=count > 0),
    )


def ece(tally: Tally, *, scheme: Scheme = "width") -> float:
    r"""Expected calibration error, in 0..1.

    $$ \sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b| $$

    Guo et al. 2017, bins (lo, hi]. NaN for an empty tally.

    Example:
        >>> half_right = bernoulli(np.array([0.9, 0.9]), np.array([1.0, 0.0]))
        >>> round(ece(half_right), 6)
        0.4
    """
    if not tally.n:
        return float("nan")
    curve = reliability(tally, scheme=scheme)
    return float(np.nansum(curve.mass * np.abs(curve.accuracy - curve.confidence)))


def weighted_ece(
    p: Float[np.ndarray, "n"],
    present: Float[np.ndarray, "n"],
    weights: Float[np.ndarray, "s n"],
    *,
    bins: int = 15,
) -> Float[np.ndarray, "s"]:
    """Equal-width ECE of a Bernoulli label under each row of case weights, for the bootstrap.

    Note that a resample is noisier than the sample, and that noise only adds to an ECE: on few
    cases the interval lies above the value's true counterpart.
    """
    _check_range(p)
    member = _cell(p, bins)[:, None] == np.arange(bins)
    gap = np.abs((weights * (present - p)) @ member.astype(np.float64))
    total = weights.sum(axis=1)
    return np.divide(gap.sum(axis=1), total, out=np.full_like(total, np.nan), where=total > 0)


def brier(tally: Tally) -> float:
    r"""Mean squared distance to the truth: $\sum_c (p_c - y_c)^2$ in 0..2 for classes, $(p - y)^2$
    in 0..1 for a Bernoulli label. NaN for an empty tally."""
    return tally.brier_sum / tally.n if tally.n else float("nan")


def nll(tally: Tally) -> float:
    """Mean negative log-likelihood in nats; probabilities are floored at ``NLL_FLOOR``."""
    return tally.nll_sum / tally.n if tally.n else float("nan")


def _voxels(
    probability: Array, reference: Array, within: Array | None
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Probabilities [c, v] and labels [v] of the voxels that count, a chunk at a time."""
    whole, truth = as_numpy(probability), as_numpy(reference).ravel()
    flat = whole.reshape(len(whole), -1)
    inside = truth != IGNORE
    if within is not None:
        inside &= as_numpy(within).ravel()
    for start in range(0, len(truth), CHUNK):
        here = slice(start, start + CHUNK)
        chosen = np.flatnonzero(inside[here])
        kept = flat[:, here].take(chosen, axis=1).astype(np.float64)
        labels = truth[here][chosen].astype(np.int64)
        if labels.size == 0:
            continue
        _check_range(kept)
        if np.abs(kept.sum(axis=0) - 1).max() > 1e-2:
            raise ValueError("class probabilities do not sum to 1 over classes; are they sigmoids?")
        if labels.min() < 0 or labels.max() >= len(kept):
            raise ValueError(
                f"reference: expected class indices -1..{len(kept) - 1}, "
                f"got {labels.min()}..{labels.max()}"
            )
        yield kept, labels


def _bernoulli(p: NDArray[np.float64], present: NDArray[np.bool_], bins: int) -> Tally:
    squared = float(np.square(p - present).sum())
    return _tally(p, present, squared, _nll(np.where(present, p, 1 - p)), bins)


def _tally(
    confidence: NDArray[np.float64],
    hit: NDArray[np.bool_],
    brier_sum: float,
    nll_sum: float,
    bins: int,
) -> Tally:
    fine = bins * FINE
    cell = _cell(confidence, fine)
    return Tally(
        bins,
        np.bincount(cell, minlength=fine).astype(np.float64),
        np.bincount(cell, weights=confidence, minlength=fine).astype(np.float64),
        np.bincount(cell, weights=hit, minlength=fine).astype(np.float64),
        brier_sum,
        nll_sum,
    )


def _cell(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Index of the bin (lo, hi]; float32(0.2), an edge rounded up, stays in the bin it closes."""
    cell = np.ceil(confidence * bins - 7e-8 * bins).astype(np.int64) - 1
    return np.clip(cell, 0, bins - 1, out=cell)


def _equal_mass(columns: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Cut the fine bins at equal steps of mass by interpolating the cumulative sums."""
    cumulative = np.concatenate([np.zeros((3, 1)), np.cumsum(columns, axis=1)], axis=1)
    mass, first = np.unique(cumulative[0], return_index=True)
    edges = np.linspace(0.0, mass[-1], bins + 1)
    cuts = np.stack([np.interp(edges, mass, row[first]) for row in cumulative])
    return np.diff(cuts, axis=1)


def _nll(chosen: NDArray[np.float64]) -> float:
    return float(-np.log(np.maximum(chosen, NLL_FLOOR)).sum())


def _check_range(p: NDArray[np.float64]) -> None:
    if p.size and not (p.min() >= -1e-6 and p.max() <= 1 + 1e-6):
        raise ValueError(
            f"probabilities must lie in 0..1 (logits are not taken), "
            f"got {p.min():.4g}..{p.max():.4g}"
        )
