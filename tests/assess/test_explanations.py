"""Explainers against each other, on annotated phantoms with an untrained network."""

import math
from pathlib import Path

from penumbra import trained
from penumbra.assess.explanations import compare
from penumbra.config import resolve
from penumbra.data import split
from penumbra.data.cohort import read_cohort
from penumbra.data.phantom import write_phantom
from penumbra.data.store import build
from penumbra.trained import Trained


def test_every_method_is_scored_on_localization_and_faithfulness(tmp_path: Path) -> None:
    config = resolve("phantom-mri", size="tiny")
    write_phantom(tmp_path / "data", modality="mri", cases=8, seed=0, shape=(32, 32, 8))
    cohort = split.draw(read_cohort(tmp_path / "data", modality="mri"), seed=0)
    store = build(cohort, config.data, tmp_path / "store")
    network = trained.build(config, store.task)
    trained.convert(network, config)
    model = Trained(network.eval(), store.task, config)
    methods = ("attention", "modulated", "grad_cam", "centre_prior")
    rows = compare(
        model,
        store,
        list(store.indices("test"))[:2],
        methods,
        tuning=list(store.indices("val"))[:1],
        localizer=model,
    )
    found = {row.metric: row.value for row in rows}
    for method in methods:
        for metric in ("hit", "iou_otsu", "iou_tuned", "auprc", "insertion", "deletion"):
            assert math.isfinite(found[f"explanation/{method}/{metric}"])
    assert found["explanation/attention/gate_change"] < 1e-6  # fresh gates are constant
    assert "explanation/localizer/auprc" in found
