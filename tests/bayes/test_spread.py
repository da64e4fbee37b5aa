"""Predicted logit spread: its covariance, its likelihood, and its place inside a weight draw."""

import pytest
import torch
from torch.nn import functional

from penumbra import bayes
from penumbra.bayes.spread import logit_samples, mixture, negative_log_likelihood
from penumbra.model import Network


def test_samples_have_the_predicted_covariance(generator: torch.Generator) -> None:
    mean = torch.randn(1, 2, 3, generator=generator)
    spread = torch.randn(1, 2 * 3, 3, generator=generator) * 0.5
    x = logit_samples(mean, spread, samples=20_000, generator=generator)[:, 0].flatten(1)
    factors = spread[0, 2:].view(2, 6)
    wanted = spread[0, :2].flatten().exp().diag() + factors.T @ factors
    torch.testing.assert_close(x.mean(0), mean.flatten(), atol=0.06, rtol=0)
    torch.testing.assert_close(x.T.cov(), wanted, atol=0.1, rtol=0.05)


def test_no_spread_is_plain_cross_entropy(generator: torch.Generator) -> None:
    mean = torch.randn(2, 3, 4, 5, generator=generator)
    labels = torch.randint(-1, 3, (2, 4, 5), generator=generator)
    each = functional.cross_entropy(mean, labels, ignore_index=-1, reduction="none")
    wanted = each.flatten(1).sum(1) / (labels >= 0).flatten(1).sum(1)
    for rank in (0, 2):
        spread = torch.zeros(2, 3 * (1 + rank), 4, 5)
        spread[:, :3] = -60
        loss = negative_log_likelihood(mean, spread, labels, samples=4, generator=generator)
        torch.testing.assert_close(loss, wanted)
    unknown = negative_log_likelihood(mean, spread, labels * 0 - 1, samples=2, generator=generator)
    assert unknown.tolist() == [0, 0]
    with pytest.raises(ValueError, match="no multiple of 3 classes"):
        logit_samples(mean, spread[:, :4], samples=1, generator=generator)


def test_factors_explain_labels_that_flip_together() -> None:
    # Half of the readers call the whole structure 1, half call it 0.
    labels = torch.stack([torch.zeros(6), torch.ones(6)]).long()
    mean, quiet = torch.zeros(2, 2, 6), torch.full((2, 2, 6), -20.0)
    factor = torch.stack([torch.full((6,), -8.0), torch.full((6,), 8.0)]).expand(2, 2, 6)

    def loss(spread: torch.Tensor) -> float:
        generator = torch.Generator().manual_seed(0)
        found = negative_log_likelihood(mean, spread, labels, samples=200, generator=generator)
        return float(found.mean())

    alone = loss(torch.cat([quiet, torch.zeros(2, 2, 6)], 1))
    together = loss(torch.cat([quiet, factor], 1))
    assert alone == pytest.approx(0.693, abs=1e-3)  # a coin per voxel
    assert together < 0.2  # one coin for six voxels: log(2) / 6 = 0.116 at best


@pytest.mark.parametrize("rank", [0, 3])
def test_a_bank_integrates_the_spread_out_of_every_draw(rank: int) -> None:
    net = Network(
        channels=1, classes=3, findings=0, dim=2, widths=(8, 16), neck=4, spread_rank=rank
    )
    x = torch.rand(2, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    output = net(x)
    assert output.spread is not None
    assert output.spread.shape == (2, 3 * (1 + rank), 9, 8)
    bayes.convert(net, sigma0=0.2)
    draws = bayes.bank(net, draws=2, generator=torch.Generator().manual_seed(1))
    again = bayes.bank(net, draws=2, generator=torch.Generator().manual_seed(1))
    for a, b in zip(draws.probabilities(x), again.probabilities(x), strict=True):
        assert a.spread is None
        torch.testing.assert_close(a.segmentation.sum(1), torch.ones(2, 9, 8))
        assert torch.equal(a.segmentation, b.segmentation)


def test_more_spread_means_more_aleatoric_uncertainty(generator: torch.Generator) -> None:
    mean = torch.tensor([4.0, 0.0, 0.0]).view(1, 3, 1).expand(1, 3, 50)
    sharp, broad = (
        mixture(mean, torch.full((1, 3, 50), s), samples=64, generator=generator)
        for s in (-5.0, 3.0)
    )
    assert float((1 - broad.square().sum(1)).mean()) > float((1 - sharp.square().sum(1)).mean())
