"""From sealed rows to numbers: every arm with its interval, and arms against arms, paired.

Patients and seeds are drawn again together. Nothing here trains or reads an image.
"""

from collections.abc import Sequence
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
        column: of ``cases.csv``; ``auroc`` and ``ece_findings`` are computed over all cases.
        kind, condition, level: of a probe; empty for the unattacked cases.
    """

    column: str
    kind: str = ""
    condition: str = ""
    level: float = 0.0
    lower_is_better: bool = False


def groups(rows: Rows) -> list[Group]:
    """Rows by arm and fraction, in the order in which they stand.

    Raises:
        DataError: the rows were not computed on one split.
    """
    splits = {row["split_hash"] for row in rows}
    if len(splits) > 1:
        raise DataError(f"the rows stem from {len(splits)} splits of patients; they do not compare")
    keys = dict.fromkeys((row["arm"], row["fraction"]) for row in rows)
    return [
        Group(arm, share, tuple(r for r in rows if (r["arm"], r["fraction"]) == (arm, share)))
        for arm, share in keys
    ]


def find(found: Sequence[Group], arm: str, fraction: float) -> Group | None:
    return next((g for g in found if g.arm == arm and g.fraction == fraction), None)


def summary(group: Group, measure: Measure, *, samples: int = 2000, seed: int = 0) -> Interval:
    """A figure of one arm over its patients and seeds."""
    if measure.column == "auroc":
        return _macro_auroc(group, None, measure, samples=samples, seed=seed)
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
    if measure.column == "auroc":
        return _macro_auroc(ours, theirs, measure, samples=samples, seed=seed), float("nan")
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
            collected.setdefault(str(patient), []).append(float(value))
    return {patient: float(np.mean(values)) for patient, values in collected.items()}


def _values(row: dict[str, Any], measure: Measure) -> list[tuple[Any, Any]]:
    if not measure.kind:
        return [(case["patient"], case.get(measure.column)) for case in row["cases"]]
    probe = _probe(row, measure)
    return list(zip(probe["patients"], probe[measure.column], strict=True)) if probe else []


def _probe(row: dict[str, Any], measure: Measure) -> dict[str, Any] | None:
    wanted = (measure.kind, measure.condition, measure.level)
    return next((p for p in row["probes"] if (p["kind"], p["name"], p["level"]) == wanted), None)


def _macro_auroc(
    ours: Group, theirs: Group | None, measure: Measure, *, samples: int, seed: int
) -> Interval:
    """Mean AUROC over findings and seeds, or its relative gain; patients and seeds drawn again."""
    sides = [[_scored(row, measure) for row in g.rows] for g in (ours, theirs) if g is not None]
    tables = [table for side in sides for table in side]
    if any(table is None for table in tables):
        return Interval(np.nan, np.nan, np.nan, 0)
    patients = tables[0][2]
    ones = np.ones((1, len(patients)))

    def value(weights: Values, trained: list[Values]) -> Values:
        means = [
            np.einsum("sr,rs->s", counts, np.stack([_macro(t, weights) for t in side]))
            / counts.sum(axis=1)
            for side, counts in zip(sides, trained, strict=True)
        ]
        return means[0] if len(means) == 1 else (means[0] - means[1]) / means[1]

    rng = np.random.default_rng([seed, 1])
    point = value(ones, [np.ones((1, len(side))) for side in sides])
    draws = []
    for weights in resamples(patients, samples=samples, seed=seed):
        counts = [
            rng.multinomial(len(s), np.full(len(s), 1 / len(s)), size=len(weights)) for s in sides
        ]
        draws.append(value(weights, [c.astype(np.float64) for c in counts]))
    return interval(float(point[0]), np.concatenate(draws), n=len(set(patients)))


def _macro(table: Any, weights: Values) -> Values:
    probability, label, _ = table
    areas = []
    for f in range(label.shape[1]):
        known = (label[:, f] == 0) | (label[:, f] == 1)
        areas.append(weighted_auroc(probability[known, f], label[known, f], weights[:, known]))
    stacked = np.stack(areas)
    defined = ~np.isnan(stacked)
    total = np.where(defined, stacked, 0).sum(axis=0)
    count = defined.sum(axis=0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _scored(row: dict[str, Any], measure: Measure) -> tuple[Values, Values, list[str]] | None:
    """Probabilities [n, f], labels [n, f] and patients [n] of the cases, or of the probes."""
    if measure.kind:
        probe = _probe(row, measure)
        if probe is None or "label" not in probe:
            return None
        columns = [np.array(probe[key], dtype=np.float64) for key in ("probability", "label")]
        return columns[0], columns[1], [str(p) for p in probe["patients"]]
    names = [key for key in row["cases"][0] if key.startswith("label_")] if row["cases"] else []
    if not names:
        return None
    p, y = (
        np.array([[_float(c[prefix + n[6:]]) for n in names] for c in row["cases"]])
        for prefix in ("probability_", "label_")
    )
    return p, y, [str(case["patient"]) for case in row["cases"]]


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
