"""One window's draws as moments, and no more draws than needed."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from penumbra import bayes
from penumbra.bayes.stopping import enough_draws, reliability
from penumbra.bayes.stream import window_maps
from penumbra.model import Network


def network(*, classes: int = 3, findings: int = 0, dim: int = 2, sigma0: float = 0.2) -> Network:
    net = Network(channels=1, classes=classes, findings=findings, dim=dim, widths=(8, 16), neck=4)
    if sigma0:
        bayes.convert(net, sigma0=sigma0)
    return net.eval()


def bank(net: Network, draws: int, *, seed: int = 0) -> bayes.Bank:
    return bayes.bank(net, draws=draws, generator=torch.Generator().manual_seed(seed))


def smooth_image(*size: int) -> Tensor:
    x = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(3))
    pool = functional.avg_pool2d if len(size) == 2 else functional.avg_pool3d
    return pool(x, 7, stride=1, padding=3) * 3


def test_window_maps_are_the_decomposition_of_the_draws() -> None:
    net, x = network(findings=2), smooth_image(12, 10)
    draws = bank(net, 6)
    outputs = list(draws.probabilities(x))
    kept, core = (slice(2, 9), slice(0, 5)), (slice(1, 4), slice(2, 5))
    maps = window_maps(draws, x, kept=kept, core=core)
    wanted = bayes.decompose(torch.stack([o.segmentation[(..., *kept)] for o in outputs]))
    torch.testing.assert_close(maps.voxels.epistemic, wanted.epistemic)
    torch.testing.assert_close(maps.voxels.probability, wanted.probability)
    wanted = bayes.decompose(torch.stack([o.findings for o in outputs]), "bernoulli")
    torch.testing.assert_close(maps.findings.epistemic, wanted.epistemic)
    torch.testing.assert_close(
        maps.attention[0], torch.stack([o.attention[0] for o in outputs]).mean(0)
    )
    labels = torch.stack([o.segmentation[(..., *kept)][(..., *core)] for o in outputs]).argmax(2)
    sizes = torch.nn.functional.one_hot(labels, 3).flatten(1, -2).sum(1)
    assert maps.counts.classes.tolist() == sizes.tolist()
    fewer = window_maps(draws, x, draws=2)
    assert fewer.counts.classes.sum(1).tolist() == [12 * 10] * 2


def test_draws_stop_once_the_map_is_that_of_many_draws() -> None:
    with torch.no_grad():
        net, x = network(), smooth_image(24, 24)
        draws = bank(net, 256)
        used = enough_draws(draws, [x], correlation=0.97)
        assert 12 <= used < 256
        wanted = window_maps(bank(net, 200, seed=1), x).voxels.mutual_information_nats.flatten()
        got = window_maps(draws, x, draws=used).voxels.mutual_information_nats.flatten()
    assert float(torch.stack([wanted, got]).corrcoef()[0, 1]) > 0.95
    assert enough_draws(bank(net, 5), [x]) == 5


def test_findings_alone_can_decide_and_no_signal_never_stops_early() -> None:
    with torch.no_grad():
        net = network(classes=0, findings=3)
        used = enough_draws(bank(net, 32), [smooth_image(8, 8), smooth_image(9, 9)])
        assert 12 <= used <= 32
        still = network(sigma0=0)
        assert enough_draws(bank(still, 32), [smooth_image(8, 8)]) == 1
    assert reliability(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])) == 0
    assert reliability(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])) == pytest.approx(1)
    with pytest.raises(ValueError, match="0 windows"):
        enough_draws(bank(still, 1), [])
