"""From what each case scored to one row per figure: the protocol by which any network is judged.

``segmentation.score_segmentation`` scores a case alone; ``summarise`` averages cases over patients
with a bootstrap interval; ``findings.score_findings`` makes the rows of image-level labels, whose
figures exist only over a cohort; ``to_json`` writes ``metrics.json`` (docs/metrics.md).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penumbra.evaluate import selective
from penumbra.evaluate.statistics import Interval, bootstrap, by_repeating

SCHEMA = 1
ALL = "all"
"""Label of a figure that concerns every class or finding at once."""

MEAN = "mean"
"""Label of a figure averaged over regions or findings."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ``metrics.json``.

    Attributes:
        part: split or condition, e.g. ``test``, ``val``, ``test/pgd eps=0.004``.
        label: region, class or finding; ``mean`` over them; ``all`` where the metric has none.
        value, low, high: NaN (``null`` in JSON) where undefined.
        n: units behind the value.
        undefined: values left out because the metric does not exist for them.
    """

    part: str
    metric: str
    label: str
    value: float
    low: float
    high: float
    n: int
    unit: str = "patient"
    undefined: int = 0


@dataclass(frozen=True, slots=True)
class CaseScores:
    """What one case scored, by (metric, label)."""

    case: str
    patient: str
    scores: Mapping[tuple[str, str], float]


def summarise(
    cases: Sequence[CaseScores], *, part: str, samples: int = 2000, seed: int = 0
) -> list[Row]:
    """Mean over patients of every per-case figure, with a patient-bootstrap interval.

    A patient's cases are averaged first. Cases in which a figure is undefined are left out of it
    and counted in ``undefined``.
    """
    keys = list(dict.fromkeys(key for case in cases for key in case.scores))
    rows = []
    for metric, label in keys:
        values = [case.scores.get((metric, label), math.nan) for case in cases]
        interval = bootstrap(_per_patient(cases, values), samples=samples, seed=seed)
        rows.append(row(part, metric, label, interval, undefined=int(np.isnan(values).sum())))
    return rows


def summarise_selective(
    cases: Sequence[CaseScores],
    *,
    part: str,
    risk: tuple[str, str] = ("dice", MEAN),
    failure: float = 0.5,
    target: float = 0.05,
    seed: int = 0,
) -> list[Row]:
    """How well each ``uncertainty/...`` figure of the cases ranks them by ``1 - risk score``.

    Args:
        risk: the (metric, label) whose shortfall from 1 is the risk.
        failure: a case whose score lies below this is a failure, for the review budget.
        target: failures that may be left, as a share of all cases.
    """
    names = dict.fromkeys(
        metric for case in cases for metric, _ in case.scores if metric.startswith("uncertainty/")
    )
    loss = [1 - case.scores.get(risk, math.nan) for case in cases]
    patients = [case.patient for case in cases]
    rows = []
    for name in names:
        unsure = [case.scores.get((name, ALL), math.nan) for case in cases]
        pairs = np.stack([np.array(unsure), np.array(loss)], axis=1)
        for metric, function in _SELECTIVE.items():
            interval = bootstrap(
                pairs, patients, statistic=by_repeating(function), samples=500, seed=seed
            )
            rows.append(row(part, metric, name, interval))
        defined = ~np.isnan(pairs).any(axis=1)
        budget = selective.review_budget(
            pairs[defined, 0], pairs[defined, 1] > 1 - failure, target=target
        )
        n, undefined = int(defined.sum()), int((~defined).sum())
        for metric, value in (
            ("review_share", budget.share),
            ("review_share_random", budget.random_share),
        ):
            rows.append(row(part, metric, name, Interval(value, math.nan, math.nan, n, undefined)))
    return rows


def mean_of_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN when none is left."""
    defined = [v for v in values if not math.isnan(v)]
    return float(np.mean(defined)) if defined else math.nan


def row(
    part: str, metric: str, label: str, interval: Interval, *, undefined: int | None = None
) -> Row:
    """An interval as a row of ``metrics.json``."""
    return Row(
        part,
        metric,
        label,
        interval.value,
        interval.low,
        interval.high,
        interval.n,
        undefined=interval.undefined if undefined is None else undefined,
    )


def to_json(rows: Sequence[Row]) -> str:
    """The text of ``metrics.json``; NaN becomes ``null``, since JSON has no NaN."""
    tree = {"schema": SCHEMA, "rows": [_plain(each) for each in rows]}
    return json.dumps(tree, indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> list[Row]:
    """The rows that ``to_json`` wrote.

    Raises:
        ValueError: the text is not JSON of this schema.
    """
    tree = json.loads(text)
    if not isinstance(tree, dict) or tree.get("schema") != SCHEMA:
        raise ValueError(f"not a metrics file of schema {SCHEMA}")
    names = {f.name for f in fields(Row)}
    rows = []
    for each in tree["rows"]:
        if set(each) != names:
            raise ValueError(f"a row must have the fields {sorted(names)}, got {sorted(each)}")
        numbers = {k: math.nan if each[k] is None else each[k] for k in ("value", "low", "high")}
        rows.append(Row(**(each | numbers)))
    return rows


def _per_patient(cases: Sequence[CaseScores], values: Sequence[float]) -> list[float]:
    collected: dict[str, list[float]] = {}
    for case, value in zip(cases, values, strict=True):
        collected.setdefault(case.patient, []).append(value)
    return [mean_of_defined(mine) for mine in collected.values()]


def _plain(each: Row) -> dict[str, Any]:
    tree = asdict(each)
    for name in ("value", "low", "high"):
        tree[name] = None if not math.isfinite(tree[name]) else tree[name]
    return tree


_SELECTIVE: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "spearman_risk": lambda rows: selective.spearman(rows[:, 0], rows[:, 1]),
    "aurc": lambda rows: selective.aurc(rows[:, 0], rows[:, 1]),
    "excess_aurc": lambda rows: selective.excess_aurc(rows[:, 0], rows[:, 1]),
}
