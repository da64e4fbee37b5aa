from pathlib import Path

import numpy as np
import pytest
import torch

from penumbra import trained
from penumbra.bayes.layer import stochastic_layers
from penumbra.export.onnx import Noisy, export

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def session(untrained_ct: Path, tmp_path_factory: pytest.TempPathFactory):
    path = export(trained.load(untrained_ct), tmp_path_factory.mktemp("onnx") / "model.onnx")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.filterwarnings("ignore")
def test_onnx_repeats_every_draw_of_torch(session, untrained_ct: Path) -> None:
    model = trained.load(untrained_ct)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, *model.config.data.patch, generator=generator)
    noisy = Noisy(model.network).eval()
    for scale in (0.0, 1.0, 1.0):
        noise = scale * torch.randn(noisy.noise_size, generator=generator)
        with torch.no_grad():
            (expected,) = noisy(image, noise)
        (found,) = session.run(None, {"image": image.numpy(), "noise": noise.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_noise_zero_is_the_mean_network(untrained_ct: Path) -> None:
    network = trained.load(untrained_ct).network
    noisy = Noisy(network).eval()
    image = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (found,) = noisy(image, torch.zeros(noisy.noise_size))
        assert torch.equal(found, network(image).segmentation)


def test_the_noise_of_a_bank_gives_the_draw_of_that_bank(untrained_ct: Path) -> None:
    from penumbra.bayes import bank
    from penumbra.bayes.layer import normal

    network = trained.load(untrained_ct).network
    drawn = bank(network, draws=1, generator=torch.Generator().manual_seed(3))
    again, noise = torch.Generator().manual_seed(3), []
    for layer in stochastic_layers(network):
        noise.append(normal(layer.weight, again).ravel())
        if layer.bias is not None:
            noise.append(normal(layer.bias, again).ravel())
    image = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        (found,) = Noisy(network).eval()(image, torch.cat(noise))
        expected = drawn.decode(drawn.encode(image), 0).segmentation
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
