"""Tables, figures and ``claims.json``, from the rows alone."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from penumbra.assess.curves import table_text
from penumbra.files import write_text
from penumbra.study import figures, lines
from penumbra.study.claims import claims, task_measure
from penumbra.study.evidence import Evidence, gather
from penumbra.study.lines import SAMPLES, Line
from penumbra.study.rows import finite

TITLES = {
    "summary": "Mean with its 95 % interval over patients and seeds.",
    "parts": "By region or finding.",
    "attacks": "Under attack; the radius is in display units.",
    "shifts": "Under graded shifts of the acquisition.",
    "elsewhere": "The same models at home and on another cohort.",
    "rankings": "Spearman correlation of uncertainty with 1 - Dice, and area under risk-coverage.",
    "explanations": "Where maps point, and whether the network follows them.",
    "pairs": "Relative gain on the same patients; Wilcoxon's p, and Holm's.",
    "costs": "What a cell takes: parameters, and seconds of training and evaluation.",
}


def rebuild(out: Path) -> list[Path]:
    """Write every table, figure and verdict of a study again; returns the files.

    Raises:
        DataError: there is no row, one was changed, or they stem from several splits.
    """
    evidence = gather(out)
    found, full = evidence.cells, evidence.full
    tables = {
        "summary": lines.summaries(found),
        "parts": lines.parts(found),
        "attacks": lines.conditions(found, full, "attack"),
        "shifts": lines.conditions(found, full, "shift"),
        "elsewhere": lines.elsewhere(evidence),
        "rankings": lines.rankings(found, full),
        "explanations": lines.explanations(evidence),
        "pairs": lines.pairs(found, full),
        "costs": lines.costs(found),
    }
    verdicts = claims(evidence, samples=SAMPLES)
    written = []
    for name, each in tables.items():
        if each:
            written.append(_text(out / "tables" / f"{name}.csv", table_text(each)))
            written.append(_text(out / "tables" / f"{name}.md", _markdown(name, each)))
    text = json.dumps(finite({"claims": verdicts}), indent=1) + "\n"
    return [
        *written,
        _text(out / "tables" / "comparisons.csv", table_text(_flat(verdicts))),
        _text(out / "claims.json", text),
        _text(out / "tables" / "claims.md", _verdict_table(verdicts)),
        *_figures(evidence, tables, verdicts, out / "figures"),
    ]


def _figures(
    evidence: Evidence, tables: dict[str, list[Line]], verdicts: list[Line], folder: Path
) -> list[Path]:
    task = task_measure(evidence.cells).column
    curve = [x for x in tables["summary"] if x["metric"] == task]
    written = [figures.verdict_forest(verdicts, folder / "verdicts.svg")]
    if curve:
        written.append(figures.label_curve(curve, folder / "labels.svg"))
    worst = [x for x in tables["attacks"] if x["condition"] in ("clean", "worst")]
    if len({x["level"] for x in worst}) > 1:
        written.append(figures.attack_curve(worst, folder / "attacks.svg"))
    hardest = max((x["level"] for x in tables["shifts"]), default=0)
    shifted = [x for x in tables["shifts"] if x["level"] in (0, hardest)]
    if hardest:
        path = folder / "shifts.svg"
        label = f"{task}, severity {hardest:g}"
        written.append(figures.dots(shifted, path, groups="condition", xlabel=label))
    ece = [x for x in tables["summary"] if x["metric"].startswith("ece")]
    ece = [x | {"name": x["arm"]} for x in ece if x["fraction"] == evidence.full]
    if ece:
        scaled = [x | {"arm": "rescaled" if "+" in x["arm"] else "raw"} for x in ece]
        rows = [x | {"name": x["name"].partition("+")[0]} for x in scaled]
        path = folder / "calibration.svg"
        written.append(figures.dots(rows, path, groups="name", xlabel=ece[0]["metric"]))
    return written


def show(value: float, low: float, high: float) -> str:
    """``0.810 [0.780, 0.840]``; a dash where nothing was measured."""
    if math.isnan(value):
        return "-"
    if math.isnan(low):
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _flat(verdicts: Sequence[Line]) -> list[Line]:
    return [
        {"claim": v["claim"], **{k: x for k, x in c.items() if k != "seeds"}}
        for v in verdicts
        for c in v["comparisons"]
    ]


def _markdown(name: str, table: Sequence[Line]) -> str:
    """One table per metric where arms stand at several fractions, else one line per figure."""
    text = [TITLES[name]]
    if name not in ("summary", "parts"):
        return "\n".join([*text, "", *_plain(table)]) + "\n"
    fractions = sorted({each["fraction"] for each in table})
    for metric in dict.fromkeys(each["metric"] for each in table):
        cells = {(x["arm"], x["fraction"]): x for x in table if x["metric"] == metric}
        text += ["", f"## {metric}", ""]
        text.append("| arm | " + " | ".join(f"{f:.0%}" for f in fractions) + " |")
        text.append("|---" * (1 + len(fractions)) + "|")
        for arm in dict.fromkeys(arm for arm, _ in cells):
            row = [cells.get((arm, f)) for f in fractions]
            shown = ["-" if x is None else show(x["value"], x["low"], x["high"]) for x in row]
            text.append(f"| {arm} | " + " | ".join(shown) + " |")
    return "\n".join(text) + "\n"


def _plain(table: Sequence[Line]) -> list[str]:
    """Value and interval in one column, everything else as it is."""
    hidden = ("value", "low", "high", "undefined")
    columns = [c for c in dict.fromkeys(k for x in table for k in x) if c not in hidden]
    measured = "value" in table[0]
    head = [*columns, "value [95 % interval]"] if measured else columns
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for each in table:
        shown = [f"{v:.4g}" if isinstance(v := each.get(c, ""), float) else str(v) for c in columns]
        if measured:
            shown.append(show(each["value"], each["low"], each["high"]))
        text.append("| " + " | ".join(shown) + " |")
    return text


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
