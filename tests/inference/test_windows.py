"""How volumes are cut: nothing twice, nothing missing, and no seams."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion import TASK
from penumbra import bayes, trained
from penumbra.bayes.bank import Bank
from penumbra.config import resolve
from penumbra.data.preprocess import Prepared
from penumbra.inference import windows as cutting
from penumbra.inference.maps import map_case
from penumbra.inference.windows import tile_size, tiles, windows
from penumbra.model import Network

Make = Callable[..., Prepared]


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
        assert all(k <= w for k, w in zip(inside.shape, window, strict=True))
        assert inside[tile.core].shape == seen[tile.place].shape
        for part, place, h, n in zip(tile.window, tile.place, halo, size, strict=True):
            assert place.start - part.start >= h or part.start == 0
            assert part.stop - place.stop >= h or part.stop == n
    assert bool((seen == 1).all())


def test_a_halo_without_a_core_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no core"):
        list(tiles((9,), window=(4,), halo=(2,)))


def textured(case: Make, *shape: int) -> Prepared:
    """A case whose smooth texture has a period of 8: every window sees the same statistics."""
    axes = np.meshgrid(*(np.sin(np.arange(n) * np.pi / 4) for n in shape), indexing="ij")
    prepared = case(shape)
    prepared.image[:] = 0.5 + 0.15 * sum(axes)
    return prepared


class FreshWeights(Bank):
    """What peers do: new draws for every window."""

    coherent = True

    def __init__(self, net: Network, draws: int) -> None:
        self.net, self.draws, self.seed = net, draws, 0

    def __len__(self) -> int:
        return self.draws

    def encode(self, image: torch.Tensor):
        self.seed += 1
        self.now = bank(self.net, self.draws, seed=self.seed)
        return self.now.encode(image)

    def decode(self, features, t: int):
        return self.now.decode(features, t)


def bank(net: Network, draws: int, *, seed: int = 0) -> Bank:
    return bayes.bank(net, draws=draws, generator=torch.Generator().manual_seed(seed))


def epistemic(net: Network, draws: Bank, prepared: Prepared, *, patch: int, how: str):
    overrides = {"data.dim": 3, "data.patch": [patch, 16, 8], "evaluate.windows": how}
    config = resolve("phantom-mri", size="tiny", overrides=overrides)
    voxels = map_case(net, draws, prepared, TASK, config).voxels
    assert voxels is not None
    return voxels.epistemic


def steps(seen: torch.Tensor, whole: torch.Tensor, at: list[int]) -> float:
    """Border statistic: steps across window borders that one whole window lacks, over the mean."""
    residual = seen - whole
    jumps = (residual[1:] - residual[:-1]).abs().mean((1, 2))
    return float(jumps[at].mean() / whole.mean())


def test_tiles_are_the_volume_if_it_fits_and_else_equal_shares_of_it() -> None:
    assert tile_size((160, 128, 139), voxels=2**22) == (160, 128, 139)
    assert tile_size((160, 128, 139), voxels=2**21) == (96, 128, 139)
    assert tile_size((512, 512, 300), voxels=2**22) == (160, 160, 128)
    assert tile_size((64, 48, 40), voxels=1000) == (48, 48, 40)  # thinner would be halo alone


def test_no_seam_runs_through_the_epistemic_map_whichever_way_it_is_cut(
    case: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "TILE_NUMBERS", 8 * 64 * 16 * 8)
    monkeypatch.setattr(cutting, "WHOLE_NUMBERS", 0)
    config = resolve("phantom-mri", size="tiny", overrides={"data.dim": 3, "data.patch": [8, 8, 8]})
    net = trained.build(config, TASK)
    trained.convert(net, config)
    net.eval()
    prepared = textured(case, 96, 16, 8)
    whole = epistemic(net, bank(net, 4), prepared, patch=96, how="blend")
    # Two tiles of 64 along the first axis: their cores meet at 48; blended ones at 24, 40, 56, 72.
    tiled = epistemic(net, bank(net, 4), prepared, patch=32, how="tile")
    blended = epistemic(net, bank(net, 4), prepared, patch=32, how="blend")
    fresh = epistemic(net, FreshWeights(net, 4), prepared, patch=32, how="tile")
    assert steps(tiled, whole, [47]) < 0.5 * steps(fresh, whole, [47])
    assert steps(blended, whole, [23, 39, 55, 71]) < 0.5 * steps(fresh, whole, [47])
    pair = torch.stack([tiled.flatten(), whole.flatten()])
    assert float(pair.corrcoef()[0, 1]) > 0.9


@pytest.mark.parametrize("how", ["blend", "tile"])
def test_every_voxel_is_counted_in_exactly_one_window(
    how: str, case: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "TILE_NUMBERS", 2**17)
    monkeypatch.setattr(cutting, "WHOLE_NUMBERS", 0)
    overrides = {"data.dim": 3, "data.patch": [16, 16, 8]}
    config = resolve("phantom-mri", size="tiny", overrides=overrides)
    owners = np.zeros((70, 49, 21), dtype=int)
    for window in windows(case((70, 49, 21)), config, how=how):
        owners[window.place][window.core] += 1
    assert (owners == 1).all()


def test_a_volume_that_one_tile_spans_is_predicted_whole(case: Make) -> None:
    config = resolve("phantom-mri", size="tiny", overrides={"data.dim": 3, "data.patch": [16] * 3})
    (window,) = windows(case((32, 30, 9)), config, how="tile")
    assert window.image.shape[2:] == (32, 30, 9)
