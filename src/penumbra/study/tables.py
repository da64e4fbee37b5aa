"""Tables, figures and ``claims.json``, from the rows alone."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from penumbra.evaluate.statistics import Interval
from penumbra.files import atomic, write_text
from penumbra.study.arms import SCALED
from penumbra.study.claims import claims, task_measure
from penumbra.study.results import Group, Measure, groups, summary
from penumbra.study.rows import finite, read_rows

SAMPLES = 2000
Line = dict[str, Any]
SEGMENTATION = ("dice", "hd95_mm", "surface_dice", "ece", "brier", "nll", "attention/hit*")
FINDINGS = ("auroc", "ece_findings", "attention/hit*")
_RESCALED = {"ece": "ece_scaled", "brier": "brier_scaled", "nll": "nll_scaled"} | {
    "ece_findings": "ece_findings_scaled"
}


def rebuild(out: Path) -> list[Path]:
    """Write every table, figure and verdict of a study again; returns the files.

    Raises:
        DataError: there is no row, one was changed, or they stem from several splits.
    """
    found = groups(read_rows(out))
    lines = summaries(found)
    verdicts = claims(found, samples=SAMPLES)
    written = [
        _text(out / "tables" / "summary.csv", _csv(lines)),
        _text(out / "tables" / "summary.md", _markdown(lines)),
        _text(out / "tables" / "comparisons.csv", _csv(_flat(verdicts))),
        _text(out / "claims.json", json.dumps(finite({"claims": verdicts}), indent=1) + "\n"),
        _text(out / "tables" / "claims.md", _verdict_table(verdicts)),
    ]
    for metric in dict.fromkeys(line["metric"] for line in lines):
        if (
            shown := [x for x in lines if x["metric"] == metric and not math.isnan(x["value"])]
        ) != []:
            name = metric.replace("/", "-").replace(" ", "_").rstrip("*")
            written.append(curve(shown, out / "figures" / f"{name}.svg"))
    return written


def summaries(found: Sequence[Group]) -> list[Line]:
    """One line per arm, fraction and figure, temperature-scaled rows beside the raw ones."""
    task = task_measure(found).column
    columns = SEGMENTATION if task == "dice" else FINDINGS
    lines = []
    for group in found:
        for column in columns:
            lines.append(
                _line(group, group.arm, column, summary(group, Measure(column), samples=SAMPLES))
            )
            if column in _RESCALED:
                scaled = summary(group, Measure(_RESCALED[column]), samples=SAMPLES)
                lines.append(_line(group, group.arm + SCALED, column, scaled))
        for probe in group.rows[0]["probes"]:
            measure = Measure(task, probe["kind"], probe["name"], probe["level"])
            name = f"{task} {probe['kind']} {probe['name']} {probe['level']:.4g}"
            lines.append(_line(group, group.arm, name, summary(group, measure, samples=SAMPLES)))
    return lines


def curve(lines: Sequence[Line], path: Path) -> Path:
    """A metric against the share of labels, one line per arm, bars for the 95 % intervals."""
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        arms = list(dict.fromkeys(line["arm"] for line in lines))
        for k, arm in enumerate(arms):
            mine = sorted((x for x in lines if x["arm"] == arm), key=lambda x: x["fraction"])
            shift = 1 + 0.03 * (k - (len(arms) - 1) / 2)  # intervals side by side
            below = [max(0.0, x["value"] - _or(x["low"], x["value"])) for x in mine]
            above = [max(0.0, _or(x["high"], x["value"]) - x["value"]) for x in mine]
            axes.errorbar(
                [100 * x["fraction"] * shift for x in mine],
                [x["value"] for x in mine],
                yerr=[below, above],
                marker="os^Dv<>PX*"[k % 10],
                capsize=2,
                linewidth=1.2,
                label=arm,
            )
        ticks = sorted({100 * line["fraction"] for line in lines})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("labelled training patients, %")
        axes.set_ylabel(lines[0]["metric"])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, ncols=2)
        with atomic(path) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})
    return path


def show(value: float, low: float, high: float) -> str:
    """``0.81 [0.78, 0.84]``; a dash where nothing was measured."""
    if math.isnan(value):
        return "-"
    if math.isnan(low):
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value


def _line(group: Group, arm: str, metric: str, found: Interval) -> Line:
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


def _flat(verdicts: Sequence[Line]) -> list[Line]:
    return [
        {"claim": v["claim"], **{k: x for k, x in c.items() if k != "seeds"}}
        for v in verdicts
        for c in v["comparisons"]
    ]


def _csv(lines: Sequence[Line]) -> str:
    buffer = io.StringIO()
    if lines:
        writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in x.items()} for x in lines
        )
    return buffer.getvalue()


def _markdown(lines: Sequence[Line]) -> str:
    """One table per metric: arms down, fractions across."""
    fractions = sorted({line["fraction"] for line in lines})
    text = ["Mean with its 95 % interval over patients and seeds."]
    for metric in dict.fromkeys(line["metric"] for line in lines):
        cells = {(x["arm"], x["fraction"]): x for x in lines if x["metric"] == metric}
        text += ["", f"## {metric}", ""]
        text.append("| arm | " + " | ".join(f"{f:.0%}" for f in fractions) + " |")
        text.append("|---" * (1 + len(fractions)) + "|")
        for arm in dict.fromkeys(arm for arm, _ in cells):
            row = [cells.get((arm, f)) for f in fractions]
            shown = ["-" if x is None else show(x["value"], x["low"], x["high"]) for x in row]
            text.append(f"| {arm} | " + " | ".join(shown) + " |")
    return "\n".join(text) + "\n"


def _verdict_table(verdicts: Sequence[Line]) -> str:
    text = ["| claim | verdict | effect | needed | patients | compared |", "|---" * 6 + "|"]
    for v in verdicts:
        head = v["comparisons"][0] if v["comparisons"] else None
        compared = (
            f"{head['ours']} against {head['theirs']}, {head['metric']}, {head['condition']}"
            if head
            else v["note"]
        )
        effect = show(v["effect"], v["low"], v["high"])
        text.append(
            f"| {v['text']} | **{v['verdict']}** | {effect} | {v['threshold']:+.2f} | {v['n']} | "
            f"{compared} |"
        )
    return "\n".join(text) + "\n"


def _text(path: Path, text: str) -> Path:
    write_text(path, text)
    return path
