"""Numbers of a run as a reader meets them: the headline first, every score with its interval."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penumbra.report.read import RunFolder, Tree
from penumbra.report.words import Family, family, lower_is_better, spell

HEADLINE = ("dice", "auroc", "auc", "hd95_mm", "hd95", "ece", "brier", "aurc", "auprc", "nll")
OVERALL = ("mean", "macro", "overall", "all", "")
MOST_TILES = 6
PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Score:
    """A value with its interval, as text and, on a 0..1 metric, as shares of a small bar."""

    metric: str
    label: str
    text: str
    interval: str
    n: str
    direction: str
    bar: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Table:
    """Scores by two names; ``cells[row][column]`` is absent where nothing was measured.

    ``n`` is the count behind every cell, when it is one and the same.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Score | None, ...], ...]
    n: str


@dataclass(frozen=True, slots=True)
class CaseRow:
    case: str
    site: str
    part: str
    values: tuple[str, ...]
    score: float
    worst: bool


@dataclass(frozen=True, slots=True)
class CaseList:
    """Held-out cases, worst first, by ``metric``."""

    metric: str
    columns: tuple[str, ...]
    rows: tuple[CaseRow, ...]


def score(row: Tree) -> Score:
    """One row of ``metrics.json`` for reading."""
    value, low, high = (_number(row.get(key)) for key in ("value", "low", "high"))
    has_interval = math.isfinite(low) and math.isfinite(high)
    unit = row.get("unit", "patient")
    on_unit_scale = has_interval and low >= 0 and high <= 1
    return Score(
        metric=spell(str(row.get("metric", ""))),
        label=str(row.get("label", "")),
        text=show(value),
        interval=f"{show(low)} to {show(high)}" if has_interval else "no interval",
        n=f"{row['n']} {unit}s" if row.get("n") is not None else "",
        direction="lower is better" if lower_is_better(str(row.get("metric", ""))) else "",
        bar=(low, value, high) if on_unit_scale and math.isfinite(value) else None,
    )


def headline(rows: Sequence[Tree]) -> list[Score]:
    """The few scores to read first, on test patients, over all structures where that exists."""
    held_out = [row for row in rows if row.get("part") == "test"] or list(rows)
    names = list(dict.fromkeys(str(row.get("metric")) for row in held_out))
    first = [name for name in HEADLINE if name in names]
    rest = [name for name in names if name not in first and _overall(held_out, name)]
    return [score(_representative(held_out, name)) for name in (first + rest)[:MOST_TILES]]


def tables(rows: Sequence[Tree], *, part: str) -> dict[Family, Table]:
    """Every score of a part, by section of the report; the longer axis runs down."""
    chosen = [row for row in rows if row.get("part") == part]
    found: dict[Family, Table] = {}
    for name in dict.fromkeys(family(str(row.get("metric"))) for row in chosen):
        found[name] = _table([row for row in chosen if family(str(row.get("metric"))) == name])
    return found


def cohort(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Counts of cases by part and, where the case list knows it, by site."""
    sites = sorted({case.get("site") or "" for case in run.cases} - {""})
    seen = Counter((case.get("part", ""), case.get("site") or "") for case in run.cases)
    body = []
    for part in PARTS:
        scored = sum(count for (where, _), count in seen.items() if where == part)
        total = len(run.split[part]) if part in run.split else scored
        if total:
            by_site = [str(seen[part, site]) if scored else "·" for site in sites]
            body.append([part, str(total), *by_site])
    return ["part", "cases", *sites], body


def case_list(cases: Sequence[Mapping[str, str]]) -> CaseList | None:
    """Test cases by their main score, worst first; a tenth of them (at least one) flagged."""
    test = [case for case in cases if case.get("part") == "test"] or list(cases)
    if not test:
        return None
    columns = [c for c in test[0] if c not in {"case", "patient", "site", "part"}]
    metric = next((c for name in HEADLINE for c in columns if c.startswith(name)), None)
    if metric is None:
        return None
    sign = -1 if lower_is_better(metric) else 1
    scored = [(case, _number(case.get(metric))) for case in test]
    scored.sort(key=lambda pair: sign * pair[1] if math.isfinite(pair[1]) else math.inf)
    flagged = max(1, sum(math.isfinite(value) for _, value in scored) // 10)
    rows = [
        CaseRow(
            case=case.get("case", ""),
            site=case.get("site") or "",
            part=case.get("part", ""),
            values=tuple(show(_number(case.get(column))) for column in columns),
            score=value,
            worst=place < flagged and math.isfinite(value),
        )
        for place, (case, value) in enumerate(scored)
    ]
    return CaseList(metric, tuple(columns), tuple(rows))


def accepted_coverage(curve: Tree, target: float) -> float | None:
    """The largest share of cases that may be kept with a risk of at most ``target``.

    Example:
        >>> accepted_coverage({"coverage": [0.2, 0.6, 1.0], "risk": [0.0, 0.04, 0.1]}, 0.05)
        0.6
    """
    pairs = zip(curve["coverage"], curve["risk"], strict=True)
    return max((c for c, risk in pairs if risk <= target), default=None)


def review_sentence(curve: Tree, target: float) -> str:
    """What the risk-coverage curve means for work: how much to review for which error."""
    accepted = accepted_coverage(curve, target)
    goal = f"{target:.0%}" if target >= 0.01 else f"{target:.2g}"
    if accepted is None:
        lowest = min(zip(curve["risk"], curve["coverage"], strict=True))
        return (
            f"No share of review keeps the mean risk under {goal} here: the lowest is "
            f"{lowest[0]:.1%}, when the {lowest[1]:.0%} most certain are kept."
        )
    if accepted >= 1:
        return f"The mean risk is under {goal} without any review."
    return (
        f"Reviewing the {1 - accepted:.0%} most uncertain keeps the mean risk of the rest "
        f"under {goal}; without review it is {curve['risk'][-1]:.1%}."
    )


def show(value: float) -> str:
    """A number in three digits; what was not measured is a dash.

    Example:
        >>> show(0.84321), show(12.345), show(1234.5), show(float("nan"))
        ('0.843', '12.3', '1234', '—')
    """
    if not math.isfinite(value):
        return "—"
    if value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1
    return f"{value:.{decimals}f}" if abs(value) >= 0.001 else f"{value:.1e}"


def _table(rows: Sequence[Tree]) -> Table:
    metrics = list(dict.fromkeys(str(row.get("metric")) for row in rows))
    labels = list(dict.fromkeys(str(row.get("label", "")) for row in rows))
    at = {(str(row.get("metric")), str(row.get("label", ""))): score(row) for row in rows}
    counts = {cell.n for cell in at.values()}
    n = counts.pop() if len(counts) == 1 else ""
    if len(labels) >= len(metrics) or len(metrics) <= 4:
        cells = tuple(tuple(at.get((m, name)) for m in metrics) for name in labels)
        return Table(tuple(labels), tuple(spell(m) for m in metrics), cells, n)
    cells = tuple(tuple(at.get((m, name)) for name in labels) for m in metrics)
    return Table(tuple(spell(m) for m in metrics), tuple(labels), cells, n)


def _overall(rows: Sequence[Tree], metric: str) -> Tree | None:
    mine = {str(row.get("label", "")): row for row in rows if row.get("metric") == metric}
    return next((mine[name] for name in OVERALL if name in mine), None)


def _representative(rows: Sequence[Tree], metric: str) -> Tree:
    first = next(row for row in rows if row.get("metric") == metric)
    return _overall(rows, metric) or first


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
