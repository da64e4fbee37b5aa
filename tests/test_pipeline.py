"""Files in, report out, on the phantoms; the same seed gives the same numbers, another does not."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from penumbra import pipeline, trained
from penumbra.config import Config, resolve
from penumbra.data.phantom import write_phantom
from penumbra.errors import ConfigError
from penumbra.types import Modality

LEAN = {
    "pretrain.steps": 3,
    "pretrain.batch": 4,
    "train.steps": 8,
    "evaluate.draws": 2,
    "evaluate.severities": [5],
    "evaluate.attack_eps": [0.02],
    "evaluate.attack_cases": 1,
    "evaluate.bootstrap": 100,
    "device": "cpu",
}
"""Below size tiny: these tests ask whether it runs and repeats, not how well it does."""
SHAPES: dict[Modality, tuple[int, ...]] = {
    "mri": (32, 32, 8),
    "ct": (32, 32, 8),
    "xray": (48, 48),
}


def lean(modality: Modality, **overrides: object) -> Config:
    small = {"data.patch": [32, 32]}
    if modality == "xray":
        small["data.image_size"] = [32, 32]
    return resolve(f"phantom-{modality}", size="tiny", overrides=LEAN | small | overrides)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    for modality, shape in SHAPES.items():
        write_phantom(root / modality, modality=modality, cases=10, seed=0, shape=shape)
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENUMBRA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def rows(run: Path) -> dict[tuple[str, str, str], Any]:
    table = json.loads((run / "metrics.json").read_text())["rows"]
    return {(r["part"], r["metric"], r["label"]): r["value"] for r in table}


@pytest.mark.parametrize("modality", ["mri", "ct", "xray"])
def test_the_whole_method_runs_on_a_phantom(
    phantoms: Path, tmp_path: Path, modality: Modality
) -> None:
    report = pipeline.run(lean(modality), phantoms / modality, tmp_path)
    assert report.stat().st_size > 10_000
    scores = rows(tmp_path)
    key = ("test", "auroc", "mean") if modality == "xray" else ("test", "dice", "mean")
    assert key in scores
    shown = [v for v in scores.values() if v is not None]
    assert all(math.isfinite(v) for v in shown)
    for name in ("config.yaml", "split.json", "cases.csv", "model/model.json"):
        assert (tmp_path / name).stat().st_size > 0


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(
    phantoms: Path, tmp_path: Path
) -> None:
    texts = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        config = lean("xray", seed=seed, **{"evaluate.attack_cases": 0})
        pipeline.run(config, phantoms / "xray", tmp_path / name)
        texts[name] = (tmp_path / name / "metrics.json").read_text()
    assert texts["first"] == texts["again"]
    assert rows(tmp_path / "first") != rows(tmp_path / "other")


def test_last_layer_laplace_is_fitted_tempered_and_stored(phantoms: Path, tmp_path: Path) -> None:
    settings = {"bayes.posterior": "laplace", "pretrain.steps": 0, "evaluate.attack_cases": 0}
    config = lean("mri", **settings, **{"bayes.temper": [0.5, 1.0]})
    model = trained.load(pipeline.train(config, phantoms / "mri", tmp_path))
    factor = model.network.get_buffer("heads.segmentation.last.factor")
    assert float(factor.abs().max()) > 0
    assert model.calibration.posterior_width in (0.5, 1.0)
    assert [row["width"] for row in model.calibration.tempering] == [0.0, 0.5, 1.0]


def test_another_cohort_is_judged_beside_the_runs_own(phantoms: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "moved", modality="xray", cases=12, seed=1, shape=SHAPES["xray"])
    config = lean("xray", **{"pretrain.steps": 0, "evaluate.attack_cases": 0})
    run = tmp_path / "run"
    pipeline.train(config, phantoms / "xray", run)
    own = pipeline.evaluate(run)
    before = own.read_text()
    other = pipeline.evaluate(run, data=tmp_path / "moved")
    assert other == run / "evaluations" / "moved" / "metrics.json"
    assert other.read_text() != before == own.read_text()
    split = json.loads((run / "split.json").read_text())["hash"]
    assert json.loads(before)["split_hash"] == split != json.loads(other.read_text())["split_hash"]
    assert pipeline.build_report(other.parent).parent == other.parent


def test_a_run_is_not_continued_with_other_settings(phantoms: Path, tmp_path: Path) -> None:
    pipeline.prepare(lean("xray"), phantoms / "xray", tmp_path)
    with pytest.raises(ConfigError, match=r"train\.lr: 0\.002 -> 0\.5.*another --out"):
        pipeline.prepare(lean("xray", **{"train.lr": 0.5}), phantoms / "xray", tmp_path)
