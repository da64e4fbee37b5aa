"""The quick 3-D sampler against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from penumbra.augment import resample as module
from penumbra.augment.elastic import Warp
from penumbra.augment.profile import profile_for
from penumbra.augment.resample import resample


@pytest.mark.parametrize("shape", [(20, 30, 16), (1, 7, 9), (9, 1, 1), (5, 8, 2), (1, 1, 1)])
@pytest.mark.parametrize("reach", [0.9, 1.6])
def test_two_planes_mixed_are_trilinear(
    shape: tuple[int, ...], reach: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SLAB", 200)  # several slabs, the last one smaller
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, *shape, generator=generator)
    positions = (torch.rand(2, 7, 6, 11, 3, generator=generator) * 2 - 1) * reach
    expected = F.grid_sample(image, positions, padding_mode="border", align_corners=True)
    torch.testing.assert_close(resample(image, positions), expected, atol=1e-4, rtol=0)


def test_a_still_volume_stays_as_it_is() -> None:
    image = torch.rand(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    rows = profile_for("ct")
    for family in ("elastic", "zoom", "rotation"):
        rows = rows.at(family, 0)
    still = Warp.sample(torch.Generator().manual_seed(0), image.shape, rows)
    torch.testing.assert_close(still.apply(image), image, atol=1e-3, rtol=0)


def test_the_volume_sampler_is_differentiable_in_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 3, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    positions = torch.rand(1, 2, 3, 2, 3, generator=generator, dtype=torch.float64) * 2 - 1
    assert torch.autograd.gradcheck(lambda x: resample(x, positions), (image,))
