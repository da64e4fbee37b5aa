"""Explainers against each other, on annotated phantoms with an untrained network."""

import math

import numpy as np
import pytest
import torch

from penumbra import trained
from penumbra.assess.attention import calibrate_attention, count_attention
from penumbra.assess.explanations import choose_levels, compare, draw_maps, judge_maps
from penumbra.assess.pictures import pictures
from penumbra.assess.sanity import randomization
from penumbra.attend.reliability import calibration_error, merge
from penumbra.config import resolve
from penumbra.data import split
from penumbra.data.cohort import read_cohort
from penumbra.data.phantom import write_phantom
from penumbra.data.store import Store, build
from penumbra.evaluate.localization import auprc
from penumbra.inference.levels import levels_of
from penumbra.trained import Trained


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Store]:
    """An untrained Bayesian network whose gates vary over the image, and annotated phantoms."""
    folder = tmp_path_factory.mktemp("phantoms")
    config = resolve("phantom-mri", size="tiny")
    write_phantom(folder / "data", modality="mri", cases=8, seed=0, shape=(32, 32, 8))
    cohort = split.draw(read_cohort(folder / "data", modality="mri"), seed=0)
    store = build(cohort, config.data, folder / "store")
    network = trained.build(config, store.task)
    chance = torch.Generator().manual_seed(0)
    for gate in network.gates:
        gate.g.weight.data.normal_(generator=chance)
    trained.convert(network, config)
    return Trained(network.eval(), store.task, config), store


def test_every_method_is_scored_on_localization_and_faithfulness(
    fresh: tuple[Trained, Store],
) -> None:
    model, store = fresh
    methods = ("attention", "modulated", "grad_cam", "centre_prior")
    cases = compare(
        model,
        store,
        list(store.indices("test"))[:2],
        methods,
        tuning=list(store.indices("val"))[:1],
    )
    found = {metric: value for (metric, _), value in cases[0].scores.items()}
    for method in methods:
        for metric in ("hit", "iou_otsu", "iou_tuned", "auprc", "insertion", "deletion"):
            assert math.isfinite(found[f"explanation/{method}/{metric}"])
    assert found["explanation/attention/gate_change"] > 1e-6


def test_a_localizer_that_returns_the_mask_is_perfect(fresh: tuple[Trained, Store]) -> None:
    model, store = fresh
    judged = pictures(model, store, list(store.indices("test"))[:1])
    maps = draw_maps(model, judged, (), localizer=lambda p: p.mask.astype(np.float32))
    (case,) = judge_maps(model, judged, maps, {"localizer": 0.5}, faithful=False)
    found = {metric: value for (metric, _), value in case.scores.items()}
    for metric, best in (("hit", 1.0), ("iou_tuned", 1.0), ("auprc", 1.0)):
        assert found[f"explanation/localizer/{metric}"] == best
    assert found["explanation/localizer/centroid_error_mm"] == pytest.approx(0.0)


def test_grad_cam_reads_the_level_that_finds_validation_masks_best(
    fresh: tuple[Trained, Store],
) -> None:
    model, store = fresh
    tuned = pictures(model, store, list(store.indices("val"))[:1])
    chosen = choose_levels(model, tuned, ("attention", "grad_cam"))
    assert set(chosen) == {"grad_cam"}
    reached = [
        auprc(draw_maps(model, tuned, ("grad_cam",), {"grad_cam": level})["grad_cam"][0], p.mask)
        for p in tuned
        for level in range(len(levels_of(model.network)))
    ]
    assert len(set(reached)) > 1
    assert reached[chosen["grad_cam"]] == max(reached)


def test_maps_of_the_network_forget_with_its_weights_and_priors_do_not(
    fresh: tuple[Trained, Store],
) -> None:
    model, store = fresh
    judged = pictures(model, store, list(store.indices("test"))[:1])
    alike = randomization(model, judged, ("attention", "centre_prior"))
    assert alike["centre_prior"] == pytest.approx([1.0, 1.0, 1.0])
    assert alike["attention"][-1] < 0.9


def test_the_table_of_reliability_is_kept_with_the_model_and_corrects_attention(
    fresh: tuple[Trained, Store],
) -> None:
    model, store = fresh
    calibrated = calibrate_attention(model, store, store.indices("val"))
    assert calibrated.calibration.relevance is not None
    before, after = (
        merge(by_patient.values())
        for by_patient in count_attention(calibrated, store, store.indices("test"))
    )
    assert before.regions.sum() == after.regions.sum() > 0
    assert calibration_error(after) < calibration_error(before)
