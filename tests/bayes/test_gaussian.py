"""Variational layers: KL, estimators, priors, and every layer type from one implementation."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from penumbra import bayes
from penumbra.bayes.gaussian import GaussianLayer, kl_gaussian
from penumbra.bayes.layer import Estimator
from penumbra.model import Network
from penumbra.nets.upconv import UpConv

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "linear on a sequence": (lambda: nn.Linear(6, 4, bias=False), (3, 5, 6)),
    "conv 2d": (lambda: nn.Conv2d(6, 4, 3, stride=2, padding=1), (3, 6, 7, 9)),
    "grouped dilated conv": (
        lambda: nn.Conv2d(6, 4, 3, dilation=2, groups=2, bias=False),
        (3, 6, 9, 8),
    ),
    "conv 'same'": (lambda: nn.Conv2d(6, 4, 3, padding="same"), (3, 6, 5, 5)),
    "conv 3d": (lambda: nn.Conv3d(6, 4, (3, 1, 2), padding=(1, 0, 1)), (2, 6, 5, 4, 3)),
    "transposed 2d": (
        lambda: nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
        (3, 6, 5, 4),
    ),
    "grouped transposed 3d": (
        lambda: nn.ConvTranspose3d(6, 4, 2, stride=2, groups=2, output_padding=1),
        (2, 6, 3, 2, 3),
    ),
    "up-convolution": (lambda: UpConv(6, 4, dim=2), (3, 6, 5, 3)),
}


def make(name: str, *, sigma0: float = 0.3) -> tuple[nn.Module, GaussianLayer, Tensor]:
    build, shape = LAYERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        plain = build()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return plain, GaussianLayer(plain, sigma0=sigma0, prior="warm"), x


def network(seed: int = 0) -> Network:
    return Network(channels=1, classes=2, findings=1, dim=2, widths=(8, 8, 16), neck=4, seed=seed)


@pytest.mark.parametrize("name", LAYERS)
def test_the_mean_of_a_layer_is_the_layer_itself(name: str) -> None:
    plain, layer, x = make(name)
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize("estimator", ["weights", "local", "flipout"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_estimator_has_the_same_mean_and_variance(name: str, estimator: Estimator) -> None:
    _, layer, x = make(name)
    layer.estimator = estimator
    draws = 800
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        y = torch.stack([layer.noisy(x, generator) for _ in range(draws)])
        mean, variance = layer.moments(x, None)
    z = (y.mean(0) - mean) / (variance / draws).sqrt()
    assert float(z.abs().max()) < 6
    ratio = y.var(0) / variance
    assert float(ratio.min()) > 0.7
    assert float(ratio.max()) < 1.4


@pytest.mark.parametrize("name", ["conv 2d", "grouped transposed 3d", "linear on a sequence"])
def test_flipout_gives_each_image_its_own_weight_and_a_weight_draw_does_not(name: str) -> None:
    _, layer, x = make(name)
    same = x[:1].expand_as(x).contiguous()
    generator = torch.Generator().manual_seed(2)
    layer.estimator = "weights"
    y = layer.noisy(same, generator)
    torch.testing.assert_close(y[0], y[1])
    layer.estimator = "flipout"
    y = layer.noisy(same, generator)
    assert float((y[0] - y[1]).detach().abs().max()) > 1e-3


def test_kl_equals_the_one_in_torch(generator: torch.Generator) -> None:
    mean, prior_mean = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    sigma, prior_std = torch.rand(2, 50, generator=generator, dtype=torch.float64) + 0.05
    ours = kl_gaussian(mean, sigma, prior_mean, prior_std)
    theirs = kl_divergence(Normal(mean, sigma), Normal(prior_mean, prior_std)).sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prior", ["warm", "zero", "standard"])
def test_the_kl_of_a_network_is_the_sum_over_its_weights(prior: str) -> None:
    net = network()
    bayes.convert(net, sigma0=0.3, prior=prior)
    wanted = torch.zeros(())
    for layer in net.modules():
        if isinstance(layer, GaussianLayer):
            weight_sigma, bias_sigma = layer.sigma()
            q = Normal(layer.weight, weight_sigma)
            p = Normal(layer.weight_prior_mean, layer.prior_std)
            wanted = wanted + kl_divergence(q, p).sum()
            if bias_sigma is not None:
                q = Normal(layer.bias, bias_sigma)
                p = Normal(layer.bias_prior_mean, layer.prior_std)
                wanted = wanted + kl_divergence(q, p).sum()
    torch.testing.assert_close(bayes.kl(net), wanted, rtol=1e-6, atol=1e-6)


def test_the_prior_does_not_follow_the_posterior() -> None:
    net = network()
    bayes.convert(net, sigma0=0.3)
    before = {k: v.clone() for k, v in net.named_buffers()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with bayes.sampling(net, generator=torch.Generator().manual_seed(0)):
        output = net(torch.ones(1, 1, 8, 8))
    (output.segmentation.square().mean() + bayes.kl(net) / 1000).backward()
    optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in net.named_buffers())
    assert all(
        not torch.equal(m.weight, m.weight_prior_mean)
        for m in net.modules()
        if isinstance(m, GaussianLayer) and m.weight.grad is not None and m.weight.grad.any()
    )


@pytest.mark.parametrize("estimator", ["weights", "local", "flipout"])
def test_gradients_reach_means_and_spreads_through_every_estimator(estimator: Estimator) -> None:
    net = network()
    bayes.convert(net, sigma0=0.3)
    x = torch.rand(2, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    with bayes.sampling(net, generator=torch.Generator().manual_seed(1), estimator=estimator):
        output = net(x)
    (output.segmentation[:, 0].square().mean() + output.findings.square().mean()).backward()
    for p in bayes.rho_parameters(net):
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()
        assert float(p.grad.abs().sum()) > 0


def test_sampling_draws_inside_and_returns_to_the_mean_outside() -> None:
    net = network()
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = net(x).segmentation
    bayes.convert(net, sigma0=0.3)
    torch.testing.assert_close(net(x).segmentation, plain)
    with bayes.sampling(net, generator=torch.Generator().manual_seed(1)):
        first, second = net(x).segmentation, net(x).segmentation
    assert not torch.allclose(first, second)
    with bayes.sampling(net, generator=torch.Generator().manual_seed(1)):
        assert torch.equal(net(x).segmentation, first)
    torch.testing.assert_close(net(x).segmentation, plain)


def test_fresh_diagnostics_show_an_untouched_posterior() -> None:
    net = network()
    bayes.convert(net, sigma0=0.25)
    rows = bayes.diagnostics(net)
    assert sum(row.weights for row in rows) == sum(p.numel() for p in bayes.rho_parameters(net))
    for row in rows:
        assert row.sigma_ratio == pytest.approx(1, abs=1e-5)
        assert row.snr == pytest.approx(4, rel=0.01)  # |w| / (0.25 |w|)
        assert row.kl_per_weight > 0


def test_a_smaller_scope_leaves_the_rest_deterministic() -> None:
    sizes = {}
    for scope in ("decoder", "light", "heads"):
        net = network()
        bayes.convert(net, sigma0=0.3, scope=scope)
        sizes[scope] = [row.name for row in bayes.diagnostics(net)]
    assert set(sizes["heads"]) < set(sizes["light"]) < set(sizes["decoder"])
    assert not any(name.endswith("skip") for name in sizes["light"])
    assert all(name.startswith("heads") for name in sizes["heads"])


def test_wrong_conversions_say_why() -> None:
    net = network()
    with pytest.raises(ValueError, match="sigma0=0"):
        bayes.convert(net, sigma0=0.0)
    bayes.convert(net, sigma0=0.3)
    with pytest.raises(ValueError, match="stochastic already"):
        bayes.convert(net, sigma0=0.3)
    with pytest.raises(TypeError, match="Bilinear has no stochastic form"):
        GaussianLayer(nn.Bilinear(2, 2, 2), sigma0=0.3, prior="warm")
    with pytest.raises(ValueError, match="padding_mode='reflect'"):
        GaussianLayer(nn.Conv2d(2, 2, 3, padding_mode="reflect"), sigma0=0.3, prior="warm")
