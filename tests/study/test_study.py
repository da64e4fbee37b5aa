"""The matrix expands and resumes, rows are sealed, and verdicts follow from intervals."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penumbra.config import resolve
from penumbra.errors import ConfigError, DataError
from penumbra.evaluate.selective import aurc
from penumbra.evaluate.statistics import Interval, verdict
from penumbra.study import matrix
from penumbra.study.arms import ARMS, chosen
from penumbra.study.job import Job
from penumbra.study.matrix import Study
from penumbra.study.rows import columns, read_row, write_row
from penumbra.study.tables import rebuild


def row(arm: str, fraction: float, seed: int, dice: float) -> dict[str, Any]:
    cases = [{"case": str(i), "patient": f"0{i}", "dice": dice + 0.01 * i} for i in range(6)]
    base = {"arm": arm, "fraction": fraction, "seed": seed, "split_hash": "h", "seconds": 1.0}
    return base | {"cases": columns(cases), "probes": []}


def test_every_arm_resolves_on_every_preset() -> None:
    for arm in ARMS.values():
        resolve("phantom-xray", size="tiny", overrides=arm.settings)
    assert "nnunet-style" not in {arm.name for arm in chosen(["all"], modality="xray")}
    with pytest.raises(ConfigError, match=r"nnunet-style: gives no findings; suited: .*densenet"):
        chosen(["nnunet-style"], modality="xray")


def test_the_matrix_is_every_arm_fraction_and_seed_once(study: Study) -> None:
    matrix.begin(study)
    cells = study.cells()
    assert len(cells) == len({cell.name for cell in cells}) == 5 * 2 * 2 + 2
    assert cells[-1].arm == "seed-ensemble"
    assert len(study.pretrainings()) == study.seeds
    assert {cell.config.data.split_seed for cell in cells} == {0}


def test_a_crashed_cell_is_retried_once_and_reported_and_the_others_go_on(study: Study) -> None:
    tried: list[str] = []
    matrix.begin(study)
    jobs = study.cells()[:3]

    def work(job: Job) -> None:
        tried.append(job.name)
        if job == jobs[1]:
            raise RuntimeError("broken")
        write_row(job.row, {"arm": "x"})

    failures = matrix.run_wave(jobs, on="serial", workers=1, work=work)
    assert [f.job for f in failures] == [jobs[1].name]
    assert "broken" in failures[0].message
    assert tried == [jobs[0].name, jobs[1].name, jobs[2].name, jobs[1].name]
    tried.clear()
    matrix.run_wave(jobs, on="serial", workers=1, work=work)
    assert set(tried) == {jobs[1].name}


def test_a_tampered_row_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_row(path, row("ours", 1.0, 0, 0.8))
    assert read_row(path)["cases"][0]["patient"] == "00"
    path.write_text(path.read_text().replace('"dice":[0.8,', '"dice":[0.9,'))
    with pytest.raises(DataError, match="was changed after it was written"):
        read_row(path)


def test_an_interval_that_crosses_zero_is_undecided() -> None:
    assert verdict(Interval(0.1, -0.1, 0.3, 9), threshold=0.0) == "undecided"


def test_tables_and_verdicts_are_rebuilt_from_rows_alone(tmp_path: Path) -> None:
    for seed in range(2):
        for arm, fraction, dice in (("supervised", 1.0, 0.6), ("ours", 0.5, 0.8), ("ours", 1, 0.9)):
            name = f"{arm}@{fraction:g}-s{seed}.json"
            write_row(tmp_path / "rows" / name, row(arm, fraction, seed, dice))
    written = rebuild(tmp_path)
    first = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in rebuild(tmp_path)] == first
    found = {c["claim"]: c for c in json.loads((tmp_path / "claims.json").read_text())["claims"]}
    assert found["label-efficiency"]["verdict"] == "supported"
    assert found["localization"]["verdict"] == "undecided"
    assert len(found) == 5


def test_uncertainty_is_ranked_seed_by_seed(tmp_path: Path) -> None:
    """A seed that is surer and worse than another must not spoil a ranking within each."""
    expected = []
    for seed in range(2):
        made = row("ours", 1.0, seed, 0.5 * seed)
        risk = 1 - np.array(made["cases"]["dice"])
        expected.append(aurc(risk, risk))
        unsure = [1 + 10 * seed - dice for dice in made["cases"]["dice"]]
        made["cases"]["uncertainty/disagreement"] = unsure
        write_row(tmp_path / "rows" / f"ours@1-s{seed}.json", made)
    rebuild(tmp_path)
    with (tmp_path / "tables" / "rankings.csv").open() as file:
        found = {line["metric"]: float(line["value"]) for line in csv.DictReader(file)}
    assert found["spearman"] == pytest.approx(1)
    assert found["aurc"] == pytest.approx(np.mean(expected))
