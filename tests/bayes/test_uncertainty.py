"""The decomposition: identities that hold for any draws, and cases known on paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.bayes import Moments, decompose


def draws(seed: int, t: int, c: int, *, sharp: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharp * torch.randn(t, 2, c, 4, 3, generator=generator)).softmax(2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(2, 6), st.floats(0.01, 50))
def test_total_is_epistemic_plus_aleatoric(seed: int, t: int, c: int, sharp: float) -> None:
    u = decompose(draws(seed, t, c, sharp=sharp))
    torch.testing.assert_close(u.total, u.epistemic + u.aleatoric, atol=1e-6, rtol=0)
    assert float(u.epistemic.min()) >= 0
    assert float(u.mutual_information_nats.min()) >= 0


def test_streaming_equals_two_passes() -> None:
    p = draws(0, 7, 4).double()
    u = decompose(p.float())
    mean = p.mean(0)
    close = {"atol": 1e-6, "rtol": 1e-5}
    torch.testing.assert_close(u.probability.double(), mean, **close)
    torch.testing.assert_close(u.epistemic.double(), p.var(0, unbiased=False).sum(1), **close)
    torch.testing.assert_close(u.aleatoric.double(), 1 - p.square().sum(2).mean(0), **close)
    torch.testing.assert_close(u.entropy_nats.double(), torch.special.entr(mean).sum(1), **close)
    torch.testing.assert_close(
        u.expected_entropy_nats.double(), torch.special.entr(p).sum(2).mean(0), **close
    )


def test_the_trace_of_the_literal_covariances_is_what_is_published() -> None:
    p = draws(1, 5, 3)[:, 0, :, 0, 0].double()
    mean = p.mean(0)
    epistemic = torch.stack([torch.outer(x - mean, x - mean) for x in p]).mean(0)
    aleatoric = torch.stack([torch.diag(x) - torch.outer(x, x) for x in p]).mean(0)
    torch.testing.assert_close(
        epistemic + aleatoric, torch.diag(mean) - torch.outer(mean, mean), atol=1e-9, rtol=0
    )
    u = decompose(p.float()[:, None])
    assert float(u.epistemic) == pytest.approx(float(epistemic.trace()), abs=1e-6)
    assert float(u.aleatoric) == pytest.approx(float(aleatoric.trace()), abs=1e-6)


def test_identical_draws_have_no_epistemic_part() -> None:
    p = draws(2, 1, 3).expand(6, -1, -1, -1, -1)
    u = decompose(p)
    assert float(u.epistemic.max()) == 0
    assert float(u.mutual_information_nats.max()) < 1e-6


def test_disagreeing_certain_draws_have_no_aleatoric_part() -> None:
    u = decompose(torch.eye(3)[:, None])  # three draws, each sure of another class
    assert float(u.aleatoric) == 0
    assert float(u.epistemic) == pytest.approx(2 / 3)
    assert float(u.mutual_information_nats) == pytest.approx(float(torch.log(torch.tensor(3.0))))


def test_a_finding_is_a_coin_of_its_own() -> None:
    p = torch.tensor([[[0.1, 0.5]], [[0.9, 0.5]]])
    u = decompose(p, "bernoulli")
    torch.testing.assert_close(u.epistemic, torch.tensor([[0.16, 0.0]]))
    torch.testing.assert_close(u.aleatoric, torch.tensor([[0.09, 0.25]]))
    torch.testing.assert_close(u.total, torch.tensor([[0.25, 0.25]]))
    assert u.mutual_information_nats.shape == (1, 2)


def test_a_binary_softmax_counts_twice_what_a_coin_counts() -> None:
    p = torch.rand(5, 2, 1, generator=torch.Generator().manual_seed(0))
    pair = decompose(torch.cat([p, 1 - p], 2))
    coin = decompose(p, "bernoulli")
    torch.testing.assert_close(pair.epistemic, 2 * coin.epistemic[:, 0])
    torch.testing.assert_close(
        pair.mutual_information_nats, coin.mutual_information_nats[:, 0], atol=1e-6, rtol=1e-4
    )


def test_what_is_not_a_probability_is_refused() -> None:
    moments = Moments()
    with pytest.raises(ValueError, match="no draw was given"):
        moments.uncertainty()
    with pytest.raises(ValueError, match="not logits"):
        moments.update(torch.tensor([[3.0, -2.0]]))
    with pytest.raises(ValueError, match="classes sum to 1"):
        moments.update(torch.tensor([[0.4, 0.4]]))
    moments.update(torch.tensor([[0.4, 0.6]]))
    with pytest.raises(ValueError, match="expected"):
        moments.update(torch.tensor([[0.4, 0.6], [0.4, 0.6]]))
