"""Tables of a study's robustness from its rows: attacks, uncertainty, shifts, verdicts.

    python benchmarks/robustness.py STUDY [--ours variational-adversarial] [--samples 2000]

Prints Markdown. Intervals are 95 % bootstraps over patients and seeds together; gains are relative
and paired on the same patients.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from penumbra.evaluate.ranking import weighted_auroc
from penumbra.evaluate.statistics import Interval, crossed_bootstrap, verdict
from penumbra.study.results import Group, Measure, find, gain, groups, summary
from penumbra.study.rows import read_rows

ORDER = (
    "plain",
    "supervised",
    "ssl",
    "adversarial",
    "mc-dropout",
    "seed-ensemble",
    "variational",
    "variational-adversarial-unweighted",
    "variational-adversarial",
    "ours-minus-adversarial",
    "ours",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--ours", default="variational-adversarial")
    parser.add_argument("--samples", type=int, default=2000)
    chosen = parser.parse_args()
    sites: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(chosen.study / "rows"):
        arm, _, site = row["arm"].partition(" / ")
        sites.setdefault(site, []).append({**row, "arm": arm})
    for site, rows in sites.items():
        if site:
            print(f"\n# Held out: {site}")
        report(groups(rows), chosen)


def report(found: list[Group], chosen: argparse.Namespace) -> None:
    full = max(group.fraction for group in found)
    arms = [group for name in ORDER if (group := find(found, name, full))]
    probes = arms[0].rows[0]["probes"]
    column = "auroc" if probes and "dice" not in probes[0] else "dice"
    if not probes:  # a run without attacks: whole volumes alone
        table(column, arms, ["test, whole"], [Measure(column)], chosen.samples)
        verdicts(arms, chosen.ours, [Measure(column)], chosen.samples)
        return
    levels = sorted({p["level"] for p in probes if p["kind"] == "attack"})
    accuracy(arms, column, levels, chosen.samples)
    uncertainty(arms, column, levels, chosen.samples)
    shifts(arms, column, chosen.samples)
    conditions = [Measure(column), Measure(column, "clean", "clean", 0.0)]
    conditions += [Measure(column, "attack", "worst", level) for level in levels]
    verdicts(arms, chosen.ours, conditions, chosen.samples)
    trust(arms)


def accuracy(arms: list[Group], column: str, levels: list[float], samples: int) -> None:
    whole = Measure(column)
    clean = Measure(column, "clean", "clean", 0.0)
    measures = [Measure(column, "attack", "worst", level) for level in levels]
    heads = ["test, whole", "probe, clean", *(f"worst, {255 * x:.3g}/255" for x in levels)]
    table(
        f"{column} under the worst attack of each image",
        arms,
        heads,
        [whole, clean, *measures],
        samples,
    )


def uncertainty(arms: list[Group], column: str, levels: list[float], samples: int) -> None:
    if column != "dice":
        findings_uncertainty(arms, levels, samples)
        return
    for name in ("ece", "error_auroc", "error_auroc_epistemic"):
        conditions = [("clean", "clean", 0.0), *(("attack", "worst", x) for x in levels)]
        measures = [Measure(name, *condition) for condition in conditions]
        heads = ["clean", *(f"worst, {255 * x:.3g}/255" for x in levels)]
        table(name, arms, heads, measures, samples)


def table(
    title: str, arms: list[Group], heads: list[str], measures: list[Measure], samples: int
) -> None:
    print(f"\n### {title}\n\n| arm | seeds | {' | '.join(heads)} |")
    print("|" + "---|" * (len(heads) + 2))
    for arm in arms:
        cells = [spelled(summary(arm, measure, samples=samples)) for measure in measures]
        print(f"| {arm.arm} | {len(arm.rows)} | {' | '.join(cells)} |")


def findings_uncertainty(arms: list[Group], levels: list[float], samples: int) -> None:
    """ECE of "present", and chance that a wrong finding has the larger entropy, pooled."""
    conditions = [("clean", "clean", 0.0), *(("attack", "worst", x) for x in levels)]
    heads = ["clean", *(f"worst, {255 * x:.3g}/255" for x in levels)]
    table("ece", arms, heads, [Measure("ece_findings", *c) for c in conditions], samples)
    print(f"\n### error detection (AUROC of the entropy)\n\n| arm | {' | '.join(heads)} |")
    print("|" + "---|" * (len(heads) + 1))
    for arm in arms:
        cells = [f"{np.nanmean([detects(row, c) for row in arm.rows]):.3f}" for c in conditions]
        print(f"| {arm.arm} | {' | '.join(cells)} |")


def detects(row: dict[str, Any], condition: tuple[str, str, float]) -> float:
    probe = next(p for p in row["probes"] if (p["kind"], p["name"], p["level"]) == condition)
    p, y = (np.array(probe[key], dtype=np.float64) for key in ("probability", "label"))
    known = (y == 0) | (y == 1)
    wrong = ((p > 0.5) != (y > 0.5))[known].astype(np.float64)
    return float(weighted_auroc(-np.abs(p[known] - 0.5), wrong)[0])


def shifts(arms: list[Group], column: str, samples: int) -> None:
    """Mean over all cells of the suite, families that training showed and others apart."""
    for seen in (True, False):
        cells = [
            Measure(column, "shift", p["name"], p["level"])
            for p in arms[0].rows[0]["probes"]
            if p["kind"] == "shift" and p.get("seen", True) == seen
        ]
        if not cells:
            continue
        print(f"\n### shifts, {'seen in training' if seen else 'held out'} ({len(cells)} cells)\n")
        print("| arm | clean | mean | mean degradation | worst cell |\n|---|---|---|---|---|")
        for arm in arms:
            clean = summary(arm, Measure(column, "clean", "clean", 0.0), samples=2).value
            each = {cell: summary(arm, cell, samples=2).value for cell in cells}
            low = min(each, key=lambda cell: each[cell])
            mean = float(np.mean(list(each.values())))
            lost = spelled(degradation(arm, cells, samples)) if column == "dice" else ""
            lost = lost or f"{clean - mean:.3f}"
            worst = f"{each[low]:.3f} ({low.condition} {low.level:.0f})"
            print(f"| {arm.arm} | {clean:.3f} | {mean:.3f} | {lost} | {worst} |")


def degradation(arm: Group, cells: list[Measure], samples: int) -> Interval:
    """Clean minus the mean over cells, per patient."""

    def values(row: dict[str, Any], kind: str, name: str, level: float) -> np.ndarray:
        probe = next(
            p for p in row["probes"] if (p["kind"], p["name"], p["level"]) == (kind, name, level)
        )
        return np.array(probe["dice"], dtype=np.float64)

    lost = [
        values(row, "clean", "clean", 0.0)
        - np.mean([values(row, "shift", c.condition, c.level) for c in cells], 0)
        for row in arm.rows
    ]
    return crossed_bootstrap(np.stack(lost), arm.rows[0]["probes"][0]["patients"], samples=samples)


def verdicts(arms: list[Group], ours: str, conditions: list[Measure], samples: int) -> None:
    mine = next((arm for arm in arms if arm.arm == ours), None)
    if mine is None:
        return
    print(f"\n### {ours} against each rival: relative gain, asked for +15 %\n")
    print("| rival | condition | gain | verdict |\n|---|---|---|---|")
    for rival in arms:
        if rival.arm == ours:
            continue
        for measure in conditions:
            effect, _ = gain(mine, rival, measure, samples=samples)
            where = f"worst {255 * measure.level:.3g}/255" if measure.kind == "attack" else "clean"
            where += "" if measure.kind else " (whole volumes)"
            asked = verdict(effect, threshold=0.15) if measure.kind == "attack" else ""
            print(f"| {rival.arm} | {where} | {spelled(effect, percent=True)} | {asked} |")


def trust(arms: list[Group]) -> None:
    print("\n### gates that failed\n")
    for arm in arms:
        for row in arm.rows:
            failed = [g for g in row["attack_gates"] if not g["passed"]]
            for gate in failed:
                print(f"- {arm.arm}, seed {row['seed']}: {gate['name']} ({gate['detail']})")


def spelled(found: Interval, *, percent: bool = False) -> str:
    if math.isnan(found.value):
        return "-"
    scale: Callable[[float], str] = (lambda x: f"{x:+.0%}") if percent else (lambda x: f"{x:.3f}")
    if math.isnan(found.low):
        return scale(found.value)
    return f"{scale(found.value)} ({scale(found.low)} to {scale(found.high)})"


if __name__ == "__main__":
    main()
