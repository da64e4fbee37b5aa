"""From what each case scored to one row per figure: the protocol by which any network is judged.

``segmentation.score_segmentation`` scores a case alone; ``summarise`` averages cases over patients
with a bootstrap interval; ``findings.score_findings`` makes the rows of image-level labels, whose
figures exist only over a cohort; ``to_json`` writes ``metrics.json`` (docs/metrics.md).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from penumbra.evaluate import selective
from penumbra.evaluate.statistics import Interval, Statistic, bootstrap, by_repeating, mean

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
    cases: Sequence[CaseScores],
    *,
    part: str,
    statistic: Literal["mean", "median"] = "mean",
    samples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Mean over patients of every per-case figure, with a patient-bootstrap interval.

    A patient's cases are averaged first. Cases in which a figure is undefined are left out of it
    and counted in ``undefined``. With ``statistic="median"`` the metrics' names end in
    ``_median``: Dice is skewed, and a few lost patients hide in neither figure when both stand.
    """
    ending = "" if statistic == "mean" else "_median"
    over_patients = mean if statistic == "mean" else by_repeating(_median)
    keys = list(dict.fromkeys(key for case in cases for key in case.scores))
    rows = []
    for metric, label in keys:
        interval = bootstrap(
            list(patient_means(cases, (metric, label)).values()),
            statistic=over_patients,
            samples=samples,
            seed=seed,
        )
        undefined = sum(math.isnan(c.scores.get((metric, label), math.nan)) for c in cases)
        rows.append(row(part, metric + ending, label, interval, undefined=undefined))
    return rows


def summarise_selective(
    cases: Sequence[CaseScores],
    *,
    part: str,
    risk: tuple[str, str] = ("dice", MEAN),
    samples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """How well each ``uncertainty/...`` figure ranks the cases by 1 minus the score ``risk``.

    Per uncertainty: ``spearman_risk``, ``aurc`` and ``excess_aurc``, with patient-bootstrap
    intervals; the row's label is the uncertainty.
    """
    patients = [case.patient for case in cases]
    rows = []
    for name, pairs in _uncertainty_and_risk(cases, risk).items():
        for metric, statistic in _SELECTIVE.items():
            interval = bootstrap(pairs, patients, statistic=statistic, samples=samples, seed=seed)
            rows.append(row(part, metric, name, interval))
    return rows


def summarise_review(
    cases: Sequence[CaseScores],
    *,
    part: str,
    risk: tuple[str, str] = ("dice", MEAN),
    failure: float = selective.POOR_DICE,
    target: float = 0.05,
) -> list[Row]:
    """What must be reviewed so that at most ``target`` of all cases are failures left unseen.

    A case fails when its score ``risk`` lies below ``failure``. Per uncertainty:
    ``review_share``, and ``review_share_random`` for a reviewer who picks at random. Both are
    properties of these cases and have no interval.
    """
    rows = []
    for name, pairs in _uncertainty_and_risk(cases, risk).items():
        defined = ~np.isnan(pairs).any(axis=1)
        unsure, loss = pairs[defined].T
        budget = selective.review_budget(unsure, loss > 1 - failure, target=target)
        n, undefined = int(defined.sum()), int((~defined).sum())
        for metric, value in (
            ("review_share", budget.share),
            ("review_share_random", budget.random_share),
        ):
            rows.append(Row(part, metric, name, value, math.nan, math.nan, n, "case", undefined))
    return rows


def patient_means(cases: Sequence[CaseScores], key: tuple[str, str]) -> dict[str, float]:
    """Patient -> mean of one figure over the patient's cases; NaN where none is defined."""
    collected: dict[str, list[float]] = {}
    for case in cases:
        collected.setdefault(case.patient, []).append(case.scores.get(key, math.nan))
    return {patient: mean_of_defined(values) for patient, values in collected.items()}


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


def to_json(rows: Sequence[Row], record: Mapping[str, Any] | None = None) -> str:
    """The text of ``metrics.json``: the rows (``plain``), before them what ``record`` says."""
    tree = {"schema": SCHEMA, **(record or {}), "rows": plain(rows)}
    return json.dumps(tree, indent=1) + "\n"


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON keeps them; NaN becomes None, since JSON has no NaN."""
    trees = [asdict(each) for each in rows]
    for tree in trees:
        tree |= {k: None for k in ("value", "low", "high") if not math.isfinite(tree[k])}
    return trees


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


def _uncertainty_and_risk(
    cases: Sequence[CaseScores], risk: tuple[str, str]
) -> dict[str, NDArray[np.float64]]:
    """Rows (uncertainty, risk), one per case, for every uncertainty that some case carries."""
    names = dict.fromkeys(
        metric for case in cases for metric, _ in case.scores if metric.startswith("uncertainty/")
    )
    loss = [1 - case.scores.get(risk, math.nan) for case in cases]
    return {
        name: np.array(
            [
                (case.scores.get((name, ALL), math.nan), each)
                for case, each in zip(cases, loss, strict=True)
            ]
        )
        for name in names
    }


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


_SELECTIVE: dict[str, Statistic] = {
    "spearman_risk": by_repeating(lambda rows: selective.spearman(rows[:, 0], rows[:, 1])),
    "aurc": lambda rows, w: selective.weighted_aurc(rows[:, 0], rows[:, 1], w),
    "excess_aurc": lambda rows, w: (
        selective.weighted_aurc(rows[:, 0], rows[:, 1], w)
        - selective.weighted_aurc(rows[:, 1], rows[:, 1], w)
    ),
}
