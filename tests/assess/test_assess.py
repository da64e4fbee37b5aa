"""Assessment on a handful of phantoms with an untrained network: the plumbing, not the quality."""

import copy
import csv
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from penumbra import assess, trained
from penumbra.assess.calibrate import expert_masks
from penumbra.assess.probes import spread
from penumbra.assess.samples import Samples
from penumbra.config import Config, resolve
from penumbra.data import split
from penumbra.data.cohort import read_cohort
from penumbra.data.phantom import write_phantom
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store, build
from penumbra.ground import Ground
from penumbra.inference.maps import CaseMaps
from penumbra.study.lines import RANKED_BY
from penumbra.trained import Calibration, Trained
from penumbra.types import Part


@pytest.fixture(scope="module")
def config() -> Config:
    return resolve("phantom-mri", size="tiny", overrides={"evaluate.attack_cases": 1})


@pytest.fixture(scope="module")
def store(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("assess")
    write_phantom(root / "data", modality="mri", cases=8, seed=0, shape=(32, 32, 8))
    cohort = split.draw(read_cohort(root / "data", modality="mri"), seed=0)
    return build(cohort, config.data, root / "store")


@pytest.fixture(scope="module")
def model(config: Config, store: Store) -> Trained:
    network = trained.build(config, store.task)
    trained.convert(network, config)
    untuned = Trained(network.eval(), store.task, config, provenance={"split": "s"})
    calibration = assess.calibrate(untuned, store, list(store.indices("val")))
    return Trained(network, store.task, config, calibration)


@pytest.fixture(scope="module")
def ground(store: Store) -> Ground:
    named: tuple[Part, ...] = ("train", "val", "test")
    parts = {part: list(store.indices(part)) for part in named}
    return Ground(store, parts, (1.0, 1.0), {"cohort": "phantoms", "split": "s"})


@pytest.fixture(scope="module")
def judged(model: Trained, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assess.assess(model, ground, out=out)
    return out


def test_calibration_is_finite_and_needs_no_test_patient(model: Trained) -> None:
    assert 0.01 < model.calibration.temperature < 100
    assert model.calibration.u_ref > 0


def test_every_row_has_the_documented_fields(judged: Path) -> None:
    tree = json.loads((judged / "metrics.json").read_text())
    fields = {"part", "metric", "label", "value", "low", "high", "n", "unit", "undefined"}
    assert tree["rows"]
    assert all(set(row) == fields for row in tree["rows"])


@pytest.mark.parametrize(
    "metric",
    ["dice", "hd95_mm", "ece", "ece_scaled", "brier", "nll", "aurc", "attention/hit", "probe_dice"],
)
def test_the_headline_metrics_of_held_out_patients_are_there(judged: Path, metric: str) -> None:
    tree = json.loads((judged / "metrics.json").read_text())
    assert any(row["metric"] == metric and row["part"] == "test" for row in tree["rows"])


def test_each_case_is_one_line_of_the_table(judged: Path, store: Store) -> None:
    with (judged / "cases.csv").open() as file:
        lines = list(csv.DictReader(file))
    expected = {store.cases[i].id for part in ("val", "test") for i in store.indices(part)}
    assert {line["case"] for line in lines} == expected


def test_a_study_ranks_cases_by_columns_that_exist(judged: Path) -> None:
    with (judged / "cases.csv").open() as file:
        (line, *_) = csv.DictReader(file)
    assert set(RANKED_BY) <= set(line)


def test_attacks_and_shifts_are_drawn_as_series(judged: Path) -> None:
    series = json.loads((judged / "evaluation" / "curves.json").read_text())["robustness"]
    assert {"attack", "family"} <= {key for point in series for key in point}


def test_a_model_that_predicts_nothing_says_so(
    model: Trained, ground: Ground, tmp_path: Path
) -> None:
    """Its bias leaves no voxel to any structure, whatever the image."""
    mute = copy.deepcopy(model.network)
    last = mute.get_submodule("heads.segmentation.last")
    with torch.no_grad():
        last.bias[0] += 1e3
    silent = replace(model, network=mute, calibration=Calibration())
    val = ground.parts["val"]
    assert assess.validate(mute, ground.store, val, model.config)["constant"] == 1
    (warning,) = assess.calibrate(silent, ground.store, val).warnings
    assert re.search(r"no structure in any of the \d+ val case.*train\.lr", warning)
    metrics = assess.assess(silent, ground, out=tmp_path)
    (warning,) = json.loads(metrics.read_text())["warnings"]
    assert re.search(r"no structure in any of the \d+ test case", warning)


def test_samples_hold_what_the_report_draws(judged: Path) -> None:
    with np.load(next((judged / "evaluation" / "samples").iterdir())) as sample:
        assert {"image", "prediction", "reference", "epistemic", "attention"} <= set(sample)
        assert sample["image"].shape == sample["epistemic"].shape


def test_a_sample_without_labels_shows_the_slice_with_most_attention(
    model: Trained, case: Callable[..., Prepared], tmp_path: Path
) -> None:
    attention = torch.full((1, 4, 4, 5), 0.1)
    attention[..., 3] = 0.2
    maps = CaseMaps(None, None, attention, {}, 0.0)
    samples = Samples(tmp_path)
    samples.consider(case((4, 4, 5)), maps, model)
    assert np.allclose(samples.seen[0].arrays["attention"], 0.2)


def test_assessing_twice_gives_the_same_file(
    judged: Path, model: Trained, ground: Ground, tmp_path: Path
) -> None:
    again = assess.assess(model, ground, out=tmp_path)
    assert again.read_text() == (judged / "metrics.json").read_text()


def test_a_segmented_case_asks_its_first_map_for_the_foreground(store: Store) -> None:
    case = store[0]
    ((row, mask),) = expert_masks(case)
    assert row == 0
    assert case.segmentation is not None
    assert np.array_equal(mask, np.asarray(case.segmentation) > 0)


def test_probes_are_spread_over_all_cases() -> None:
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([5, 6], 8) == [5, 6]
    assert spread([5, 6], 0) == []


def test_validation_scores_with_the_mean_over_regions(model: Trained, store: Store) -> None:
    scores = assess.validate(model.network, store, list(store.indices("val")), model.config)
    assert set(scores) == {"dice", "nll", "score", "constant"}
    assert 0 <= scores["score"] <= 1
    likely = model.config.train.model_copy(update={"keep": "likelihood"})
    config = model.config.model_copy(update={"train": likely})
    again = assess.validate(model.network, store, list(store.indices("val")), config)
    assert again["score"] == -again["nll"] == -scores["nll"]
    assert torch.is_grad_enabled()


def test_validation_cases_without_a_structure_score_nothing_instead_of_nan(
    model: Trained, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["penumbra.assess.validate"], "dice", lambda *_: float("nan"))
    scores = assess.validate(model.network, store, list(store.indices("val")), model.config)
    assert scores["score"] == 0.0
    assert "dice" not in scores


def test_the_width_is_that_with_the_least_likelihood_loss_and_never_none(
    model: Trained, store: Store
) -> None:
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    width, table = assess.temper(model, store, list(store.indices("val")))
    try:
        widths = [row["width"] for row in table]
        assert {0, 1, width} <= {*widths} <= {0, *model.config.bayes.temper}
        assert widths == sorted(widths)
        assert width == min(table[1:], key=lambda row: row["nll"])["width"]
        assert table[0]["epistemic_share"] == 0
        shares = [row["epistemic_share"] for row in table]
        assert shares == sorted(shares)
        rho = "heads.segmentation.last.weight_rho"
        ratio = model.network.state_dict()[rho].exp().log1p() / before[rho].exp().log1p()
        torch.testing.assert_close(ratio, torch.full_like(ratio, width), rtol=1e-3, atol=0)
    finally:
        model.network.load_state_dict(before)


def test_a_posterior_without_width_is_left_as_it_is(config: Config, store: Store) -> None:
    plain = Trained(trained.build(config, store.task).eval(), store.task, config)
    assert assess.temper(plain, store, list(store.indices("val"))) == (1.0, [])


def test_the_run_says_what_its_posterior_is_worth(judged: Path, model: Trained) -> None:
    found = json.loads((judged / "metrics.json").read_text())["posterior"]
    assert found["kind"] == "variational"
    assert {"name", "sigma_ratio", "snr", "kl_per_weight"} <= set(found["layers"][0])


def test_the_review_limit_is_on_what_ranks_cases_and_the_expected_dice_is_a_share(
    model: Trained,
) -> None:
    assert model.calibration.ranked_by in {"disagreement", "uncertainty", "entropy"}
    line = model.calibration.expected_dice
    assert not line or 0 <= line["error"] <= 1


def test_familiar_scans_need_enough_of_them(model: Trained, store: Store) -> None:
    train, val = list(store.indices("train")), list(store.indices("val"))
    assert assess.familiarize(model, store, train, val[:1]) is None
    known = assess.familiarize(model, store, train, train)
    assert known is not None
    assert len(known.validation) == len(train)


def test_the_score_that_ranked_validation_cases_best_is_chosen() -> None:
    from penumbra.assess.calibrate import _Seen

    seen = _Seen({"a": (1,)})
    seen.dice = [0.9, 0.3, 0.6, 0.1]
    seen.disagreement = [0.1, 0.2, 0.3, 0.4]
    seen.case_uncertainty = [0.1, 0.3, 0.2, 0.4]
    seen.entropy = [0.4, 0.1, 0.2, 0.3]
    chosen = seen.review(0.05)
    assert chosen["ranked_by"] == "uncertainty"
    assert chosen["review_above"] == pytest.approx(0.3)
    seen.case_uncertainty = [0.0] * 4
    assert seen.review(0.05)["ranked_by"] == "disagreement"


@pytest.mark.parametrize(("best", "tried"), [(1.0, 3), (4.0, 3), (0.1, 5), (0.5, 4)])
def test_widths_are_tried_downhill_from_the_trained_one(best: float, tried: int) -> None:
    from penumbra.assess.temper import _descend

    grid = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0]
    rows = _descend(grid, lambda width: {"width": width, "nll": abs(width / best - 1)})
    assert min(rows, key=lambda row: row["nll"])["width"] == best
    assert len(rows) == tried
    (row,) = _descend([2.0], lambda w: {"width": w, "nll": 0.0})
    assert row["width"] == 2
