"""Penumbra's own Bayesian network under attack and explained, in 2-D and 3-D."""

import pytest
import torch
from torch import Tensor

from penumbra.attend.explain import explain
from penumbra.bayes import bank, convert
from penumbra.model import Network
from penumbra.robust.attack import evaluate, pgd
from penumbra.robust.ball import ball
from penumbra.robust.objective import Predict, label_loss
from penumbra.robust.stochastic import averaged, windowed
from penumbra.robust.uncertainty import uncertainty, uncertainty_loss


def network(dim: int) -> Network:
    built = Network(channels=1, classes=2, findings=2, dim=dim, widths=(6, 8), neck=4)
    convert(built, sigma0=0.5)
    return built.eval()


def posterior(model: Network, field: str, draws: int = 2) -> Predict:
    drawn = bank(model, draws=draws, generator=torch.Generator().manual_seed(0))

    def one(image: Tensor, t: int) -> Tensor:
        output = drawn.decode(drawn.encode(image), t)
        if field == "findings":
            return output.findings.sigmoid()
        return output.segmentation.softmax(1)

    return averaged(one, draws=draws)


@pytest.mark.parametrize("field", ["segmentation", "findings"])
@pytest.mark.parametrize("shape", [(2, 1, 12, 10), (1, 1, 8, 6, 8)])
def test_the_averaged_posterior_can_be_attacked(
    field: str, shape: tuple[int, ...], generator: torch.Generator
) -> None:
    model = network(len(shape) - 2)
    predict = posterior(model, field)
    image = torch.rand(shape, generator=generator)
    with torch.no_grad():
        clean = predict(image)
    labels = clean.argmax(1) if field == "segmentation" else (clean > 0.5).float()
    objective = label_loss(predict, labels)
    attacked = pgd(objective, ball(image, eps=0.1), steps=5, generator=generator)
    assert bool((evaluate(objective, attacked).value > evaluate(objective, image).value).all())
    assert all(p.grad is None for p in model.parameters())


def test_the_same_draws_serve_every_window(generator: torch.Generator) -> None:
    predict = windowed(posterior(network(2), "segmentation"), window=(8, 8))
    image = torch.rand((1, 1, 14, 11), generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(predict(image), predict(image))
        labels = predict(image).argmax(1)
    objective = label_loss(predict, labels)
    attacked = pgd(objective, ball(image, eps=0.1), steps=3, generator=generator)
    assert float(evaluate(objective, attacked).value) > float(evaluate(objective, image).value)


def test_epistemic_uncertainty_can_be_raised(generator: torch.Generator) -> None:
    model = network(2)
    drawn = bank(model, draws=4, generator=torch.Generator().manual_seed(0))

    def draws(image: Tensor) -> Tensor:
        return torch.stack([o.segmentation for o in drawn.probabilities(image)])

    image = torch.rand((1, 1, 12, 10), generator=generator)
    with torch.no_grad():
        kept = draws(image).mean(0).argmax(1)
        before = float(uncertainty(draws(image), "epistemic").mean())
    objective = uncertainty_loss(draws, kept, direction="raise")
    attacked = pgd(objective, ball(image, eps=0.1), steps=8, generator=generator)
    with torch.no_grad():
        assert float(uncertainty(draws(attacked), "epistemic").mean()) > before


@pytest.mark.parametrize("field", ["segmentation", "findings"])
@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients"])
def test_the_network_can_be_explained(field: str, method, generator: torch.Generator) -> None:
    model = network(2)
    image = torch.rand((2, 1, 16, 12), generator=generator)
    maps = explain(
        lambda x: getattr(model(x), field),
        image,
        target=1,
        method=method,
        layer=model.encoder.levels[-1],
        generator=generator,
    )
    assert maps.shape == (2, 16, 12)
    assert bool(torch.isfinite(maps).all())
