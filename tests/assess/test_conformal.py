"""Promises fitted on some patients and counted on others."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lesion import TASK
from penumbra.assess.conformal import Promised, coverage, true_volumes_ml
from penumbra.data.preprocess import Prepared
from penumbra.inference.maps import CaseMaps
from penumbra.inference.promises import finding_set, volume_interval
from penumbra.trained import Calibration, Trained
from penumbra.types import Uncertainty

Make = Callable[..., Prepared]


def patient(case: Make, rng: np.random.Generator, k: int) -> tuple[Prepared, CaseMaps]:
    """A lesion of up to 64 voxels of 12 mm^3, a posterior that is off by two of its deviations."""
    prepared = case((4, 4, 4))
    labels = (rng.random((4, 4, 4)) < rng.uniform(0.2, 0.8)).astype(np.int64)
    present = float(rng.random() < 0.5)
    truth = labels.sum() * 0.012
    draws = truth + 0.1 * rng.normal() + 0.05 * rng.normal(size=8)
    p = float(np.clip(0.5 + (present - 0.5) * rng.uniform(-0.3, 1), 0, 1))
    one = torch.tensor([p])
    maps = CaseMaps(
        voxels=None,
        findings=Uncertainty(one, *[torch.zeros(1)] * 6),
        attention=torch.zeros(2, 4, 4, 4),
        draw_volumes_ml={"WT": draws},
        disagreement=0.0,
    )
    named = replace(prepared.case, id=f"p{k}", patient=f"p{k}")
    changed = {"case": named, "segmentation": labels, "findings": np.array([present], np.float32)}
    return replace(prepared, **changed), maps


def fitted(case: Make, count: int, rng: np.random.Generator) -> Calibration:
    promised = Promised()
    for k in range(count):
        promised.add(*patient(case, rng, k), TASK)
    volumes = promised.volume_quantiles()
    return Calibration(
        volume_quantile={r: q for r, (q, _) in volumes.items()},
        volume_floor_ml={r: f for r, (_, f) in volumes.items()},
        finding_quantile=promised.finding_quantiles(),
    )


def test_new_patients_are_covered_where_the_credible_interval_is_too_narrow(
    untrained_ct: Path, case: Make
) -> None:
    from penumbra import trained

    rng = np.random.default_rng(0)
    model = replace(trained.load(untrained_ct), task=TASK, calibration=fitted(case, 99, rng))
    assert isinstance(model, Trained)
    scores = [coverage(model, *patient(case, rng, k)) for k in range(300)]
    mean = {key: np.mean([s[key] for s in scores]) for key in scores[0]}
    sem = 4 * np.sqrt(0.09 * (1 / 300 + 1 / 99))
    assert mean["coverage/volume_conformal", "WT"] == pytest.approx(0.9, abs=sem)
    assert mean["coverage/finding_set", TASK.findings[0]] == pytest.approx(0.9, abs=sem)
    assert mean["coverage/volume_credible", "WT"] < 0.8
    assert json.loads(json.dumps(model.calibration.volume_quantile))


def test_too_few_patients_promise_nothing(case: Make) -> None:
    calibration = fitted(case, 8, np.random.default_rng(0))
    assert volume_interval(np.ones(4), "WT", calibration) is None
    assert finding_set(0.5, TASK.findings[0], calibration) is None
    assert fitted(case, 9, np.random.default_rng(0)).volume_quantile


def test_a_finding_is_excluded_only_where_its_score_says_so() -> None:
    calibration = Calibration(finding_quantile={"a": 0.3, "b": 0.6})
    assert finding_set(0.9, "a", calibration) == ["present"]
    assert finding_set(0.5, "a", calibration) == []
    assert finding_set(0.5, "b", calibration) == ["absent", "present"]


def test_a_reference_with_ignored_voxels_has_no_volume(case: Make) -> None:
    prepared, _ = patient(case, np.random.default_rng(0), 0)
    assert true_volumes_ml(prepared, TASK)["WT"] == pytest.approx(
        np.asarray(prepared.segmentation).sum() * 0.012
    )
    prepared.segmentation[0, 0, 0] = -1
    assert true_volumes_ml(prepared, TASK) == {}
