"""Cross-validation: every patient is tested once, by a run that trained without them.

For cohorts whose test part is too small to say anything: the interval is of all patients.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penumbra import pipeline
from penumbra.assess.curves import column, table_text
from penumbra.config import Config, load
from penumbra.data.tables import read_csv
from penumbra.errors import ConfigError
from penumbra.evaluate.findings import SUPPORTED, Findings, score_folds
from penumbra.evaluate.protocol import (
    ALL,
    MEAN,
    CaseScores,
    Row,
    from_json,
    summarise,
    summarise_selective,
    to_json,
)
from penumbra.files import write_text
from penumbra.training import ranks

HEADLINES = (("dice", MEAN), ("auroc", MEAN), ("auroc", SUPPORTED), ("ece", ALL), ("ece", MEAN))

STATED = "label_"
"""Before a finding, the column of its labels in ``cases.csv``."""


def run(
    config: Config, data: Path, out: Path, *, folds: int, deadline: float | None = None
) -> Path:
    """A run per fold in ``out/fold-K``, and their test patients' figures in ``out/metrics.json``.

    Run again to continue where it stopped.

    Raises:
        ConfigError: ``data.holdout_site`` or ``data.fold`` chooses the test part already.
        ConfigError, DataError: as ``pipeline.run``.
    """
    if config.data.holdout_site or config.data.fold:
        raise ConfigError("--folds chooses the test parts; leave out data.holdout_site, data.fold")
    runs = [out / f"fold-{k}" for k in range(1, folds + 1)]
    with ranks.joined():
        for k, run in enumerate(runs, start=1):
            part = config.data.model_copy(update={"fold": f"{k}/{folds}"})
            fold = config.model_copy(update={"data": part})
            if not (run / "report.html").exists() or load(run / "config.yaml") != fold:
                pipeline.run(fold, data, run, deadline=deadline)
        if ranks.is_first():
            pool(runs, out)
        ranks.wait()
    return out / "metrics.json"


def pool(runs: Sequence[Path], out: Path) -> Path:
    """Several folds' test patients as one part: ``out/metrics.json`` and ``out/cases.csv``."""
    config = load(runs[0] / "config.yaml")
    samples, seed = config.evaluate.bootstrap, config.seed
    table: list[dict[str, Any]] = []
    for run in runs:
        lines = read_csv(run / "cases.csv", required=("case", "patient", "part"))
        table += [{"fold": run.name, **line} for line in lines if line["part"] == "test"]
    rows: list[Row] = []
    if cases := _scores(table, runs):
        rows += summarise(cases, part="test", samples=samples, seed=seed)
        rows += summarise_selective(cases, part="test", samples=500, seed=seed)
    findings = tuple(name.removeprefix(STATED) for name in table[0] if name.startswith(STATED))
    if findings:
        rows += score_folds(
            Findings(
                names=findings,
                probability=_numbers(table, [f"probability_{name}" for name in findings]),
                labels=_numbers(table, [f"label_{name}" for name in findings]),
                patients=[line["patient"] for line in table],
            ),
            [runs.index(out / line["fold"]) for line in table],
            bins=config.evaluate.bins,
            samples=samples,
            seed=seed,
        )
    write_text(out / "cases.csv", table_text(table))
    write_text(out / "metrics.json", to_json(rows))
    return out / "metrics.json"


def _scores(table: Sequence[dict[str, Any]], runs: Sequence[Path]) -> list[CaseScores]:
    """What every case scored alone, its columns named again as they are in ``metrics.json``."""
    named = {name for line in table for name in line}
    keys = {
        (row.metric, row.label)
        for run in runs
        for row in from_json((run / "metrics.json").read_text())
        if row.part == "test" and column(row.metric, row.label) in named
    }
    keys -= {(metric, MEAN) for metric, label in keys if label == ALL}  # one column, the case's
    return [
        CaseScores(
            line["case"],
            line["patient"],
            {key: _number(line.get(column(*key), "")) for key in sorted(keys)},
        )
        for line in table
        if keys
    ]


def _numbers(table: Sequence[dict[str, Any]], columns: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[_number(line[name]) for name in columns] for line in table])


def _number(text: str) -> float:
    return float(text) if text else math.nan


def summary(metrics: Path) -> list[str]:
    """The figures that a reader looks for first, a line each."""
    rows = {(row.metric, row.label): row for row in from_json(metrics.read_text())}
    return [
        f"{metric}, {label}: {row.value:.3f} ({row.low:.3f} to {row.high:.3f}), {row.n} patients"
        for metric, label in HEADLINES
        if (row := rows.get((metric, label))) is not None
    ]
