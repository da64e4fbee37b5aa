"""Cross-validation: every patient tested once, figures of all folds together."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from tests.test_pipeline import lean

from penumbra import crossval, pipeline
from penumbra.data.phantom import write_phantom
from penumbra.data.tables import read_csv
from penumbra.errors import ConfigError
from penumbra.evaluate.protocol import Row, from_json
from penumbra.types import Modality


def validated(tmp_path: Path, modality: Modality) -> tuple[Path, dict[tuple[str, str], Row]]:
    shape = (48, 48) if modality == "xray" else (32, 32, 8)
    write_phantom(tmp_path / "data", modality=modality, cases=9, seed=0, shape=shape)
    settings = lean(modality, **{"evaluate.attack_eps": [], "evaluate.severities": []})
    metrics = crossval.run(settings, tmp_path / "data", tmp_path / "out", folds=2)
    return metrics, {(row.metric, row.label): row for row in from_json(metrics.read_text())}


def test_segmentations_of_all_folds_are_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, rows = validated(tmp_path, "mri")
    lines = read_csv(metrics.parent / "cases.csv")
    assert len({line["case"] for line in lines}) == len(lines) == 9
    dice = rows["dice", "mean"]
    assert dice.n == 9
    assert dice.value == pytest.approx(np.mean([float(line["dice"]) for line in lines]))
    assert crossval.summary(metrics)[0].startswith("dice, mean: 0.")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished fold ran again")

    before = metrics.read_text()
    monkeypatch.setattr(pipeline, "run", refuse)
    again = lean("mri", **{"evaluate.attack_eps": [], "evaluate.severities": []})
    assert crossval.run(again, tmp_path / "data", tmp_path / "out", folds=2) == metrics
    assert metrics.read_text() == before


@pytest.mark.parametrize("name", ["holdout_site", "fold"])
def test_the_test_part_is_chosen_once(tmp_path: Path, name: str) -> None:
    chosen = lean("mri", **{f"data.{name}": "1/2"})
    with pytest.raises(ConfigError, match="--folds chooses the test parts"):
        crossval.run(chosen, tmp_path, tmp_path / "out", folds=2)


def test_findings_are_ranked_within_folds(tmp_path: Path) -> None:
    metrics, rows = validated(tmp_path, "xray")
    lines = read_csv(metrics.parent / "cases.csv")
    won = pairs = 0.0
    name = next(n for (m, n), row in rows.items() if m == "auroc" and 0 < row.value < 1)
    for fold in ("fold-1", "fold-2"):
        here = [line for line in lines if line["fold"] == fold]
        score, label = (
            np.array([float(line[f"{what}_{name}"]) for line in here])
            for what in ("probability", "label")
        )
        stated = (label == 0) | (label == 1)
        score, label = score[stated], label[stated]
        count = label.sum() * (1 - label).sum()
        won, pairs = won + (count and count * roc_auc_score(label, score)), pairs + count
    assert rows["auroc", name].value == pytest.approx(won / pairs)
    assert ("sensitivity", name) not in rows
