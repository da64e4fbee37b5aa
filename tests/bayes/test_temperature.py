"""Temperature scaling: fitted after averaging, never touching the ranking."""

import pytest
import torch

from penumbra.bayes.temperature import apply_temperature, fit_temperature


def sample(true_t: float, n: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logs of probabilities that are ``true_t`` times too sharp, and labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, 4, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return (logits * true_t).log_softmax(1), labels


@pytest.mark.parametrize("true_t", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found(true_t: float) -> None:
    logs, labels = sample(true_t)
    assert fit_temperature(logs, labels) == pytest.approx(true_t, rel=0.05)


def test_the_fitted_temperature_has_the_least_nll_of_a_grid() -> None:
    logs, labels = sample(2.0, 500)
    best = fit_temperature(logs, labels)

    def nll(t: float) -> float:
        return float(torch.nn.functional.nll_loss((logs / t).log_softmax(1), labels))

    assert nll(best) <= min(nll(t) for t in torch.linspace(0.5, 5, 200).tolist()) + 1e-6


def test_one_is_the_identity_and_the_ranking_never_changes(generator: torch.Generator) -> None:
    p = torch.rand(2, 3, 4, generator=generator).softmax(1)
    torch.testing.assert_close(apply_temperature(p, 1.0), p)
    assert torch.equal(apply_temperature(p, 5.0).argsort(1), p.argsort(1))
    assert float(apply_temperature(p, 1e6).std()) < 1e-5
    coin = torch.tensor([[0.0, 0.2, 1.0]])
    torch.testing.assert_close(
        apply_temperature(coin, 1.0, "bernoulli"), coin, atol=1e-6, rtol=1e-6
    )


def test_a_coin_is_a_categorical_of_two(generator: torch.Generator) -> None:
    p = torch.rand(6, 1, generator=generator)
    pair = apply_temperature(torch.cat([1 - p, p], 1), 2.5)
    torch.testing.assert_close(apply_temperature(p, 2.5, "bernoulli")[:, 0], pair[:, 1])


def test_hidden_labels_do_not_count_and_nothing_to_fit_is_an_error() -> None:
    logs, labels = sample(2.0, 500)
    more = torch.cat([logs, torch.zeros(50, 4)]), torch.cat([labels, -torch.ones(50).long()])
    assert fit_temperature(*more) == fit_temperature(logs, labels)
    with pytest.raises(ValueError, match="no labelled sample"):
        fit_temperature(logs[:3], torch.full((3,), -1))
    with pytest.raises(ValueError, match="temperature=0"):
        apply_temperature(logs.exp(), 0.0)
