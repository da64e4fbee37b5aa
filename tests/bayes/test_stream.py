"""Volumes in tiles: nothing twice, nothing missing, no seams, and no more draws than needed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from penumbra import bayes
from penumbra.bayes.stream import enough_draws, reliability, tiles, window_maps
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


@settings(max_examples=50, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 17)),
    st.tuples(st.integers(5, 20), st.integers(1, 9)),
    st.tuples(st.integers(0, 2), st.just(0)),
)
def test_cores_cover_every_voxel_once_and_windows_stay_inside(
    size: tuple[int, int], window: tuple[int, int], halo: tuple[int, int]
) -> None:
    seen = torch.zeros(size, dtype=torch.int64)
    for tile in tiles(size, window=window, halo=halo):
        seen[tile.place] += 1
        inside = torch.zeros(size)[tile.window]
        assert inside.shape == tuple(min(w, n) for w, n in zip(window, size, strict=True))
        assert inside[tile.core].shape == seen[tile.place].shape
        for part, place, h, n in zip(tile.window, tile.place, halo, size, strict=True):
            assert place.start - part.start >= h or part.start == 0
            assert part.stop - place.stop >= h or part.stop == n
    assert bool((seen == 1).all())


def test_a_halo_without_a_core_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no core"):
        list(tiles((9,), window=(4,), halo=(2,)))


def test_window_maps_are_the_decomposition_of_the_draws() -> None:
    net, x = network(findings=2), smooth_image(12, 10)
    draws = bank(net, 6)
    outputs = list(draws.probabilities(x))
    core = (slice(2, 9), slice(0, 5))
    maps = window_maps(draws, x, core=core)
    wanted = bayes.decompose(torch.stack([o.segmentation[(..., *core)] for o in outputs]))
    torch.testing.assert_close(maps.voxels.epistemic, wanted.epistemic)
    torch.testing.assert_close(maps.voxels.probability, wanted.probability)
    wanted = bayes.decompose(torch.stack([o.findings for o in outputs]), "bernoulli")
    torch.testing.assert_close(maps.findings.epistemic, wanted.epistemic)
    torch.testing.assert_close(
        maps.attention[0], torch.stack([o.attention[0] for o in outputs]).mean(0)
    )
    assert maps.counts.shape == (6, 1, 3)
    assert bool((maps.counts.sum(-1) == 35).all())
    fewer = window_maps(draws, x, draws=2)
    assert fewer.counts.shape[0] == 2


def epistemic(net: Network, draws: bayes.Bank, x: Tensor, *, window: int, halo: int) -> Tensor:
    size = x.shape[2:]
    out = torch.full((1, *size), float("nan"))
    dims = len(size)
    for tile in tiles(size, window=(window,) * dims, halo=(halo,) * dims):
        maps = window_maps(draws, x[(..., *tile.window)], core=tile.core)
        out[(..., *tile.place)] = maps.voxels.epistemic.detach()
    assert not out.isnan().any()
    return out


def even_texture(rows: int, columns: int) -> Tensor:
    """A smooth texture with a period of 16: every window sees the same statistics."""
    a = torch.arange(rows)[:, None] * torch.pi / 8
    b = torch.arange(columns)[None] * torch.pi / 8
    return (0.5 + 0.25 * (a.sin() + b.sin()))[None, None]


def border_statistic(net: Network, draws: bayes.Bank, x: Tensor, *, window: int) -> float:
    """Step across tile borders that one pass over the whole image does not have, over the mean."""
    whole = epistemic(net, draws, x, window=max(x.shape[2:]), halo=8)[0]
    residual = epistemic(net, draws, x, window=window, halo=8)[0] - whole
    edges = {t.place[0].start for t in tiles(x.shape[2:], window=(window,) * 2, halo=(8, 8))}
    at = [edge - 1 for edge in edges if edge]
    return float((residual[1:] - residual[:-1]).abs().mean(1)[at].mean() / whole.mean())


class FreshWeights:
    """What peers do: new draws for every window."""

    def __init__(self, net: Network, draws: int) -> None:
        self.net, self.draws, self.seed = net, draws, 0

    def __len__(self) -> int:
        return self.draws

    def encode(self, image: Tensor):
        self.seed += 1
        self.now = bank(self.net, self.draws, seed=self.seed)
        return self.now.encode(image)

    def decode(self, features, t: int):
        return self.now.decode(features, t)

    def probabilities(self, image: Tensor):
        raise NotImplementedError


def test_no_seam_runs_through_the_epistemic_map_whatever_the_window() -> None:
    with torch.no_grad():
        net, x = network(), even_texture(64, 64)
        shared = [border_statistic(net, bank(net, 4), x, window=w) for w in (32, 48)]
        fresh = border_statistic(net, FreshWeights(net, 4), x, window=32)
    assert max(shared) < 0.5 * fresh, (shared, fresh)


def test_different_windows_give_the_same_map() -> None:
    with torch.no_grad():
        net, x = network(), even_texture(96, 96)
        draws = bank(net, 4)
        small = epistemic(net, draws, x, window=48, halo=8).flatten()
        large = epistemic(net, draws, x, window=96, halo=8).flatten()
    assert float(torch.stack([small, large]).corrcoef()[0, 1]) > 0.9


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
        assert 8 <= used <= 32
        still = network(sigma0=0)
        assert enough_draws(bank(still, 32), [smooth_image(8, 8)]) == 1
    assert reliability(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0])) == 0
    assert reliability(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])) == pytest.approx(1)
    with pytest.raises(ValueError, match="0 windows"):
        enough_draws(bank(still, 1), [])
