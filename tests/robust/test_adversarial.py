"""The adversarial term of training."""

import pytest
import torch
from torch import nn

from penumbra.robust.adversarial import (
    adversarial_loss,
    effective_weights,
    perturb,
    uncertainty_weights,
)
from penumbra.robust.attack import evaluate
from penumbra.robust.ball import ball, change_size
from penumbra.robust.objective import cross_entropy, label_loss


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_weights_average_one_and_stay_bounded(gamma: float, generator: torch.Generator) -> None:
    u = torch.rand(16, generator=generator) ** 4
    weights = uncertainty_weights(u, gamma=gamma, clip=3.0)
    assert float(weights.mean()) == pytest.approx(1.0, abs=1e-6)
    assert float(weights.max()) <= 9.0
    assert float(weights.min()) >= 1 / 9
    assert bool((weights[u.argsort()].diff() >= 0).all())


def test_weights_carry_no_gradient_to_the_uncertainty() -> None:
    u = torch.tensor([0.1, 0.2], requires_grad=True)
    weights = uncertainty_weights(u, gamma=1.0, clip=3.0)
    assert not weights.requires_grad
    loss = torch.ones(2, requires_grad=True)
    adversarial_loss(loss, loss, weights, alpha=0.5).backward()
    assert u.grad is None


@pytest.mark.parametrize("u", [[0.0, 0.0], [0.3, 0.3]])
def test_equal_uncertainties_give_equal_weights(u: list[float]) -> None:
    assert uncertainty_weights(torch.tensor(u), gamma=2.0, clip=3.0).tolist() == [1.0, 1.0]


def test_gamma_zero_is_unweighted() -> None:
    assert uncertainty_weights(torch.tensor([0.0, 9.0]), gamma=0.0, clip=3.0).tolist() == [1, 1]


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_an_impossible_uncertainty_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        uncertainty_weights(torch.tensor([0.1, bad]), gamma=1.0, clip=3.0)


def test_the_loss_by_hand() -> None:
    clean, attacked = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    weights = torch.tensor([0.5, 1.5])
    loss = adversarial_loss(clean, attacked, weights, alpha=0.25)
    assert float(loss) == pytest.approx((0.25 * 3 + 0.75 * (1.5 + 6.0)) / 2)


def test_attacking_part_of_the_batch_keeps_the_scale() -> None:
    clean, half = torch.ones(4), torch.full((2,), 3.0)
    assert float(adversarial_loss(clean, half, torch.ones(2), alpha=0.5)) == 2.0


def test_effective_weights_match_the_sum_of_both_losses() -> None:
    # L_task + lambda * L_adv for clean loss 1 and adversarial loss 0, and the reverse.
    shares = effective_weights(weight=0.6, alpha=0.25, normalise_clean=False)
    one, zero = torch.ones(1), torch.zeros(1)
    assert shares.clean == pytest.approx(
        1 + 0.6 * float(adversarial_loss(one, zero, one, alpha=0.25))
    )
    assert shares.adversarial == pytest.approx(
        0.6 * float(adversarial_loss(zero, one, one, alpha=0.25))
    )
    assert effective_weights(weight=0.6, alpha=0.25, normalise_clean=True).clean == 1.0


@pytest.mark.parametrize("steps", [1, 4])
def test_training_images_raise_the_loss_and_stay_inside(
    steps: int, small_network, generator: torch.Generator
) -> None:
    predict = small_network(2)
    image = torch.rand((4, 1, 8, 8), generator=generator)
    labels = predict(image).argmax(1)
    objective, inside = label_loss(predict, labels), ball(image, eps=0.05)
    attacked = perturb(
        predict,
        image,
        labels,
        eps=0.05,
        steps=steps,
        norm="linf",
        valid=None,
        generator=generator,
    )
    assert not attacked.requires_grad
    assert float(change_size(attacked, inside).max()) <= 0.05 + 1e-6
    assert bool((evaluate(objective, attacked).value > evaluate(objective, image).value).all())


def test_adversarial_training_makes_a_model_harder_to_attack(generator: torch.Generator) -> None:
    # One robust pixel, many brittle ones: each brittle pixel is right on average, but by less than
    # eps; plain training uses them, adversarial training has to rely on the robust one.
    labels = torch.randint(0, 2, (128,), generator=generator)
    sign = (2.0 * labels - 1)[:, None]
    brittle = 0.5 + 0.02 * sign + 0.02 * torch.randn((128, 30), generator=generator)
    robust = 0.5 + 0.25 * sign + 0.1 * torch.randn((128, 1), generator=generator)
    image = torch.cat([robust, brittle], 1).clamp(0, 1)[:, None]

    def accuracy(adversarial: bool) -> float:
        chance = torch.Generator().manual_seed(1)
        layer = nn.Linear(31, 1)
        nn.init.zeros_(layer.weight)

        def predict(x):
            return layer(20 * (x[:, 0] - 0.5)).sigmoid()

        optimizer = torch.optim.Adam(layer.parameters(), 0.1)
        truth = labels[:, None].float()

        def attacked(steps):
            return perturb(
                predict,
                image,
                truth,
                eps=0.06,
                steps=steps,
                norm="linf",
                valid=None,
                generator=chance,
            )

        for _ in range(30):
            x = attacked(1) if adversarial else image
            optimizer.zero_grad()
            cross_entropy(predict(x), truth).mean().backward()
            optimizer.step()
        return float(((predict(attacked(10))[:, 0] > 0.5) == (labels == 1)).float().mean())

    assert accuracy(adversarial=True) > accuracy(adversarial=False) + 0.15
