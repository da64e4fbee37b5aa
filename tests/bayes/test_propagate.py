"""The single-pass estimator: exact pieces, and maps that rank voxels as the draws do."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from penumbra import bayes
from penumbra.bayes.propagate import Propagation, rectified_moments
from penumbra.bayes.stream import window_maps
from penumbra.model import Network


def network(sigma0: float, *, convs: int = 1, dim: int = 2) -> Network:
    net = Network(
        channels=1,
        classes=3,
        findings=2,
        dim=dim,
        widths=(8, 16, 16),
        neck=4,
        decoder_convs=convs,
    )
    with torch.no_grad():  # gates that do something, logits that are not flat
        for gate in net.gates:
            gate.g.weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
        net.heads["segmentation"].last.weight.mul_(4)
    if sigma0 > 0:
        bayes.convert(net, sigma0=sigma0)
    return net


def image(*size: int) -> torch.Tensor:
    x = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1))
    smooth = functional.avg_pool2d if len(size) == 2 else functional.avg_pool3d
    return smooth(x, 5, stride=1, padding=2) * 4


def test_rectified_moments_are_those_of_samples(generator: torch.Generator) -> None:
    mean = torch.tensor([-2.0, -0.3, 0.0, 0.5, 3.0])
    variance = torch.tensor([0.5, 1.0, 2.0, 0.1, 1e-8])
    x = mean + variance.sqrt() * torch.randn(400_000, 5, generator=generator)
    y = functional.leaky_relu(x, 0.01)
    m, v = rectified_moments(mean, variance)
    torch.testing.assert_close(m, y.mean(0), atol=5e-3, rtol=0)
    torch.testing.assert_close(v, y.var(0), atol=1e-2, rtol=0.02)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_sigma_points_match_mean_and_covariance(classes: int) -> None:
    net = Network(channels=1, classes=classes, findings=0, dim=2, widths=(8, 8), gates=False)
    bayes.convert(net, sigma0=0.3)
    bank = Propagation(net)
    encoded = bank.encode(image(3, 2))
    points = torch.stack([bank.decode(encoded, t).segmentation for t in range(len(bank))])
    mean, std, *_ = encoded.features
    torch.testing.assert_close(points.mean(0), mean)
    delta = (points - mean)[:, 0, :, 0, 0]
    torch.testing.assert_close(delta.T @ delta / len(points), std[0, :, 0, 0].square().diag())


def propagate(net: Network, x: torch.Tensor):
    maps = window_maps(Propagation(net), x)
    return maps.voxels, maps.findings


def test_no_noise_gives_the_deterministic_prediction_and_no_epistemic_part() -> None:
    net, x = network(1e-6), image(12, 9)
    voxels, findings = propagate(net, x)
    torch.testing.assert_close(voxels.probability, net(x).segmentation.softmax(1).detach())
    torch.testing.assert_close(findings.probability, net(x).findings.sigmoid().detach())
    assert float(voxels.epistemic.max()) < 1e-6


@pytest.mark.parametrize(("convs", "dim"), [(1, 2), (2, 2), (1, 3)])
def test_the_map_ranks_voxels_like_the_draws_do(convs: int, dim: int) -> None:
    net, x = network(0.15, convs=convs, dim=dim), image(*(24, 24, 12)[:dim])
    moments = bayes.Moments()
    with torch.no_grad():
        draws = bayes.bank(net, draws=100, generator=torch.Generator().manual_seed(0))
        for output in draws.probabilities(x):
            moments.update(output.segmentation)
    exact, (cheap, _) = moments.uncertainty(), propagate(net, x)
    assert float((exact.probability - cheap.probability).abs().mean()) < 0.03
    pair = torch.stack([exact.epistemic.flatten(), cheap.epistemic.flatten()])
    assert float(pair.corrcoef()[0, 1]) > 0.6
    ratio = float(cheap.epistemic.mean() / exact.epistemic.mean())
    assert 0.2 < ratio < 3


def test_one_layer_is_exact_against_draws() -> None:
    layer = bayes.gaussian.GaussianLayer(nn.Conv2d(2, 3, 3), sigma0=0.4, prior="warm")
    x = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    v = torch.rand(1, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        noisy = [
            layer.noisy(x + v.sqrt() * torch.randn(x.shape, generator=generator), generator)
            for _ in range(2000)
        ]
        mean, variance = layer.moments(x, v)
    y = torch.cat(noisy)
    torch.testing.assert_close(y.mean(0), mean[0], atol=0.1, rtol=0.05)
    assert float(((y.var(0) / variance[0]) - 1).abs().max()) < 0.2


def test_other_posteriors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bayes\.convert first"):
        Propagation(network(0))
    spread = Network(channels=1, classes=2, findings=0, dim=2, widths=(8, 8), spread_rank=0)
    bayes.convert(spread)
    with pytest.raises(ValueError, match="needs draws"):
        Propagation(spread)


def test_it_stands_where_a_bank_stands_and_shows_the_gates_of_the_mean() -> None:
    net, x = network(0.1), image(12, 10)
    cheap = window_maps(Propagation(net), x)
    mean = net(x)
    for seen, wanted in zip(cheap.attention, mean.attention, strict=True):
        torch.testing.assert_close(seen, wanted.detach(), atol=0.05, rtol=0.1)
