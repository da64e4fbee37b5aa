"""Hidden regions: how much, where, and whole."""

import pytest
import torch

from penumbra.augment.masking import Masking, _draw, atlas_regions, blocks, labelled, withhold
from penumbra.augment.profile import profile_for
from penumbra.augment.supervoxel import coarse_supervoxels, supervoxels

MRI = profile_for("mri")


def ball(*shape: int) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    return sum(a**2 for a in axes) < 0.8


@pytest.mark.parametrize("shape", [(128, 128), (96, 80), (40, 40, 32)])
@pytest.mark.parametrize("kind", ["blocks", "supervoxels"])
def test_fifteen_to_thirty_percent_of_the_body_are_hidden(
    shape: tuple[int, ...], kind: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    body = ball(*shape).expand(60, *shape)
    image = body[:, None] * torch.rand(60, 1, *shape, generator=generator)
    regions = coarse_supervoxels(image) if kind == "supervoxels" else None
    masking = Masking.sample(generator, image.shape, MRI, body, regions)
    share = masking.hidden.flatten(1).sum(1) / body.flatten(1).sum(1)
    assert share.min() > 0.12
    assert share.max() < 0.33
    assert 0.19 < share.mean() < 0.26
    assert not (masking.hidden & ~body).any()


@pytest.mark.parametrize("shape", [(37, 24), (17, 9, 30), (3, 1)])
@pytest.mark.parametrize("inside", [False, True])
def test_blocks_by_products_are_those_of_the_region_map(
    shape: tuple[int, ...], inside: bool
) -> None:
    body = ball(*shape).expand(5, *shape) if inside else None
    quick = Masking.sample(torch.Generator().manual_seed(4), (5, 1, *shape), MRI, body)
    generator = torch.Generator().manual_seed(4)
    share = MRI.draw("masking", generator, 5)
    regions = blocks(generator, 5, shape)
    # blocks are numbered in base 9, as the products count them: the same keys are drawn
    full = torch.zeros(5, 9 ** len(shape))
    weight = torch.ones(5, *shape) if body is None else body.float()
    full.scatter_add_(1, regions.flatten(1), weight.flatten(1))
    expected = _draw(generator, full, share).gather(1, regions.flatten(1)).view(5, *shape)
    assert torch.equal(quick.hidden, expected if body is None else expected & body)


def test_a_labelled_structure_is_hidden_whole_or_not_at_all() -> None:
    generator = torch.Generator().manual_seed(0)
    body = ball(64, 64).expand(200, 64, 64)
    labels = torch.zeros(200, 64, 64, dtype=torch.long)
    labels[:, 20:30, 20:30], labels[:, 40:48, 30:44] = 1, 2
    regions = labelled(labels, blocks(generator, 200, (64, 64)))
    hidden = Masking.sample(generator, (200, 1, 64, 64), MRI, body, regions).hidden
    often = []
    for label in (1, 2):
        share = (hidden & (labels == label)).flatten(1).sum(1) / (labels == label)[0].sum()
        assert set(share.unique().tolist()) <= {0.0, 1.0}
        often.append(float(share.mean()))
    assert all(0.05 < o < 0.5 for o in often), often


def test_hidden_voxels_hold_the_mean_of_the_body_per_channel() -> None:
    body = torch.zeros(1, 4, 4, dtype=torch.bool)
    body[:, :2] = True
    hidden = torch.zeros_like(body)
    hidden[:, 0, 0] = True
    image = torch.arange(32.0).view(1, 2, 4, 4)
    seen = Masking(hidden, body).apply(image)
    assert seen[0, 0, 0, 0] == image[0, 0, :2].mean()
    assert seen[0, 1, 0, 0] == image[0, 1, :2].mean()
    assert torch.equal(seen[:, :, 1:], image[:, :, 1:])


def test_an_empty_body_hides_nothing(generator: torch.Generator) -> None:
    image = torch.rand(2, 1, 20, 20, generator=generator)
    nobody = torch.zeros(2, 20, 20, dtype=torch.bool)
    assert torch.equal(Masking.sample(generator, image.shape, MRI, nobody).apply(image), image)


def test_supervoxels_follow_an_edge_that_blocks_would_cut() -> None:
    image = torch.zeros(1, 1, 32, 32)
    image[..., 13:] = 1.0  # no cell border of a 4 x 4 grid lies here
    regions = supervoxels(image, per_axis=4, compactness=0.5)
    left, right = regions[0, :, :13].unique(), regions[0, :, 13:].unique()
    assert not set(left.tolist()) & set(right.tolist())


def test_supervoxels_of_a_batch_do_not_depend_on_each_other() -> None:
    batch = torch.rand(3, 2, 20, 24, generator=torch.Generator().manual_seed(0))
    together = supervoxels(batch, per_axis=5)
    for i in range(3):
        assert torch.equal(together[i : i + 1], supervoxels(batch[i : i + 1], per_axis=5))


@pytest.mark.parametrize("shape", [(1, 7), (5, 1, 9), (3, 3)])
def test_tiny_images_have_supervoxels(shape: tuple[int, ...]) -> None:
    image = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    assert coarse_supervoxels(image).shape == (2, *shape)


def test_an_atlas_is_read_at_the_position_of_the_patch() -> None:
    atlas = torch.arange(1, 17).view(4, 4)
    lower, upper = torch.tensor([[0.5, 0.0], [-0.5, 0.0]]), torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    got = atlas_regions(atlas, lower, upper, (2, 2))
    assert got[0].tolist() == [[9, 10], [13, 14]]
    assert got[1].tolist() == [[0, 0], [6, 8]]  # above the atlas: label 0


def test_withheld_channels_are_zero_and_one_always_stays() -> None:
    image = torch.ones(200, 3, 2, 2)
    kept = withhold(image, 0.6, torch.Generator().manual_seed(0)).flatten(2).amax(2)
    assert set(kept.flatten().tolist()) == {0.0, 1.0}
    assert bool((kept.sum(1) >= 1).all())
    assert torch.equal(withhold(image, 0.0, torch.Generator()), image)
