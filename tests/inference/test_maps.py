import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lesion import TASK
from penumbra import trained
from penumbra.bayes import bank
from penumbra.config import Config, resolve
from penumbra.data.preprocess import Prepared
from penumbra.evaluate.selective import disagreement
from penumbra.inference.maps import CaseMaps, map_case, windows
from penumbra.types import Uncertainty

Make = Callable[..., Prepared]


def mapped(prepared: Prepared, config: Config, draws: int = 3) -> CaseMaps:
    network = trained.build(config, TASK)
    trained.convert(network, config)
    posterior = bank(network.eval(), draws=draws, generator=torch.Generator().manual_seed(1))
    return map_case(network, posterior, prepared, TASK, config)


@pytest.fixture(scope="module")
def slicewise() -> Config:
    return resolve("phantom-mri", size="tiny")


@pytest.fixture(scope="module")
def volumetric() -> Config:
    return resolve("phantom-mri", size="tiny", overrides={"data.dim": 3, "data.patch": [16, 16, 8]})


def test_maps_of_a_sliced_volume_lie_on_the_volumes_grid(slicewise: Config, case: Make) -> None:
    maps = mapped(case((20, 17, 5)), slicewise)
    assert maps.voxels is not None
    assert maps.findings is not None
    assert maps.voxels.probability.shape == (2, 20, 17, 5)
    assert maps.voxels.epistemic.shape == (20, 17, 5)
    assert maps.attention.shape == (2, 20, 17, 5)
    assert maps.findings.probability.shape == (1,)


def test_a_slice_does_not_depend_on_its_neighbours(slicewise: Config, case: Make) -> None:
    whole = case((16, 16, 4))
    alone = case((16, 16, 1))
    alone.image[:] = whole.image[..., 2:3]
    a, b = mapped(whole, slicewise).voxels, mapped(alone, slicewise).voxels
    assert a is not None
    assert b is not None
    torch.testing.assert_close(a.probability[..., 2:3], b.probability, atol=1e-5, rtol=0.0)


def test_total_uncertainty_is_the_sum_of_its_parts(slicewise: Config, case: Make) -> None:
    voxels = mapped(case((16, 16, 2)), slicewise).voxels
    assert voxels is not None
    torch.testing.assert_close(
        voxels.total, voxels.epistemic + voxels.aleatoric, atol=1e-6, rtol=0.0
    )


def test_windows_over_a_volume_share_their_draws(volumetric: Config, case: Make) -> None:
    maps = mapped(case((24, 20, 12)), volumetric)
    assert maps.voxels is not None
    assert maps.voxels.probability.shape == (2, 24, 20, 12)
    torch.testing.assert_close(
        maps.voxels.probability.sum(0), torch.ones(24, 20, 12), atol=1e-5, rtol=0.0
    )
    assert len(maps.draw_volumes_ml["WT"]) == 3


def test_a_volume_no_larger_than_the_window_is_one_window(volumetric: Config, case: Make) -> None:
    maps = mapped(case((10, 9, 5)), volumetric)
    assert maps.attention.shape == (2, 10, 9, 5)


def test_one_draw_has_no_epistemic_part_and_no_disagreement(slicewise: Config, case: Make) -> None:
    maps = mapped(case((16, 16, 2)), slicewise, draws=1)
    assert maps.voxels is not None
    assert float(maps.voxels.epistemic.abs().max()) == 0.0
    assert maps.disagreement == 0.0


def test_every_voxel_belongs_to_the_core_of_exactly_one_window(
    volumetric: Config, case: Make
) -> None:
    prepared = case((37, 16, 21))
    owners = np.zeros((37, 16, 21), dtype=int)
    for window in windows(prepared, volumetric):
        owners[window.place][window.core] += 1
    assert (owners == 1).all()


def test_draws_of_the_same_function_agree_and_have_one_volume(
    slicewise: Config, case: Make
) -> None:
    network = trained.build(slicewise, TASK).eval()  # deterministic: a bank of one draw
    one = bank(network, draws=1, generator=torch.Generator())
    maps = map_case(network, one, case((16, 16, 3)), TASK, slicewise)
    voxels = maps.voxels
    assert voxels is not None
    expected_ml = float((voxels.probability.argmax(0) == 1).sum()) * 2 * 2 * 3 / 1000
    assert maps.draw_volumes_ml["WT"].tolist() == pytest.approx([expected_ml])


def test_volumes_and_disagreement_are_those_of_the_draws_own_label_maps(
    slicewise: Config, case: Make
) -> None:
    network = trained.build(slicewise, TASK)
    trained.convert(network, slicewise)
    drawn = bank(network.eval(), draws=4, generator=torch.Generator().manual_seed(1))
    prepared = case((16, 16, 3))
    maps = map_case(network, drawn, prepared, TASK, slicewise)
    (window,) = windows(prepared, slicewise)
    with torch.inference_mode():
        outputs = drawn.probabilities(window.image)
        labels = torch.stack([o.segmentation.argmax(1) for o in outputs])
    voxel_ml = float(np.prod(prepared.spacing_mm)) / 1000
    wanted = (labels == 1).flatten(1).sum(1) * voxel_ml
    assert maps.draw_volumes_ml["WT"].tolist() == pytest.approx(wanted.tolist())
    assert 0 < maps.disagreement == pytest.approx(disagreement(labels))


def test_entropy_within_structures_is_high_where_they_are_hardly_believed() -> None:
    p = torch.zeros(2, 4, 4)
    p[1, :2] = 0.6
    p[1, 2:] = 0.1
    p[0] = 1 - p[1]
    entropy = torch.special.entr(p).sum(0)
    zero = torch.zeros_like(entropy)
    voxels = Uncertainty(p, zero, zero, zero, entropy, zero, entropy)
    maps = CaseMaps(voxels, None, torch.zeros(1, 4, 4), {}, 0.0)
    assert maps.structure_entropy({"a": (1,)}) == pytest.approx(float(entropy[0, 0]))
    assert maps.structure_entropy({"none": ()}) == pytest.approx(math.log(2))
    assert CaseMaps(None, None, maps.attention, {}, 0.0).structure_entropy({"a": (1,)}) == 0
