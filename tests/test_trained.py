from pathlib import Path

import pytest
import torch

from penumbra import trained
from penumbra.config import resolve
from penumbra.errors import ConfigError, DataError
from penumbra.trained import Calibration, Trained
from penumbra.types import Task

TASK = Task(
    modality="mri",
    channels=("flair", "t1"),
    classes=("background", "lesion"),
    label_values={0: 0, 1: 1},
    regions={"WT": (1,)},
    findings=("lesion present",),
)


def model() -> Trained:
    config = resolve("phantom-mri", size="tiny")
    network = trained.build(config, TASK)
    trained.convert(network, config)
    return Trained(
        network.eval(), TASK, config, Calibration(temperature=1.5, thresholds={"a": 0.2})
    )


def test_a_model_folder_brings_back_the_same_predictions_and_calibration(tmp_path: Path) -> None:
    before = model()
    before.save(tmp_path)
    after = trained.load(tmp_path)
    image = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before.network(image).segmentation, after.network(image).segmentation)
    assert after.calibration == before.calibration
    assert after.task == TASK
    assert after.config == before.config


def test_a_folder_without_a_model_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trained model here; train one with"):
        trained.load(tmp_path)


def test_a_damaged_description_is_named(tmp_path: Path) -> None:
    model().save(tmp_path)
    (tmp_path / trained.RECORD).write_text("{")
    with pytest.raises(DataError, match=r"model\.json: not a model description"):
        trained.load(tmp_path)


def test_a_model_of_another_format_is_refused_before_it_predicts_wrongly(tmp_path: Path) -> None:
    model().save(tmp_path)
    record = tmp_path / trained.RECORD
    record.write_text(record.read_text().replace(f'"format": {trained.FORMAT}', '"format": 1'))
    with pytest.raises(DataError, match=r"a model of format 1.*train it again"):
        trained.load(tmp_path)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    model().save(tmp_path)
    weights = tmp_path / trained.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"model\.safetensors: checkpoint cannot be read"):
        trained.load(tmp_path)


def test_what_is_familiar_is_kept_and_the_fingerprint_knows_it(tmp_path: Path) -> None:
    from dataclasses import replace

    from penumbra.bayes.mahalanobis import fit_familiarity

    features = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    known = fit_familiarity(features[:8], features[8:])
    model().save(tmp_path)
    before = trained.fingerprint(tmp_path)
    replace(model(), familiarity=known).save(tmp_path)
    after = trained.load(tmp_path).familiarity
    assert after is not None
    assert torch.equal(after(features), known(features))
    assert trained.fingerprint(tmp_path) != before
    (tmp_path / trained.FAMILIARITY).write_bytes(b"x")
    with pytest.raises(DataError, match=r"familiarity\.safetensors"):
        trained.load(tmp_path)


def test_a_published_architecture_has_no_decoder_to_repeat() -> None:
    settings = {"bayes.decoders": 2, "model.architecture": "dynunet"}
    with pytest.raises(ConfigError, match=r"decoders=2: dynunet has no decoder"):
        resolve("phantom-mri", overrides=settings)


def test_decoders_of_one_run_and_of_the_next_seed_all_start_elsewhere() -> None:
    starts = []
    for seed in (0, 1):
        overrides = {"bayes.decoders": 2, "seed": seed}
        network = trained.build(resolve("phantom-mri", size="tiny", overrides=overrides), TASK)
        weights = [b.decoder.levels[0].skip.weight.detach() for b in network.branches]
        starts += [float(weight.sum()) for weight in weights]
    assert len(set(starts)) == 4
