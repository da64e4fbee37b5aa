"""Files in, report out, on the phantoms; the same seed gives the same numbers, another does not."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from penumbra import checkpoint, pipeline, trained
from penumbra.config import Config, resolve
from penumbra.data.phantom import write_phantom
from penumbra.decoders import Decoders
from penumbra.errors import ConfigError, Stopped
from penumbra.inference.case import predict
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


TOP = {"mri": "heads.segmentation.last.weight", "xray": "heads.findings.last.weight"}
"""The last layer of the task's head."""
KEPT = ("best", "last")


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


@pytest.mark.parametrize(
    ("modality", "kind", "draws"), [("mri", "none", 3), ("xray", "variational", 6)]
)
def test_a_decoder_ensemble_is_a_setting_from_training_to_report(
    phantoms: Path, tmp_path: Path, modality: Modality, kind: str, draws: int
) -> None:
    """Three decoders of one function each, or with a posterior of which each gives two draws."""
    settings = {"bayes.posterior": kind, "bayes.decoders": 3, "pretrain.steps": 0}
    config = lean(modality, **settings, **{"evaluate.draws": 6})
    pipeline.run(config, phantoms / modality, tmp_path / "run")
    model = trained.load(tmp_path / "run")
    assert isinstance(model.network, Decoders)
    weights = [b.get_parameter(TOP[modality]).detach() for b in model.network.branches]
    assert len({float(w.sum()) for w in weights}) == 3
    scores = rows(tmp_path / "run")
    spread = "uncertainty/epistemic/" + ("mean" if modality == "xray" else "region")
    assert scores["test", spread, "all"] > 0
    name = "view1_frontal.png" if modality == "xray" else "*flair.nii.gz"
    scan = next((phantoms / modality).rglob(name))
    scan = scan if modality == "xray" else scan.parent
    found = predict(model, scan)
    assert all(volume["draws"] == draws for volume in found.volumes_ml.values())
    assert found.volumes_ml or modality == "xray"
    with pytest.raises(ConfigError, match="several decoders"):
        predict(model, scan, draws="propagate")


def test_a_stopped_training_of_several_decoders_ends_with_the_same_weights(
    phantoms: Path, tmp_path: Path
) -> None:
    settings = {"bayes.decoders": 2, "bayes.warm_start": 0.5, "pretrain.steps": 0}
    config = lean("xray", **settings)
    pipeline.train(config, phantoms / "xray", tmp_path / "whole")
    for _ in range(7):  # each lasts one step
        with pytest.raises(Stopped):
            pipeline.train(config, phantoms / "xray", tmp_path / "parts", deadline=0.0)
    pipeline.train(config, phantoms / "xray", tmp_path / "parts")
    whole, parts = (
        checkpoint.read(tmp_path / name / "model" / trained.WEIGHTS)[0]
        for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


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


def test_the_encoders_rate_spares_what_pre_training_learned_and_nothing_else(
    phantoms: Path, tmp_path: Path
) -> None:
    config = lean("mri", **{"train.encoder_lr_factor": 0.0, "attention.gates": False})
    data = phantoms / "mri"
    encoder = pipeline.pretrain(config, data, tmp_path / "before")
    learned = pipeline._without_prefix(checkpoint.read(encoder)[0])
    pipeline.train(config, data, tmp_path / "kept", encoder=encoder)
    kept = trained.load(tmp_path / "kept").network.encoder.state_dict()
    assert all(torch.equal(kept[name], learned[name]) for name, _ in kept.items())
    pipeline.train(config, data, tmp_path / "fresh")
    fresh = trained.load(tmp_path / "fresh").network.encoder.state_dict()
    start = pipeline._network(config, pipeline._ground(config, data, tmp_path / "ground"))
    moved = [n for n, p in start.encoder.named_parameters() if not torch.equal(p, fresh[n])]
    assert len(moved) == len(list(start.encoder.parameters()))


@pytest.mark.parametrize("keep", ["last", "likelihood"])
def test_the_model_has_the_weights_that_were_asked_for(
    phantoms: Path, tmp_path: Path, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = itertools.count()  # every look is worse than the one before
    monkeypatch.setattr(pipeline.assess, "validate", lambda *_: {"score": -float(next(looks))})
    config = lean("mri", **{"train.keep": keep, "train.validate_every": 1, "pretrain.steps": 0})
    pipeline.train(config, phantoms / "mri", tmp_path)
    found = trained.load(tmp_path).network.state_dict()
    best, last = (checkpoint.read(tmp_path / "train" / f"{k}.safetensors")[0] for k in KEPT)
    wanted, other = (last, best) if keep == "last" else (best, last)
    (key,) = (k for k in wanted if k.startswith("model/") and k.endswith(TOP["mri"]))
    torch.testing.assert_close(found[TOP["mri"]], wanted[key])
    assert not torch.equal(wanted[key], other[key])


def test_nothing_is_chosen_where_nothing_is_validated() -> None:
    with pytest.raises(ConfigError, match="keep score chooses by validation"):
        lean("mri", **{"train.keep": "score", "train.validate_every": 0})
