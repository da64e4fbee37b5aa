"""A model card (Mitchell et al. 2019) from a run folder; what only people know is asked for."""

from pathlib import Path
from typing import Any

from penumbra.files import write_text
from penumbra.pages import render
from penumbra.report import cases, tables
from penumbra.report.read import RunFolder, read_run
from penumbra.report.tables import Table
from penumbra.report.words import spell

SHOWN = ("task", "calibration", "uncertainty", "localization")


def write_card(run: Path) -> Path:
    """Write ``MODEL_CARD.md`` into the run folder; its path.

    Every figure stands with its interval and the number of patients behind it. Passages in
    brackets are for the people who publish the model.

    Raises:
        DataError: the folder holds no run, or one of its files is broken.
    """
    found = read_run(run)
    write_text(run / "MODEL_CARD.md", render("report", "card.md.j2", _context(found)))
    return run / "MODEL_CARD.md"


def _context(run: RunFolder) -> dict[str, Any]:
    rows = run.metrics.get("rows", [])
    shelves = tables.tables(rows, part="test")
    head, body = cases.cohort(run)
    sections = {
        name: [_markdown(t) for t in shelves[name].main] for name in SHOWN if name in shelves
    }
    conditions = tables.conditions(rows)
    if conditions:
        sections["robustness"] = [_markdown(conditions)]
    return {
        "name": str(run.config.get("name") or run.path.name),
        "config": run.config,
        "modality": spell(str(run.config.get("modality", ""))),
        "environment": run.metrics.get("environment", {}),
        "split_hash": str(run.metrics.get("split_hash") or run.split.get("hash", "")),
        "cohort": _rows(head, body),
        "sections": sections,
        "gates": run.metrics.get("attack_gates", []),
        "warnings": run.metrics.get("warnings", []),
    }


def _markdown(table: Table) -> str:
    body = [
        [name or "all", *(_cell(cell) for cell in cells)]
        for name, cells in zip(table.rows, table.cells, strict=True)
    ]
    count = f"\n\nOver {table.n}." if table.n else ""
    return _rows(["", *table.columns], body) + count


def _cell(score: tables.Score | None) -> str:
    if score is None:
        return ""
    return f"{score.text} ({score.interval})" if score.interval else score.text


def _rows(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
