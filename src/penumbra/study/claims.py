"""The five claims of proposal 3.1, each with its verdict, effect, interval and what was compared.

Thresholds, metrics and rivals stand here before any result does. The first comparison of a claim
is its headline and decides it; the others stand beside it.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from penumbra.evaluate.statistics import Interval, bootstrap, holm, verdict
from penumbra.study.evidence import Evidence
from penumbra.study.results import Group, Measure, find, gain

Comparison = dict[str, Any]
PARTIAL = (0.5, 0.25)
POSTHOC = ("grad_cam", "integrated_gradients", "smooth_grad", "occlusion")
OURS, DETERMINISTIC = "ours", "supervised"


def claims(evidence: Evidence, *, samples: int = 2000) -> list[dict[str, Any]]:
    """The five verdicts, as plain as they are; what was not run is undecided and says so."""
    found = evidence.cells
    return [
        _claim(
            "robustness",
            "At least 15 % more accurate under attack than a deterministic network",
            0.15,
            _robustness(found, samples),
        ),
        _claim(
            "label-efficiency",
            "25-50 % of the labels reach what supervision reaches with all of them",
            0.0,
            _labels(found, samples),
        ),
        _claim(
            "calibration",
            "ECE at least 30 % below that of a temperature-scaled deterministic network",
            0.30,
            _calibration(found, samples),
        ),
        _claim(
            "localization",
            "Attention hits at least 25 % more often than the best post-hoc explanation",
            0.25,
            _localization(evidence, samples),
        ),
        _claim(
            "multitask",
            "A second head costs less than 5 % more parameters and time",
            -0.05,
            _second_head(evidence, samples),
        ),
    ]


def task_measure(found: Sequence[Group]) -> Measure:
    """Dice where cases were segmented, else the macro AUROC of the findings."""
    cases = [case for group in found for row in group.rows for case in row["cases"][:1]]
    return Measure("dice" if any("dice" in case for case in cases) else "auroc")


def compare(
    ours: Group | None,
    theirs: Group | None,
    measure: Measure,
    *,
    threshold: float,
    against: Measure | None = None,
    samples: int = 2000,
) -> list[Comparison]:
    """One comparison, or none when an arm was not run."""
    if ours is None or theirs is None:
        return []
    effect, p = gain(ours, theirs, measure, against=against, samples=samples)
    where = f"{measure.condition} {measure.level:.4g}" if measure.kind else "clean"
    rival = f" ({against.column})" if against else ""
    return [
        {
            "ours": ours.title,
            "theirs": theirs.title + rival,
            "metric": measure.column,
            "condition": where,
            "seeds": [len(ours.rows), len(theirs.rows)],
            **_spelled(effect),
            "p": p,
            "verdict": verdict(effect, threshold=threshold),
        }
    ]


def _claim(name: str, text: str, threshold: float, comparisons: list[Comparison]) -> dict[str, Any]:
    for comparison, p in zip(comparisons, holm([c["p"] for c in comparisons]), strict=True):
        comparison["p_holm"] = float(p)
    head = comparisons[0] if comparisons else {"verdict": "undecided", **_spelled(_NOTHING)}
    fields = ("verdict", "effect", "low", "high", "n")
    return {
        "claim": name,
        "text": text,
        "threshold": threshold,
        **{key: head[key] for key in fields},
        "note": "" if comparisons else "the arms or conditions that it needs were not run",
        "comparisons": comparisons,
    }


_NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def _spelled(effect: Interval) -> dict[str, Any]:
    return {"effect": effect.value, "low": effect.low, "high": effect.high, "n": effect.n}


def _robustness(found: Sequence[Group], samples: int) -> list[Comparison]:
    """Strongest attack first, against the deterministic arm, then every other."""
    full = _largest(found)
    ours = find(found, OURS, full)
    if ours is None:
        return []
    column = task_measure(found).column
    hard = [p for p in ours.rows[0]["probes"] if p["kind"] != "clean"]
    order = {"worst": 0, "pgd": 1, "fgsm": 2}
    hard.sort(key=lambda p: (p["kind"] != "attack", order.get(p["name"], 3), -p["level"]))
    return [
        comparison
        for p in hard
        for rival in (DETERMINISTIC, "ssl", "adversarial")
        for comparison in compare(
            ours,
            find(found, rival, full),
            Measure(column, p["kind"], p["name"], p["level"]),
            threshold=0.15,
            samples=samples,
        )
    ]


def _labels(found: Sequence[Group], samples: int) -> list[Comparison]:
    full, measure = find(found, DETERMINISTIC, 1.0), task_measure(found)
    return [
        comparison
        for fraction in PARTIAL
        for arm in (OURS, "ssl")
        for comparison in compare(
            find(found, arm, fraction), full, measure, threshold=0.0, samples=samples
        )
    ]


def _calibration(found: Sequence[Group], samples: int) -> list[Comparison]:
    """As it is delivered, then rescaled too, against each deterministic arm rescaled."""
    full = _largest(found)
    column = "ece" if task_measure(found).column == "dice" else "ece_findings"
    scaled = Measure(f"{column}_scaled", lower_is_better=True)
    return [
        comparison
        for mine in (Measure(column, lower_is_better=True), scaled)
        for rival in (DETERMINISTIC, "ssl")
        for comparison in compare(
            find(found, OURS, full),
            find(found, rival, full),
            mine,
            against=scaled,
            threshold=0.30,
            samples=samples,
        )
    ]


def _localization(evidence: Evidence, samples: int) -> list[Comparison]:
    """Against every post-hoc method on either network, the best of them first."""
    ours = find(evidence.explained, OURS, evidence.full)
    comparisons = [
        comparison
        for theirs in (ours, find(evidence.explained, DETERMINISTIC, evidence.full))
        for method in POSTHOC
        for comparison in compare(
            ours,
            theirs,
            Measure("explanation/attention/hit*"),
            against=Measure(f"explanation/{method}/hit*"),
            threshold=0.25,
            samples=samples,
        )
        if comparison["n"] and not math.isnan(comparison["effect"])
    ]
    return sorted(comparisons, key=lambda c: c["effect"])


def _second_head(evidence: Evidence, samples: int) -> list[Comparison]:
    """The time's overhead, negated so that more is better; parameters are counted, not sampled."""
    measured = evidence.heads
    if not measured:
        return _accuracy_of_two(evidence, samples)
    time = bootstrap(-np.concatenate([m["seconds"] for m in measured]), samples=samples)
    size = -max(m["parameters"] for m in measured)
    exact = Interval(size, size, size, len(measured))
    rows = [
        {
            "ours": "two heads",
            "theirs": "one head",
            "metric": metric,
            "condition": "saved (negative: overhead)",
            "seeds": [len(measured), len(measured)],
            **_spelled(effect),
            "p": math.nan,
            "verdict": verdict(effect, threshold=-0.05),
        }
        for metric, effect in (("seconds", time), ("parameters", exact))
    ]
    rows.sort(key=lambda row: row["low"])  # the dearer of the two decides
    return rows + _accuracy_of_two(evidence, samples)


def _accuracy_of_two(evidence: Evidence, samples: int) -> list[Comparison]:
    """One network with two heads against a network for each, where both were trained."""
    both = find(evidence.cells, DETERMINISTIC, evidence.full)
    return [
        comparison
        for arm, column in (("segmentation-alone", "dice"), ("findings-alone", "auroc"))
        for comparison in compare(
            both,
            find(evidence.cells, arm, evidence.full),
            Measure(column),
            threshold=0.0,
            samples=samples,
        )
    ]


def _largest(found: Sequence[Group]) -> float:
    return max(group.fraction for group in found)
