"""One line per figure of a table: which arm, under what, its value and its interval."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penumbra.evaluate.selective import aurc, spearman
from penumbra.evaluate.statistics import Interval, bootstrap, by_repeating, holm
from penumbra.study.arms import SCALED
from penumbra.study.claims import task_measure
from penumbra.study.evidence import Evidence
from penumbra.study.results import Group, Measure, find, gain, summary

SAMPLES = 2000
Line = dict[str, Any]
Array = NDArray[np.float64]
SEGMENTATION = ("dice", "hd95_mm", "surface_dice", "ece", "brier", "nll", "attention/hit*")
FINDINGS = ("auroc", "ece_findings", "attention/hit*")
RESCALED = {"ece": "ece_scaled", "brier": "brier_scaled", "nll": "nll_scaled"} | {
    "ece_findings": "ece_findings_scaled"
}
RANKED_BY = ("uncertainty/disagreement", "uncertainty/entropy/region", "uncertainty/structure")
ORGAN = "structure_uncertainty/entropy_"
FEWEST = 4
"""Cases below which a rank correlation is not worth its line."""


def summaries(found: Sequence[Group]) -> list[Line]:
    """Every arm at every fraction, temperature-scaled figures beside the raw ones."""
    seen = {name for group in found for name in group.rows[0]["cases"][0]}
    columns = [*SEGMENTATION] if "dice" in seen else []
    columns += [x for x in FINDINGS if x not in columns] if _labelled(seen) else []
    lines = []
    for group in found:
        for column in columns:
            if column.startswith("attention/") and not _gated(group):
                continue
            lines.append(line(group, group.arm, column, measured(group, Measure(column))))
            if column in RESCALED:
                scaled = measured(group, Measure(RESCALED[column]))
                lines.append(line(group, group.arm + SCALED, column, scaled))
    return known(lines)


def parts(found: Sequence[Group]) -> list[Line]:
    """The task's figure by region or by finding, at every fraction."""
    task = task_measure(found).column
    lines = []
    for group in found:
        for name in _named(group, "dice_" if task == "dice" else "label_"):
            column = f"dice_{name}" if task == "dice" else "auroc"
            measure = Measure(column, finding="" if task == "dice" else name)
            lines.append(line(group, group.arm, f"{task} {name}", measured(group, measure)))
    return known(lines)


def conditions(found: Sequence[Group], full: float, kind: str) -> list[Line]:
    """The task's figure under every attack, or under every shift, clean first."""
    task = task_measure(found).column
    lines = []
    for group in found:
        if group.fraction != full:
            continue
        for probe in group.rows[0]["probes"]:
            if probe["kind"] not in ("clean", kind):
                continue
            measure = Measure(task, probe["kind"], probe["name"], probe["level"])
            told = {"condition": probe["name"], "level": probe["level"]}
            lines.append(line(group, group.arm, task, measured(group, measure)) | told)
    return known(lines)


def elsewhere(evidence: Evidence) -> list[Line]:
    """The same models at home and on each other cohort, what both can be judged by."""
    lines = []
    for cohort, found in evidence.elsewhere.items():
        task = task_measure(found).column
        for group in found:
            home = find(evidence.cells, group.arm, group.fraction)
            for name in _named(group, "dice_" if task == "dice" else "label_"):
                column = f"dice_{name}" if task == "dice" else "auroc"
                measure = Measure(column, finding="" if task == "dice" else name)
                for where, side in (("home", home), (cohort, group)):
                    if side is not None:
                        made = line(group, group.arm, f"{task} {name}", measured(side, measure))
                        lines.append(made | {"cohort": where})
    return known(lines)


def rankings(found: Sequence[Group], full: float) -> list[Line]:
    """Spearman and AURC of uncertainty for 1 - Dice: of cases, and structure by structure."""
    lines = []
    for group in found:
        if group.fraction != full:
            continue
        for column in RANKED_BY:
            lines += _ranked(group, "case", column, "dice")
        for name in _named(group, ORGAN):
            lines += _ranked(group, name, ORGAN + name, f"dice_{name}")
    return known(lines)


def explanations(evidence: Evidence) -> list[Line]:
    """Localization and faithfulness of every method, attention's own and post-hoc."""
    lines = []
    for group in evidence.explained:
        for name in _named(group, "explanation/"):
            method, _, figure = name.partition("/")
            column = f"explanation/{name}"
            lines.append(
                line(group, group.arm, figure, measured(group, Measure(column)))
                | {"method": method}
            )
    return known(lines)


def pairs(found: Sequence[Group], full: float) -> list[Line]:
    """Every arm against ``supervised`` and against ``ours``: relative gain, Wilcoxon, Holm."""
    task = task_measure(found)
    ece = "ece_scaled" if task.column == "dice" else "ece_findings_scaled"
    lines = []
    for measure in (task, Measure(ece, lower_is_better=True)):
        for rival in ("supervised", "ours"):
            theirs = find(found, rival, full)
            rows = [
                line(group, group.arm, measure.column, effect) | {"against": rival, "p": p}
                for group in found
                if theirs is not None and group.fraction == full and group.arm != rival
                for effect, p in [gain(group, theirs, measure, samples=SAMPLES)]
            ]
            adjusted = holm([row["p"] for row in rows])
            lines += [r | {"p_holm": float(p)} for r, p in zip(rows, adjusted, strict=True)]
    return known(lines)


def costs(found: Sequence[Group]) -> list[Line]:
    """Parameters and seconds of a cell, by arm."""
    return [
        {
            "arm": group.arm,
            "fraction": group.fraction,
            "parameters": group.rows[0].get("parameters"),
            "seconds": float(np.median([row["seconds"] for row in group.rows])),
            "seeds": len(group.rows),
        }
        for group in found
    ]


def measured(group: Group, measure: Measure) -> Interval:
    """A figure of one arm over its patients and seeds, by ``SAMPLES`` resamples."""
    return summary(group, measure, samples=SAMPLES)


def line(group: Group, arm: str, metric: str, found: Interval) -> Line:
    """One line of a table: an arm's figure with its interval and counts."""
    return {
        "arm": arm,
        "fraction": group.fraction,
        "metric": metric,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "patients": found.n,
        "seeds": len(group.rows),
        "undefined": found.undefined,
    }


def known(lines: Sequence[Line]) -> list[Line]:
    """Those that have a value."""
    return [each for each in lines if not math.isnan(each["value"])]


def _gated(group: Group) -> bool:
    return bool(group.rows[0].get("config", {}).get("attention", {}).get("gates"))


def _labelled(names: Iterable[str]) -> bool:
    return any(name.startswith("label_") for name in names)


def _named(group: Group, prefix: str) -> list[str]:
    cases = [case for row in group.rows for case in row["cases"][:1]]
    return list(
        dict.fromkeys(
            k.removeprefix(prefix) for c in cases for k in c if k[: len(prefix)] == prefix
        )
    )


def _ranked(group: Group, what: str, column: str, score: str) -> list[Line]:
    """How well ``column`` ranks cases by 1 - ``score``; seed by seed, then their mean."""
    seeds = [{case["case"]: case for case in row["cases"]} for row in group.rows]
    cases = {name: case["patient"] for seed in seeds for name, case in seed.items()}
    unsure, reached = (
        np.array([[_number(seed.get(c, {}).get(x)) for seed in seeds] for c in cases])
        for x in (column, score)
    )
    table = np.concatenate([unsure, 1 - reached], axis=1)
    figures: dict[str, Callable[[Array, Array], float]] = {"spearman": spearman, "aurc": aurc}
    lines = []
    for metric, figure in figures.items():
        over_seeds = by_repeating(partial(_over_seeds, figure))
        found = bootstrap(table, list(cases.values()), statistic=over_seeds, samples=200)
        if found.n >= FEWEST:
            made = line(group, group.arm, metric, found)
            lines.append(made | {"structure": what, "by": column})
    return lines


def _over_seeds(figure: Callable[[Array, Array], float], table: Array) -> float:
    unsure, lost = np.split(table, 2, axis=1)
    return float(np.mean([figure(*pair) for pair in zip(unsure.T, lost.T, strict=True)]))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
