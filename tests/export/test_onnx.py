import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from penumbra import trained
from penumbra.augment import to_display
from penumbra.bayes import bank
from penumbra.data.preprocess import prepare
from penumbra.errors import DataError
from penumbra.export.onnx import Noisy, export, noise_of
from penumbra.trained import Trained
from penumbra.types import Case

onnxruntime = pytest.importorskip("onnxruntime")

BTCV = Path(__file__).parents[2] / ".." / "shared" / "data" / "btcv_mini"


@pytest.fixture(scope="module")
def model(untrained_ct: Path) -> Trained:
    return trained.load(untrained_ct)


@pytest.fixture(scope="module")
def exported(model: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's exporter, about its own tree
        export(model, tmp_path_factory.mktemp("onnx") / "model.onnx")
    return tmp_path_factory.getbasetemp() / "onnx0" / "model.onnx"


def test_onnxruntime_repeats_every_draw_of_the_bank_on_a_real_case(
    model: Trained, exported: Path, tmp_path: Path
) -> None:
    scans = sorted((BTCV / "imagesTr").glob("*.nii.gz"))
    if not scans:
        generator = np.random.default_rng(0)
        scans = [tmp_path / "made.nii.gz"]
        hu = generator.normal(0, 200, (48, 48, 6)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(hu, np.diag([3.0, 3.0, 5.0, 1.0])), scans[0])
    case = prepare(Case("c", "c", {"ct": scans[0]}), model.task, model.config.data)
    window = model.config.data.window_hu
    image = torch.from_numpy(np.array(case.image, dtype=np.float32))[None]
    display = to_display(image, modality="ct", window_hu=window)[0]
    height, width = model.config.data.patch
    top, left = (display.shape[1] - height) // 2, (display.shape[2] - width) // 2
    slices = display[:, top : top + height, left : left + width].permute(3, 0, 1, 2)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    assert len(slices) >= 3
    posterior = bank(model.network, draws=3, generator=torch.Generator().manual_seed(3))
    same = torch.Generator().manual_seed(3)
    for t, noise in enumerate(noise_of(model.network, draws=3, generator=same)):
        for each in slices[:: max(1, len(slices) // 3)]:
            one = each[None].contiguous()
            (found,) = session.run(None, {"image": one.numpy(), "noise": noise.numpy()})
            with torch.no_grad():
                expected = posterior.decode(posterior.encode(one), t).segmentation
            assert expected is not None
            assert np.abs(found - expected.numpy()).max() < 1e-4


def test_noise_zero_is_the_mean_network(model: Trained) -> None:
    noisy = Noisy(model.network).eval()
    image = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (found,) = noisy(image, torch.zeros(noisy.noise_size))
        assert torch.equal(found, model.network(image).segmentation)


def test_what_a_user_must_know_stands_beside_it(model: Trained, exported: Path) -> None:
    described = json.loads(exported.with_suffix(".json").read_text())
    assert described["classes"] == ["background", "spleen", "liver"]
    assert sum(described["noise"].values()) == Noisy(model.network).noise_size
    assert described["differs_from_torch_by"] < 1e-4
    kept = np.load(exported.with_name("model_noise.npy"))
    same = torch.Generator().manual_seed(model.config.seed)
    draws = model.config.evaluate.fixed_draws
    np.testing.assert_array_equal(kept, noise_of(model.network, draws=draws, generator=same))


def test_a_posterior_without_gaussian_noise_is_refused(model: Trained) -> None:
    from penumbra.bayes import dropout

    network = trained.build(model.config, model.task)
    dropout.convert(network, rate=0.2)
    with pytest.raises(DataError, match=r"bayes\.posterior variational or none"):
        Noisy(network)
