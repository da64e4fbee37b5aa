"""One cell from files to its row, and from rows to tables."""

from pathlib import Path

import pytest

from penumbra.config import resolve
from penumbra.data.phantom import write_phantom
from penumbra.study.arms import chosen
from penumbra.study.matrix import Study, begin
from penumbra.study.rows import read_row
from penumbra.study.tables import rebuild

LEAN = {
    "data.patch": [32, 32],
    "data.image_size": [32, 32],
    "train.steps": 3,
    "evaluate.severities": [5],
    "evaluate.attack_eps": [0.02],
    "evaluate.bootstrap": 100,
}


def test_a_bare_network_of_findings_leaves_a_row_and_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENUMBRA_CACHE", str(tmp_path / "cache"))
    write_phantom(tmp_path / "x", modality="xray", cases=10, seed=0, shape=(48, 48))
    config = resolve("phantom-xray", size="tiny", overrides=LEAN)
    arms = tuple(chosen(["supervised"], modality="xray"))
    study = Study(config, tmp_path / "x", tmp_path / "s", arms, (1.0,), 1)
    begin(study)
    (cell,) = study.cells()
    cell.run()
    row = read_row(cell.row)
    assert row["parameters"] > 0
    assert not any(name.startswith("attention/") for name in row["cases"][0])
    assert {probe["kind"] for probe in row["probes"]} == {"clean", "attack", "shift"}
    names = {path.name for path in rebuild(study.out)}
    assert {"summary.md", "parts.md", "attacks.md", "claims.json", "attacks.svg"} <= names
