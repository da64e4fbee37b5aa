"""From sealed rows to numbers: every arm with its interval, and arms against arms, paired.

Patients and seeds are drawn again together. Nothing here trains or reads an image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penumbra.errors import DataError
from penumbra.evaluate.ranking import weighted_auroc
from penumbra.evaluate.statistics import (
    Interval,
    crossed_bootstrap,
    interval,
    resamples,
    wilcoxon,
)

Rows = Sequence[dict[str, Any]]
Values = NDArray[np.float64]
BINS = 15


@dataclass(frozen=True)
class Group:
    """All seeds of one arm at one fraction."""

    arm: str
    fraction: float
    rows: tuple[dict[str, Any], ...]

    @property
    def title(self) -> str:
        return f"{self.arm} at {self.fraction:.0%}"


@dataclass(frozen=True)
class Measure:
    """One figure: a column of the cases, or of the probes in one condition.

    Attributes:
        column: of ``cases.csv``, with ``*`` at its end the mean of all that begin so; the names in
            ``COHORT`` are computed over all cases at once.
        kind, condition, level: of a probe; empty for the unattacked cases.
        finding: the only one that a figure of whole cohorts looks at; empty: the mean over all.
    """

    column: str
    kind: str = ""
    condition: str = ""
    level: float = 0.0
    lower_is_better: bool = False
    finding: str = ""


def groups(rows: Rows) -> list[Group]:
    """Rows by arm and fraction, in the order in which they stand.

    Raises:
        DataError: the rows were not computed on one split.
    """
    splits = {row["split_hash"] for row in rows if "split_hash" in row}
    if len(splits) > 1:
        raise DataError(f"the rows stem from {len(splits)} splits of patients; they do not compare")
    keys = dict.fromkeys((row["arm"], row["fraction"]) for row in rows)
    return [
        Group(
            arm, float(share), tuple(r for r in rows if (r["arm"], r["fraction"]) == (arm, share))
        )
        for arm, share in keys
    ]


def find(found: Sequence[Group], arm: str, fraction: float) -> Group | None:
    """An arm at a share of labels; None where it was not run."""
    return next((g for g in found if g.arm == arm and g.fraction == fraction), None)


def summary(group: Group, measure: Measure, *, samples: int = 2000, seed: int = 0) -> Interval:
    """A figure of one arm over its patients and seeds."""
    if measure.column in COHORT:
        return _over_cohort(group, None, (measure, measure), samples=samples, seed=seed)
    values, patients = _matrix(group, measure)
    if values.size == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    return crossed_bootstrap(values, patients, samples=samples, seed=seed)


def gain(
    ours: Group,
    theirs: Group,
    measure: Measure,
    *,
    against: Measure | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[Interval, float]:
    """Relative improvement of one arm over another on the same patients, and Wilcoxon's p.

    Positive means better, also where lower values are. The test is over patients, seeds averaged.
    ``against`` is the other arm's figure when it is called otherwise (its scaled ECE).
    """
    if measure.column in COHORT:
        pair = (measure, against or measure)
        return _over_cohort(ours, theirs, pair, samples=samples, seed=seed), float("nan")
    a, patients = _matrix(ours, measure)
    b, others = _matrix(theirs, against or measure)
    shared = [p for p in patients if p in set(others)]
    if not shared:
        return Interval(np.nan, np.nan, np.nan, 0), float("nan")
    a = a[:, [patients.index(p) for p in shared]]
    b = b[:, [others.index(p) for p in shared]]
    if len(a) != len(b):  # an ensemble has one value where its rival has one per seed
        a, b = (np.nanmean(x, axis=0, keepdims=True) for x in (a, b))
    difference = b - a if measure.lower_is_better else a - b
    effect = crossed_bootstrap(difference, shared, over=b, samples=samples, seed=seed)
    return effect, wilcoxon(a.mean(axis=0), b.mean(axis=0))


def _matrix(group: Group, measure: Measure) -> tuple[Values, list[str]]:
    """[seeds, patients]: each patient's mean over their cases."""
    per_seed = [_per_patient(row, measure) for row in group.rows]
    patients = sorted({patient for each in per_seed for patient in each})
    values = [[each.get(patient, np.nan) for patient in patients] for each in per_seed]
    return np.array(values, dtype=np.float64).reshape(len(per_seed), len(patients)), patients


def _per_patient(row: dict[str, Any], measure: Measure) -> dict[str, float]:
    collected: dict[str, list[float]] = {}
    for patient, value in _values(row, measure):
        if value is not None:
            collected.setdefault(patient, []).append(value)
    return {patient: float(np.mean(values)) for patient, values in collected.items()}


def _values(row: dict[str, Any], measure: Measure) -> list[tuple[Any, Any]]:
    if not measure.kind:
        return [(case["patient"], _column(case, measure.column)) for case in row["cases"]]
    probe = _probe(row, measure)
    return list(zip(probe["patients"], probe[measure.column], strict=True)) if probe else []


def _column(case: dict[str, Any], column: str) -> float | None:
    if not column.endswith("*"):
        return case.get(column)
    found = [v for k, v in case.items() if k.startswith(column[:-1]) and v is not None]
    return float(np.mean(found)) if found else None


def _probe(row: dict[str, Any], measure: Measure) -> dict[str, Any] | None:
    wanted = (measure.kind, measure.condition, measure.level)
    return next((p for p in row["probes"] if (p["kind"], p["name"], p["level"]) == wanted), None)


def _over_cohort(
    ours: Group, theirs: Group | None, pair: tuple[Measure, Measure], *, samples: int, seed: int
) -> Interval:
    """A figure of whole cohorts, or its relative gain; patients and seeds are drawn again."""
    measure = pair[0]
    named = [(g, m) for g, m in zip((ours, theirs), pair, strict=True) if g is not None]
    sides = [[_scored(row, m) for row in g.rows] for g, m in named]
    tables = [table for side in sides for table in side]
    if tables[0] is None or any(table is None for table in tables):
        return Interval(np.nan, np.nan, np.nan, 0)
    patients = tables[0][2]
    ones = np.ones((1, len(patients)))

    def value(weights: Values, trained: list[Values]) -> Values:
        means = [
            np.einsum("sr,rs->s", counts, np.stack([_macro(t, weights, measure) for t in side]))
            / counts.sum(axis=1)
            for side, counts in zip(sides, trained, strict=True)
        ]
        if len(means) == 1:
            return means[0]
        return (means[0] - means[1]) / means[1] * (-1 if measure.lower_is_better else 1)

    rng = np.random.default_rng([seed, 1])
    point = value(ones, [np.ones((1, len(side))) for side in sides])
    draws = []
    for weights in resamples(patients, samples=samples, seed=seed):
        counts = [
            rng.multinomial(len(s), np.full(len(s), 1 / len(s)), size=len(weights)) for s in sides
        ]
        draws.append(value(weights, [c.astype(np.float64) for c in counts]))
    return interval(float(point[0]), np.concatenate(draws), n=len(set(patients)))


def _macro(table: Any, weights: Values, measure: Measure) -> Values:
    """Mean over findings, those left out that have one class only, per row of case weights."""
    probability, label, _ = table
    figure = COHORT[measure.column]
    found = []
    for f in range(label.shape[1]):
        known = (label[:, f] == 0) | (label[:, f] == 1)
        found.append(figure(probability[known, f], label[known, f], weights[:, known]))
    stacked = np.stack(found)
    defined = ~np.isnan(stacked)
    total, count = np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _ece(probability: Values, label: Values, weights: Values) -> Values:
    """Expected calibration error of "present" in 15 bins of equal width."""
    bins = np.eye(BINS)[np.minimum((probability * BINS).astype(int), BINS - 1)]
    gap = np.abs(weights @ (bins * (label - probability)[:, None])).sum(axis=1)
    total = weights.sum(axis=1)
    return np.divide(gap, total, out=np.full_like(gap, np.nan), where=total > 0)


COHORT: dict[str, Callable[[Values, Values, Values], Values]] = {
    "auroc": weighted_auroc,
    "ece_findings": _ece,
    "ece_findings_scaled": _ece,
}


def _scored(row: dict[str, Any], measure: Measure) -> tuple[Values, Values, list[str]] | None:
    """Probabilities [n, f], labels [n, f] and patients [n] of the cases, or of the probes."""
    if measure.kind:
        probe = _probe(row, measure)
        if probe is None or "label" not in probe:
            return None
        columns = [np.array(probe[key], dtype=np.float64) for key in ("probability", "label")]
        return columns[0], columns[1], probe["patients"]
    stated = [key for key in row["cases"][0] if key.startswith("label_")] if row["cases"] else []
    names = [key for key in stated if measure.finding in ("", key.removeprefix("label_"))]
    if not names:
        return None
    p, y = (
        np.array([[_float(c[prefix + n[6:]]) for n in names] for c in row["cases"]])
        for prefix in ("probability_", "label_")
    )
    if measure.column.endswith("_scaled"):
        odds = np.log(np.clip(p, 1e-12, 1)) - np.log(np.clip(1 - p, 1e-12, 1))
        p = 1 / (1 + np.exp(-odds / row["calibration"]["finding_temperature"]))
    return p, y, [case["patient"] for case in row["cases"]]


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
