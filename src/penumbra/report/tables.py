"""Numbers of a run as a reader meets them: the headline first, every score with its interval."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penumbra.report.read import RunFolder, Tree
from penumbra.report.words import Family, family, lower_is_better, spell

HEADLINE = ("dice", "auroc", "hd95_mm", "ece", "ece_scaled", "brier", "aurc", "auprc", "nll")
RANKED_BY = "uncertainty/epistemic/region"
"""The uncertainty by which cases are ranked for review, unless a case list has only others."""
OVERALL = ("mean", "all", "", RANKED_BY)
MOST_TILES = 6
MOST_COLUMNS = 7
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
        label=str(row.get("label", "")).removeprefix("uncertainty/").replace("/", ", "),
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


def tables(rows: Sequence[Tree], *, part: str) -> dict[Family, list[Table]]:
    """Every score of a part, by section of the report; metrics with the same labels stand together.

    The longer axis of a table runs down.
    """
    groups: dict[Family, dict[frozenset[str], list[Tree]]] = {}
    chosen = [row for row in rows if row.get("part") == part]
    for metric in dict.fromkeys(str(row.get("metric")) for row in chosen):
        mine = [row for row in chosen if row.get("metric") == metric]
        labels = frozenset(str(row.get("label", "")) for row in mine)
        groups.setdefault(family(metric), {}).setdefault(labels, []).extend(mine)
    return {name: [_table(block) for block in blocks.values()] for name, blocks in groups.items()}


def conditions(rows: Sequence[Tree]) -> Table | None:
    """What the test cases scored under every attack and shift (parts named ``test/...``)."""
    named = [
        {**row, "label": str(row["part"]).removeprefix("test/")}
        for row in rows
        if str(row.get("part", "")).startswith("test/")
    ]
    return _table(named) if named else None


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
    metric = _main_column(test[0])
    if metric is None:
        return None
    columns = [c for c in test[0] if c.startswith(("dice", "hd95_mm", "surface_dice"))]
    columns = list(dict.fromkeys([metric, *columns]))[: MOST_COLUMNS - 1]
    unsure = uncertainty_column(test[0])
    columns += [unsure] if unsure and unsure != metric else []
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


def uncertainty_column(case: Mapping[str, str]) -> str | None:
    """The column of the case list that ranks cases for review."""
    names = [name for name in case if name.startswith("uncertainty")]
    first = [name for name in names if name in ("uncertainty", RANKED_BY)]
    epistemic = [name for name in names if "epistemic" in name]
    return next(iter(first + epistemic + names), None)


def _main_column(case: Mapping[str, str]) -> str | None:
    exact = [name for name in HEADLINE if name in case]
    by_label = [column for name in HEADLINE for column in case if column.startswith(f"{name}_")]
    return next(iter(exact + by_label), None) or uncertainty_column(case)


def accepted_coverage(curve: Tree, target: float) -> float | None:
    """The largest share of cases that may be kept with a risk of at most ``target``.

    Example:
        >>> accepted_coverage({"coverage": [0.2, 0.6, 1.0], "risk": [0.0, 0.04, 0.1]}, 0.05)
        0.6
    """
    pairs = zip(curve["coverage"], curve["risk"], strict=True)
    return max((c for c, risk in pairs if risk <= target), default=None)


def review_sentence(rows: Sequence[Tree], curve: Tree | None, target: float) -> str:
    """How much to review for which error, in words.

    From the scored review share where there is one, else from the risk-coverage curve.
    """
    goal = f"{target:.0%}" if target >= 0.01 else f"{target:.2g}"
    share, random = (_test_value(rows, f"review_share{how}") for how in ("", "_random"))
    if share is not None:
        by_chance = f"; choosing at random, {random:.0%}" if random is not None else ""
        return (
            f"To leave at most {goal} of all cases as failures that nobody looked at, "
            f"review the {share:.0%} most uncertain{by_chance}."
        )
    if not curve:
        return ""
    accepted = accepted_coverage(curve, target)
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


def _test_value(rows: Sequence[Tree], metric: str) -> float | None:
    held_out = [row for row in rows if row.get("part") == "test" and row.get("metric") == metric]
    row = _overall(held_out, metric)
    value = _number(row.get("value")) if row else math.nan
    return value if math.isfinite(value) else None


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
    shown = tuple(name.removeprefix("uncertainty/").replace("/", ", ") for name in labels)
    at = {(str(row.get("metric")), str(row.get("label", ""))): score(row) for row in rows}
    counts = {cell.n for cell in at.values()}
    n = counts.pop() if len(counts) == 1 else ""
    if len(labels) >= len(metrics) or len(metrics) <= 4:
        cells = tuple(tuple(at.get((m, name)) for m in metrics) for name in labels)
        return Table(shown, tuple(spell(m) for m in metrics), cells, n)
    cells = tuple(tuple(at.get((m, name)) for name in labels) for m in metrics)
    return Table(tuple(spell(m) for m in metrics), shown, cells, n)


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
