"""Who should be looked at first, and how many must be, to keep errors under a target."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from penumbra.evaluate.selective import POOR_DICE, RANKED_BY, review_budget
from penumbra.files import write_text
from penumbra.inference.records import read_summaries
from penumbra.pages import render

TARGETS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True, slots=True)
class Referral:
    """What reviewing buys on held-out patients of the run that made the model.

    Attributes:
        share, remaining: reviewing ``share[k]`` of the cases, most uncertain first, leaves the
            share ``remaining[k]`` of all cases as errors that nobody saw.
        needed: target -> share to review so that at most the target is left.
        cases, errors: how many held-out cases there were, and how many were errors.
    """

    share: tuple[float, ...]
    remaining: tuple[float, ...]
    needed: dict[float, float]
    cases: int
    errors: int


def referral(uncertainty: Float[np.ndarray, " n"], failed: Bool[np.ndarray, " n"]) -> Referral:
    """The referral curve, from review of nothing to review of everything.

    Cases with equal uncertainty are reviewed together. Cases without an uncertainty are left out.

    Example:
        >>> curve = referral(np.array([0.1, 0.2, 0.9, 0.3]), np.array([False, False, True, False]))
        >>> curve.needed[0.05], curve.remaining[0]
        (0.25, 0.25)
    """
    known = ~np.isnan(uncertainty)
    unsure, wrong = uncertainty[known], failed[known]
    levels = [*np.unique(unsure), np.inf]
    share = [float((unsure >= level).mean()) for level in reversed(levels)]
    left = [float((wrong & (unsure < level)).mean()) for level in reversed(levels)]
    needed = {y: review_budget(unsure, wrong, target=y).share for y in TARGETS}
    return Referral(tuple(share), tuple(left), needed, len(unsure), int(wrong.sum()))


def held_out_referral(run: Path) -> Referral | None:
    """The referral curve of a run's test patients; None where its ``cases.csv`` cannot tell."""
    path = run / "cases.csv"
    if not path.exists():
        return None
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("part") == "test"]
    for column in RANKED_BY:  # the first that varies is what the review limit was chosen on
        pairs = [(_number(row.get(column)), _number(row.get("dice"))) for row in rows]
        known = np.array([(u, d) for u, d in pairs if np.isfinite(u) and np.isfinite(d)])
        if len(known) and np.ptp(known[:, 0]) > 0:
            return referral(known[:, 0], known[:, 1] < POOR_DICE)
    return None


def write_triage(folder: Path, run: Path) -> list[Path]:
    """Write ``triage.csv`` and ``triage.html`` over all predictions in ``folder``."""
    return write_list(folder, read_summaries(folder), held_out_referral(run))


def write_list(
    folder: Path, records: Sequence[dict[str, Any]], curve: Referral | None
) -> list[Path]:
    """The same from records at hand; a case links to its page ``<case>.html`` where it has one."""
    table, page = folder / "triage.csv", folder / "triage.html"
    write_text(table, _csv(records))
    counts = {
        verdict: sum(r["decision"]["verdict"] == verdict for r in records)
        for verdict in ("reject", "review", "accept")
    }
    paged = {r["case"] for r in records if (folder / f"{r['case']}.html").is_file()}
    context = {
        "records": records,
        "paged": paged,
        "counts": counts,
        "curve": curve,
        "line": _line(curve),
    }
    write_text(page, render("inference", "triage.html.j2", context))
    return [table, page]


def _csv(records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["case", "verdict", "need_of_review", "uncertainty", "disagreement", "reasons"])
    for record in records:
        decision = record["decision"]
        writer.writerow(
            [
                record["case"],
                decision["verdict"],
                f"{decision['need_of_review']:.4f}",
                record.get("uncertainty", ""),
                record.get("disagreement_between_draws", ""),
                "; ".join(decision["reasons"]),
            ]
        )
    return text.getvalue()


def _line(curve: Referral | None) -> str:
    """The curve as SVG points in a 100 x 60 box, errors scaled to the largest."""
    if curve is None:
        return ""
    top = max(*curve.remaining, 1e-9)
    return " ".join(
        f"{100 * share:.1f},{60 - 60 * left / top:.1f}"
        for share, left in zip(curve.share, curve.remaining, strict=True)
    )


def _number(text: str | None) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")
