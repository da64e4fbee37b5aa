"""Scores as a reader meets them: the headline first, every score with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penumbra.evaluate.selective import RANKED_BY
from penumbra.report.read import Tree
from penumbra.report.words import Family, family, lower_is_better, spell

HEADLINE = (
    "dice",
    "auroc",
    "hd95_mm",
    "ece",
    "ece_scaled",
    "aurc",
    "attention/hit",
    "auprc",
    "brier",
    "nll",
)
MOST_TILES = 6
OVERALL = ("mean", "all", "", *RANKED_BY, "segmentation")
ROUNDING = 1e-12
"""Below, a value is what floating point left of a zero."""
SIDE = ("_volume", "_mass", "ece_class")
"""Variants of a metric that a reader sees on demand."""


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

    Attributes:
        n: the count behind every cell, when it is one and the same.
        row_n: else the count behind every cell of a row, per row, where it is one and the same.
        undefined: labels for which no metric has a value.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Score | None, ...], ...]
    n: str
    row_n: tuple[str, ...]
    undefined: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """The tables of one section: those to read, and those to open."""

    main: list[Table]
    more: list[Table]


def score(row: Tree) -> Score:
    """One row of ``metrics.json`` for reading."""
    value, low, high = (number(row.get(key)) for key in ("value", "low", "high"))
    has_interval = math.isfinite(low) and math.isfinite(high)
    on_unit_scale = has_interval and low >= 0 and high <= 1
    return Score(
        metric=spell(str(row.get("metric", ""))),
        label=_label(row),
        text=show(value),
        interval=f"{show(low)} to {show(high)}" if has_interval else "",
        n=f"{row['n']} {row.get('unit', 'patient')}s" if row.get("n") is not None else "",
        direction="lower is better" if lower_is_better(str(row.get("metric", ""))) else "",
        bar=(low, value, high) if on_unit_scale and math.isfinite(value) else None,
    )


def headline(rows: Sequence[Tree]) -> list[Score]:
    """The few scores to read first, on test patients, over all structures where that exists."""
    held_out = [row for row in rows if row.get("part") == "test"]
    names = list(dict.fromkeys(str(row.get("metric")) for row in held_out))
    first = [name for name in HEADLINE if name in names] or names
    return [score(representative(held_out, name)) for name in first[:MOST_TILES]]


def tables(rows: Sequence[Tree], *, part: str) -> dict[Family, Shelf]:
    """Every score of a part, by section of the report; metrics with the same labels stand together.

    Variants of a metric, and rankings by any other uncertainty than the one in use, are to open.
    """
    chosen = [row for row in rows if row.get("part") == part]
    labels = {str(row.get("label", "")) for row in chosen}
    in_use = next((name for name in RANKED_BY if name in labels), "")
    by_family: dict[Family, list[Tree]] = {}
    for row in chosen:
        by_family.setdefault(family(str(row.get("metric"))), []).append(row)
    return {
        name: Shelf(
            _blocks([row for row in mine if not _is_side(row, in_use)]),
            _blocks([row for row in mine if _is_side(row, in_use)]),
        )
        for name, mine in by_family.items()
    }


def conditions(rows: Sequence[Tree]) -> Table | None:
    """What the test cases scored under every attack and shift (parts named ``test/...``)."""
    named = [
        {**row, "label": str(row["part"]).removeprefix("test/")}
        for row in rows
        if str(row.get("part", "")).startswith("test/")
    ]
    return _table(named) if named else None


def held_out_value(rows: Sequence[Tree], metric: str) -> float | None:
    """A metric's value on test patients over everything; absent where it is not defined."""
    found = [row for row in rows if row.get("part") == "test" and row.get("metric") == metric]
    value = number(representative(found, metric).get("value")) if found else math.nan
    return value if math.isfinite(value) else None


def representative(rows: Sequence[Tree], metric: str) -> Tree:
    """A metric's row over all labels where there is one, else its first."""
    mine = [row for row in rows if row.get("metric") == metric]
    by_label = {str(row.get("label", "")): row for row in mine}
    return next((by_label[name] for name in OVERALL if name in by_label), mine[0])


def show(value: float) -> str:
    """A number in three digits; what was not measured is a dash.

    Example:
        >>> show(0.84321), show(12.345), show(1234.5), show(-2e-16), show(float("nan"))
        ('0.843', '12.3', '1234', '0', '—')
    """
    if not math.isfinite(value):
        return "—"
    if abs(value) < ROUNDING:
        return "0"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1
    return f"{value:.{decimals}f}" if abs(value) >= 0.001 else f"{value:.1e}"


def number(value: Any) -> float:
    """A value as a number; what is no number is NaN."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _is_side(row: Tree, in_use: str) -> bool:
    label = str(row.get("label", ""))
    other = label.startswith("uncertainty/") and label != in_use
    return other or any(part in str(row.get("metric")) for part in SIDE)


def _blocks(rows: Sequence[Tree]) -> list[Table]:
    blocks: dict[frozenset[str], list[Tree]] = {}
    for metric in dict.fromkeys(row.get("metric") for row in rows):
        mine = [row for row in rows if row.get("metric") == metric]
        labels = frozenset(str(row.get("label", "")) for row in mine)
        blocks.setdefault(labels, []).extend(mine)
    return [_table(block) for block in blocks.values()]


def _table(rows: Sequence[Tree]) -> Table:
    """The longer axis runs down; what concerns all labels comes first."""
    defined = [row for row in rows if math.isfinite(number(row.get("value")))] or list(rows)
    labels = list(dict.fromkeys(_label(row) for row in defined))
    labels.sort(key=lambda name: name not in OVERALL)
    undefined = dict.fromkeys(name for row in rows if (name := _label(row)) not in labels)
    metrics = list(dict.fromkeys(str(row.get("metric")) for row in defined))
    at = {(str(row.get("metric")), _label(row)): score(row) for row in rows}
    spelled = [spell(metric) for metric in metrics]
    if len(labels) >= len(metrics) or len(metrics) <= 5:
        down, across = labels, spelled
        cells = tuple(tuple(at.get((m, name)) for m in metrics) for name in labels)
    else:
        down, across = spelled, labels
        cells = tuple(tuple(at.get((m, name)) for name in labels) for m in metrics)
    row_n = tuple(_common(row) for row in cells)
    n = row_n[0] if len(set(row_n)) == 1 else ""
    return Table(tuple(down), tuple(across), cells, n, row_n, tuple(undefined))


def _common(cells: Sequence[Score | None]) -> str:
    counts = {cell.n for cell in cells if cell is not None}
    return counts.pop() if len(counts) == 1 else ""


def _label(row: Tree) -> str:
    name = str(row.get("label", ""))
    if not name.startswith("uncertainty/"):
        return name
    return name.removeprefix("uncertainty/").replace("/", ", ").replace("_", " ")
