"""The cases of a run: who was where, who failed, and how many to look at again."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penumbra.evaluate.selective import RANKED_BY
from penumbra.report.read import RunFolder, Tree
from penumbra.report.tables import held_out_value, number, show
from penumbra.report.words import lower_is_better

PARTS = ("train", "val", "test")
MOST_COLUMNS = 7


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One line of the case list."""

    case: str
    site: str
    values: tuple[str, ...]
    score: float
    worst: bool


@dataclass(frozen=True, slots=True)
class CaseList:
    """Held-out cases, worst first, by ``metric``."""

    metric: str
    columns: tuple[str, ...]
    rows: tuple[CaseRow, ...]


def cohort(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Counts of cases by part and, where the case list knows it, by site: heading and rows."""
    sites = sorted({case.get("site") or "" for case in run.cases} - {""})
    seen = Counter((case.get("part", ""), case.get("site") or "") for case in run.cases)
    split = run.split.get("parts", run.split)
    body = []
    for part in PARTS:
        scored = sum(count for (where, _), count in seen.items() if where == part)
        total = len(split[part]) if part in split else scored
        if total:
            by_site = [str(seen[part, site]) if scored else "·" for site in sites]
            body.append([part, str(total), *by_site])
    return ["part", "cases", *sites], body


def case_list(cases: Sequence[Mapping[str, str]]) -> CaseList | None:
    """Test cases, worst first, a tenth of them (at least one) flagged.

    By Dice where cases have it, else by their uncertainty, most uncertain first.
    """
    test = [case for case in cases if case.get("part") == "test"] or list(cases)
    metric = _main_column(test[0]) if test else None
    if metric is None:
        return None
    columns = [c for c in test[0] if c.startswith(("dice", "hd95_mm", "surface_dice"))]
    columns = list(dict.fromkeys([metric, *columns]))[: MOST_COLUMNS - 1]
    unsure = uncertainty_column(test[0])
    columns += [unsure] if unsure and unsure != metric else []
    sign = -1 if lower_is_better(metric) else 1
    scored = [(case, number(case.get(metric))) for case in test]
    scored.sort(key=lambda pair: sign * pair[1] if math.isfinite(pair[1]) else math.inf)
    flagged = max(1, sum(math.isfinite(value) for _, value in scored) // 10)
    rows = [
        CaseRow(
            case=case.get("case", ""),
            site=case.get("site") or "",
            values=tuple(show(number(case.get(column))) for column in columns),
            score=value,
            worst=place < flagged and math.isfinite(value),
        )
        for place, (case, value) in enumerate(scored)
    ]
    return CaseList(metric, tuple(columns), tuple(rows))


def uncertainty_column(case: Mapping[str, str]) -> str | None:
    """The column of the case list that ranks cases for review."""
    names = [name for name in case if name.startswith("uncertainty")]
    first = [name for name in ("uncertainty", *RANKED_BY) if name in names]
    epistemic = [name for name in names if "epistemic" in name]
    return next(iter(first + epistemic + names), None)


def _main_column(case: Mapping[str, str]) -> str | None:
    overlaps = [name for name in case if name == "dice"]
    overlaps += [name for name in case if name.startswith("dice_")]
    return next(iter(overlaps), None) or uncertainty_column(case)


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
    share, random = (held_out_value(rows, f"review_share{how}") for how in ("", "_random"))
    if share is not None:
        by_chance = f"; choosing at random, {random:.0%}" if random is not None else ""
        return (
            f"To leave at most {goal} of all cases as failures that nobody looked at, "
            f"review the {share:.0%} most uncertain{by_chance}."
        )
    return _from_curve(curve, target, goal) if curve else ""


def _from_curve(curve: Tree, target: float, goal: str) -> str:
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
