"""A prediction in memory says the same as its files, and shows itself."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import penumbra as pn
from penumbra.bayes import decompose
from penumbra.errors import DataError
from penumbra.inference.case import write_prediction
from penumbra.types import Case


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[pn.Prediction, Path]:
    folder = tmp_path_factory.mktemp("prediction")
    pn.write_phantom(folder / "data", modality="mri", cases=8, seed=0, shape=(32, 32, 8))
    short = {"train.steps": 2, "pretrain.steps": 0, "evaluate.attack_cases": 0}
    config = pn.resolve("phantom-mri", size="tiny", overrides=short)
    pn.train_model(config, folder / "data", folder / "run")
    return pn.predict(folder / "run", folder / "data" / "phantom_0000", draws=2), folder


def test_maps_lie_in_the_scans_own_grid(said: tuple[pn.Prediction, Path]) -> None:
    prediction, folder = said
    scan = nibabel.load(next((folder / "data" / "phantom_0000").glob("*flair*")))
    assert prediction.segmentation is not None
    assert prediction.segmentation.shape == scan.shape
    assert np.allclose(prediction.affine, scan.affine)
    assert prediction.probability is not None
    assert np.allclose(prediction.probability.sum(0), 1, atol=1e-3)  # also where it was cropped


def test_files_hold_what_the_prediction_says(said: tuple[pn.Prediction, Path]) -> None:
    prediction, folder = said
    wrote = write_prediction(prediction, folder / "pred")
    epistemic = next(path for path in wrote if path.name.endswith("epistemic.nii.gz"))
    assert np.allclose(np.asarray(nibabel.load(epistemic).dataobj), prediction.epistemic)
    record = json.loads((folder / "pred" / "phantom_0000.json").read_text())
    assert record["volumes_ml"] == json.loads(json.dumps(prediction.volumes_ml))
    assert record["decision"]["verdict"] == prediction.verdict


def test_a_notebook_shows_the_page_of_the_case(said: tuple[pn.Prediction, Path]) -> None:
    prediction, _ = said
    assert "srcdoc" in prediction._repr_html_()
    assert prediction.verdict in repr(prediction)
    assert len(prediction.plot().axes) == 4


def test_uncertainty_and_case_show_themselves_briefly() -> None:
    maps = decompose(torch.full((2, 1, 2, 4, 4), 0.5))
    assert repr(maps).startswith("Uncertainty(1x4x4; means: epistemic 0")
    assert len(maps.plot(0).axes) == 4
    with pytest.raises(ValueError, match="leaves two axes"):
        maps.plot()
    assert "<b>" not in Case(id="<b>", patient="p", images={})._repr_html_()


def test_a_case_draws_its_channels_with_labels_outlined(
    said: tuple[pn.Prediction, Path], tmp_path: Path
) -> None:
    _, folder = said
    case = pn.read_cohort(folder / "data", modality="mri").cases[0]
    pictures = case.plot().axes
    assert [axes.get_title() for axes in pictures] == list(case.images)
    assert all(axes.collections for axes in pictures)  # the outlines
    pn.write_phantom(tmp_path, modality="xray", cases=3, seed=0, shape=(48, 48))
    film = pn.read_cohort(tmp_path, modality="xray").cases[0]
    assert film.plot().axes[0].images[0].get_array().shape == (48, 48)
    with pytest.raises(DataError, match="no such file"):
        Case(id="a", patient="a", images={"ct": tmp_path / "absent.nii.gz"}).plot()
