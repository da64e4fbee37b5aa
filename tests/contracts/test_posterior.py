"""One contract for every posterior: what a bank of draws promises, whoever makes them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from penumbra import bayes
from penumbra.bayes import dropout, laplace
from penumbra.bayes.bank import Encoded, MemberBank
from penumbra.bayes.ensemble import Ensemble
from penumbra.bayes.layer import pinned, stochastic_layers
from penumbra.bayes.propagate import Propagation
from penumbra.bayes.temper import has_width, temper, tempered
from penumbra.decoders import Decoders
from penumbra.model import Network
from penumbra.types import Output


def network(seed: int = 0, *, dim: int = 2) -> Network:
    return Network(channels=1, classes=3, findings=2, dim=dim, widths=(8, 8, 16), neck=4, seed=seed)


def deterministic(dim: int) -> nn.Module:
    return network(dim=dim)


def variational(dim: int) -> nn.Module:
    net = network(dim=dim)
    bayes.convert(net, sigma0=0.3)
    return net


def light(dim: int) -> nn.Module:
    net = network(dim=dim)
    bayes.convert(net, sigma0=0.3, scope="light")
    return net


def heads(dim: int) -> nn.Module:
    net = network(dim=dim)
    bayes.convert(net, sigma0=0.3, scope="heads")
    return net


def mc_dropout(dim: int) -> nn.Module:
    net = network(dim=dim)
    dropout.convert(net, 0.3)
    return net


def last_layer_laplace(dim: int) -> nn.Module:
    net = network(dim=dim)
    laplace.convert(net)
    laplace.fit(net, [image(*(8, 8, 8)[:dim])], prior_precision=10.0)
    return net


def seed_ensemble(dim: int) -> nn.Module:
    return Ensemble([network(seed, dim=dim) for seed in range(3)])


def decoder_ensemble(dim: int) -> nn.Module:
    return Decoders([network(seed, dim=dim) for seed in range(2)])


def variational_decoders(dim: int) -> nn.Module:
    net = decoder_ensemble(dim)
    bayes.convert(net, sigma0=0.3)
    return net


def laplace_decoders(dim: int) -> nn.Module:
    net = decoder_ensemble(dim)
    laplace.convert(net)
    laplace.fit(net, [image(*(8, 8, 8)[:dim])], prior_precision=10.0)
    return net


def ensemble_of_ensembles(dim: int) -> nn.Module:
    return Ensemble([variational_decoders(dim), decoder_ensemble(dim)])


POSTERIORS = [deterministic, variational, light, heads, mc_dropout, last_layer_laplace]
WEIGHTS = POSTERIORS[1:]
POSTERIORS += [seed_ensemble, decoder_ensemble, variational_decoders, laplace_decoders]
POSTERIORS += [ensemble_of_ensembles]
RANDOM = POSTERIORS[1:]
every = pytest.mark.parametrize("build", POSTERIORS, ids=lambda f: f.__name__)
weight_ones = pytest.mark.parametrize("build", WEIGHTS, ids=lambda f: f.__name__)
random_ones = pytest.mark.parametrize("build", RANDOM, ids=lambda f: f.__name__)
Build = Callable[[int], nn.Module]


def image(*size: int, batch: int = 1) -> Tensor:
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(1))


def bank(net: nn.Module, draws: int = 4, *, seed: int = 7) -> bayes.Bank:
    return bayes.bank(net, draws=draws, generator=torch.Generator().manual_seed(seed))


def tensors(output: Output) -> list[Tensor]:
    fields = [output.segmentation, output.findings, *output.attention]
    return [x.detach() for x in fields if x is not None]


def same(a: Output, b: Output) -> None:
    for x, y in zip(tensors(a), tensors(b), strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-5)


@every
@pytest.mark.parametrize("dim", [2, 3])
def test_probabilities_are_probabilities_and_there_are_t_of_them(build: Build, dim: int) -> None:
    draws = bank(build(dim))
    outputs = list(draws.probabilities(image(*(9, 6, 5)[:dim], batch=2)))
    assert len(outputs) == len(draws)
    for output in outputs:
        assert output.segmentation is not None
        torch.testing.assert_close(output.segmentation.sum(1), torch.ones(2, *(9, 6, 5)[:dim]))
        assert output.findings is not None
        assert 0 <= float(output.findings.detach().min()) <= float(output.findings.detach().max())
        assert float(output.findings.detach().max()) <= 1


@every
def test_a_draw_is_one_function_for_all_windows(build: Build) -> None:
    draws = bank(build(2))
    x, y = image(8, 8), image(12, 4)
    for t in range(len(draws)):
        first = draws.decode(draws.encode(x), t)
        draws.decode(draws.encode(y), len(draws) - 1 - t)
        same(first, draws.decode(draws.encode(x), t))


@every
def test_a_batch_is_its_images_one_by_one(build: Build) -> None:
    draws = bank(build(2))
    x = image(8, 8, batch=3)
    together = draws.decode(draws.encode(x), len(draws) - 1)
    alone = draws.decode(draws.encode(x[1:2]), len(draws) - 1)
    for a, b in zip(tensors(together), tensors(alone), strict=True):
        torch.testing.assert_close(a[1:2], b, atol=1e-5, rtol=1e-4)


@every
@pytest.mark.parametrize("dim", [2, 3])
def test_a_bank_for_inference_says_the_same(build: Build, dim: int) -> None:
    draws = bank(build(dim))
    with torch.inference_mode():
        stored = bank(build(dim))
        for batch, size in ((1, (9, 6, 5)), (2, (8, 12, 4))):
            x = image(*size[:dim], batch=batch)
            for t in range(len(draws)):
                same(stored.decode(stored.encode(x), t), draws.decode(draws.encode(x), t))


@every
def test_the_generator_alone_decides_the_draws(build: Build) -> None:
    net, x = build(2), image(8, 8)
    before = torch.get_rng_state()
    one, two = bank(net, seed=3), bank(net, seed=3)
    for a, b in zip(one.probabilities(x), two.probabilities(x), strict=True):
        same(a, b)
    assert torch.equal(before, torch.get_rng_state())


@every
def test_the_gradient_reaches_the_image_and_only_the_image(build: Build) -> None:
    draws = bank(build(2), 2)
    x = image(8, 8).requires_grad_()
    mean = torch.stack([o.segmentation for o in draws.probabilities(x)]).mean(0)
    (gradient,) = torch.autograd.grad(mean[:, 1].log().sum(), x)
    assert torch.isfinite(gradient).all()
    assert float(gradient.abs().max()) > 0


@random_ones
def test_draws_differ_in_every_head(build: Build) -> None:
    a, b, *_ = bank(build(2)).probabilities(image(8, 8))
    assert not torch.allclose(a.segmentation, b.segmentation)
    assert not torch.allclose(a.findings, b.findings)


@weight_ones
def test_bank_loop_and_naive_full_passes_agree_for_the_same_draws(build: Build) -> None:
    net, x = build(2), image(9, 7)
    draws = bank(net)
    layers = stochastic_layers(net)
    for t, output in enumerate(draws.probabilities(x)):
        same(output, bayes.to_probabilities(draws.decode(draws.encode(x), t)))
        with pinned(layers, draws.draws[t]):
            same(output, bayes.to_probabilities(net(x)))


def test_a_deterministic_network_is_its_only_draw() -> None:
    net, x = network(), image(8, 8)
    draws = bank(net, 5)
    assert len(draws) == 1
    same(draws.decode(draws.encode(x), 0), net(x))


def test_no_weight_noise_means_no_epistemic_uncertainty() -> None:
    net = network()
    bayes.convert(net, sigma0=1e-7)
    moments = bayes.Moments()
    for output in bank(net).probabilities(image(8, 8)):
        moments.update(output.segmentation)
    assert float(moments.uncertainty().epistemic.max()) < 1e-10


@pytest.mark.parametrize("build", [variational, light, last_layer_laplace])
def test_a_narrower_posterior_has_draws_nearer_to_its_mean(build: Build) -> None:
    net, x = build(2), image(8, 8)
    middle = net(x).segmentation.detach()

    def distance() -> float:
        outputs = [o.segmentation for o in bank(net).probabilities(x)]
        return float((torch.stack(outputs).detach() - middle.softmax(1)).abs().mean())

    whole, state = distance(), {k: v.clone() for k, v in net.state_dict().items()}
    with tempered(net, 0.25):
        assert distance() < 0.5 * whole
    for key, value in net.state_dict().items():
        assert torch.equal(value, state[key])
    temper(net, 1e-6)
    assert distance() < 1e-4


def test_dropout_has_no_width_and_widths_are_positive() -> None:
    assert not has_width(mc_dropout(2))
    assert not has_width(deterministic(2))
    with pytest.raises(ValueError, match="have a width"):
        temper(mc_dropout(2), 0.5)
    with pytest.raises(ValueError, match="width=0"):
        temper(variational(2), 0.0)


def test_no_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="draws=0"):
        bank(variational(2), 0)


def test_a_shared_skip_path_changes_little_and_only_the_skip_path() -> None:
    net, x = variational(2), image(16, 16)
    exact = bayes.bank(net, draws=64, generator=torch.Generator().manual_seed(0))
    shared = bayes.bank(net, draws=64, generator=torch.Generator().manual_seed(0), skip="mean")
    maps = []
    for draws in (exact, shared):
        moments = bayes.Moments()
        for output in draws.probabilities(x):
            moments.update(output.segmentation)
        maps.append(moments.uncertainty())
    assert shared.encode(x).skips is not None
    assert exact.encode(x).skips is None
    gap = (maps[0].probability - maps[1].probability).abs().max()
    assert float(gap) < 0.1
    assert float(maps[1].epistemic.mean()) < 1.1 * float(maps[0].epistemic.mean())


def test_an_ensemble_of_draws_takes_turns() -> None:
    net, x = variational_decoders(2), image(8, 8)
    draws = bank(net, 3)
    assert len(draws) == 4  # two decoders, two draws each
    assert isinstance(draws, MemberBank)
    for t, output in enumerate(draws.probabilities(x)):
        member = draws.members[t % 2]
        same(output, bayes.to_probabilities(member.decode(Encoded(net.encode(x)), t // 2)))


def test_a_shared_encoder_is_stored_once_and_restored() -> None:
    net = decoder_ensemble(2)
    keys = [k for k in net.state_dict() if "encoder" in k]
    assert keys
    assert all(k.startswith("encoder.") for k in keys)
    other = Decoders([network(seed) for seed in (8, 9)])
    other.load_state_dict(net.state_dict())
    same(net(image(8, 8)), other(image(8, 8)))


@pytest.mark.parametrize("build", [seed_ensemble, decoder_ensemble])
def test_an_ensembles_own_pass_is_the_mean_of_its_members(build: Build) -> None:
    net, x = build(2), image(8, 8, batch=2)
    outputs = list(bank(net).probabilities(x))
    mean = bayes.to_probabilities(net(x))
    for name in ("segmentation", "findings"):
        wanted = torch.stack([getattr(o, name) for o in outputs]).mean(0)
        torch.testing.assert_close(getattr(mean, name), wanted)
    wanted = torch.stack([o.attention[0] for o in outputs]).mean(0)
    torch.testing.assert_close(mean.attention[0], wanted)


def test_what_is_no_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match="two decoders or more"):
        Decoders([network()])
    net = decoder_ensemble(2)
    features = net.encode(image(8, 8))
    with pytest.raises(ValueError, match="skips of its own"):
        net.decode(features, features)
    with pytest.raises(ValueError, match="several decoders"):
        Propagation(variational_decoders(2))
