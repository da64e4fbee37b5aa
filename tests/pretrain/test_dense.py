"""Local contrast and restoration: by hand and by property."""

import math

import pytest
import torch

from penumbra.augment.elastic import Warp
from penumbra.augment.profile import profile_for
from penumbra.augment.resample import resample
from penumbra.nets.encoder import Encoder
from penumbra.pretrain.contrastive import nt_xent
from penumbra.pretrain.dense import (
    DenseTask,
    Places,
    Restoration,
    local_contrast,
    matching,
    restoration_loss,
)


def test_all_places_of_one_image_give_plain_nt_xent(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 1, 6, 3, 4, generator=generator)
    dense = local_contrast(a, b, temperature=0.2, generator=generator)
    flat = nt_xent(a[0].flatten(1).T, b[0].flatten(1).T, temperature=0.2)
    torch.testing.assert_close(dense, flat)


def test_equal_features_cost_the_log_of_the_other_places(generator: torch.Generator) -> None:
    flat = torch.ones(2, 5, 8, 8, 8)
    loss = local_contrast(flat, flat, temperature=0.1, places=10, generator=generator)
    assert float(loss) == pytest.approx(math.log(19), rel=1e-5)


def test_places_that_a_view_does_not_show_change_nothing(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 2, 6, 4, 4, generator=generator)
    valid = torch.ones(2, 4, 4, dtype=torch.bool)
    valid[:, 2:] = False
    expected = [nt_xent(a[i, :, :2].flatten(1).T, b[i, :, :2].flatten(1).T, temperature=0.2)
                for i in range(2)]  # fmt: skip
    a[:, :, 2:] = 100 * torch.randn(2, 6, 2, 4, generator=generator)
    loss = local_contrast(a, b, valid, temperature=0.2, generator=generator)
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_without_two_places_there_is_no_loss(generator: torch.Generator) -> None:
    a = torch.randn(1, 3, 4, 4, generator=generator, requires_grad=True)
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[0, 1, 1] = True
    loss = local_contrast(a, a, valid, temperature=0.2, generator=generator)
    loss.backward()
    assert float(loss.detach()) == 0
    assert a.grad is not None
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("dim", [2, 3])
def test_only_hidden_voxels_are_restored_for_a_price(dim: int, generator: torch.Generator) -> None:
    head = Restoration(4, 2, dim=dim, generator=generator)
    size = (8,) * dim
    restored = head(torch.randn(3, 4, *(4,) * dim, generator=generator), size)
    assert restored.shape == (3, 2, *size)
    original = restored.detach().clone()
    hidden = torch.zeros(3, *size, dtype=torch.bool)
    assert float(restoration_loss(restored, original, hidden).detach()) == 0
    hidden[:, 0] = True
    original[:, :, 0] += 2
    original[:, :, 1] += 50
    assert float(restoration_loss(restored, original, hidden).detach()) == pytest.approx(4)


@pytest.mark.parametrize("shape", [(32, 40), (16, 12, 20)])
def test_matching_places_show_the_same_anatomy(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    dim = len(shape)
    rows = profile_for("mri", (4.0,) * dim)
    axes = torch.meshgrid(*[torch.linspace(0, 3, n) for n in shape], indexing="ij")
    image = torch.stack([sum(a.sin() for a in axes), axes[0].cos()])[None].repeat(4, 1, *[1] * dim)
    a, b = (Warp.sample(generator, image.shape, rows).positions(image) for _ in range(2))
    at, shown = matching(a, b, torch.Size(shape))
    of_a, of_b = resample(image, a), resample(resample(image, b), at)
    assert shown.float().mean() > 0.6
    wrong = (of_a - of_b).abs().amax(1)[shown]
    unmatched = (of_a - resample(image, b)).abs().amax(1)[shown]
    assert wrong.mean() < 0.1 * unmatched.mean()


@pytest.mark.parametrize("dim", [2, 3])
def test_the_dense_tasks_teach_the_encoder_and_are_the_same_again(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (16, 12, 8)[:dim]
    image = torch.rand(4, 1, *shape, generator=generator)
    encoder = Encoder(1, dim=dim, widths=(8, 8, 8))
    task = DenseTask((8, 8, 8), channels=1, dim=dim, temperature=0.2, seed=0)
    again = DenseTask((8, 8, 8), channels=1, dim=dim, temperature=0.2, seed=0)
    again.load_state_dict(task.state_dict())
    a, b = (Warp.sample(generator, (2, 1, *shape), profile_for("mri")) for _ in range(2))
    places = Places(
        a.positions(image[:2]),
        b.positions(image[2:]),
        image,
        torch.rand(4, *shape, generator=generator) < 0.3,
    )
    features = encoder(image)
    parts = task(features, places, generator=torch.Generator().manual_seed(1))
    same = again(features, places, generator=torch.Generator().manual_seed(1))
    assert {k: float(v.detach()) for k, v in parts.items()} == {
        k: float(v.detach()) for k, v in same.items()
    }
    (parts["dense"] + parts["restoration"]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())
    # full resolution is beyond the decoder: its weights learn through the coarser levels alone
    assert all(p.grad is not None for p in encoder.parameters())
