"""Randomness, draws, windows and attacks on the uncertainty."""

import pytest
import torch
from torch import nn

from penumbra.robust.attack import evaluate, pgd, value_and_gradient
from penumbra.robust.ball import ball
from penumbra.robust.objective import label_loss
from penumbra.robust.stochastic import averaged, expectation, windowed
from penumbra.robust.uncertainty import labels_kept, uncertainty, uncertainty_loss


def test_the_expectation_has_the_mean_value_and_the_mean_gradient() -> None:
    factors = [1.0, 2.0, 6.0]

    def noisy():
        remaining = iter(factors)
        return lambda x: (next(remaining) * x.square()).sum((1, 2))

    image = torch.tensor([[[1.0, 2.0]], [[0.5, 0.0]]])
    value, gradient = value_and_gradient(expectation(noisy(), samples=3), image)
    torch.testing.assert_close(value, 3 * image.square().sum((1, 2)))
    torch.testing.assert_close(gradient, 6 * image)
    torch.testing.assert_close(evaluate(expectation(noisy(), samples=3), image).value, value)


def test_an_expectation_over_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample, got 0"):
        expectation(lambda x: x.sum((1, 2)), samples=0)


def test_expectation_finds_the_way_through_gradient_noise(generator: torch.Generator) -> None:
    # The sign of one noisy gradient is nearly a coin; the mean of many points the right way.
    image = torch.full((1, 1, 200), 0.5)

    def noisy(x):
        return (x * (1 + 5 * torch.randn(x.shape, generator=generator))).sum((1, 2))

    def gained(samples: int) -> float:
        objective = expectation(noisy, samples=samples)
        attacked = pgd(
            objective, ball(image, eps=0.1), steps=1, generator=None, step=0.1, keep="last"
        )
        return float((attacked - image).mean())

    assert gained(100) > gained(1) + 0.03


@pytest.mark.parametrize("draws", [1, 3])
def test_averaged_draws_equal_the_mean_written_out(draws: int, generator: torch.Generator) -> None:
    weights = torch.randn((draws, 2, 1, 3, 3), generator=generator)

    def draw(x, t):
        return torch.conv2d(x, weights[t], padding=1).softmax(1)

    image = torch.rand((2, 1, 6, 6), generator=generator)
    labels = torch.randint(0, 2, (2, 6, 6), generator=generator)
    flat = label_loss(averaged(draw, draws=draws), labels)
    plain = label_loss(lambda x: torch.stack([draw(x, t) for t in range(draws)]).mean(0), labels)
    for ours, theirs in zip(
        value_and_gradient(flat, image), value_and_gradient(plain, image), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_windows_of_a_voxel_wise_model_change_nothing(generator: torch.Generator) -> None:
    layer = nn.Conv3d(1, 2, 1)

    def predict(x):
        return layer(x).softmax(1)

    image = torch.rand((1, 1, 7, 9, 6), generator=generator)
    labels = torch.randint(0, 2, (1, 7, 9, 6), generator=generator)
    whole = value_and_gradient(label_loss(predict, labels), image)
    pieces = value_and_gradient(label_loss(windowed(predict, window=(4, 4, 4)), labels), image)
    for ours, theirs in zip(pieces, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_volume_is_attacked_through_its_windows(
    small_network, generator: torch.Generator
) -> None:
    predict = windowed(small_network(3), window=(4, 4, 4), overlap=0.25)
    image = torch.rand((1, 1, 6, 7, 5), generator=generator)
    objective = label_loss(predict, predict(image).argmax(1))
    attacked = pgd(objective, ball(image, eps=0.05), steps=3, generator=None)
    gained = evaluate(objective, attacked).value - evaluate(objective, image).value
    assert float(gained) > 0


def draws_of(generator: torch.Generator):
    weights = torch.randn((4, 3, 1, 3, 3), generator=generator)

    def draws(x):
        return torch.stack([(2 * torch.conv2d(x - 0.5, w, padding=1)).softmax(1) for w in weights])

    return draws


@pytest.mark.parametrize("measure", ["epistemic", "total"])
def test_uncertainty_can_be_hidden_and_raised_with_the_label_kept(
    measure, generator: torch.Generator
) -> None:
    draws = draws_of(generator)
    image = torch.rand((2, 1, 8, 8), generator=generator)
    kept = draws(image).mean(0).argmax(1)
    before = uncertainty(draws(image), measure).mean()
    after = {}
    for direction in ("hide", "raise"):
        objective = uncertainty_loss(draws, kept, direction=direction, measure=measure)
        x = pgd(objective, ball(image, eps=0.05), steps=15, generator=None)
        after[direction] = uncertainty(draws(x), measure).mean()
        assert float(labels_kept(draws(x).mean(0), kept).min()) > 0.95
    assert after["hide"] < 0.98 * before
    assert after["raise"] > 1.02 * before


def test_uncertainty_by_hand() -> None:
    p = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]])
    assert float(uncertainty(p, "epistemic")) == pytest.approx(0.08)
    assert float(uncertainty(p, "total")) == pytest.approx(1 - 0.49 - 0.09)


def test_padding_does_not_count_in_the_uncertainty(generator: torch.Generator) -> None:
    draws = draws_of(generator)
    image = torch.rand((1, 1, 6, 6), generator=generator)
    valid = torch.zeros((1, 6, 6), dtype=torch.bool)
    valid[:, :3] = True
    kept = draws(image).mean(0).argmax(1)
    objective = uncertainty_loss(draws, kept, direction="raise", valid=valid, keep=0.0)
    expected = uncertainty(draws(image), "epistemic")[:, :3].mean()
    torch.testing.assert_close(objective(image)[0], expected)
