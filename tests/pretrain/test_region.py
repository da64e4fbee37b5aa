"""Region labels: by hand, under flips, and without a way to cheat."""

import pytest
import torch
from torch import Tensor, nn

from penumbra.pretrain.heads import masked_cross_entropy
from penumbra.pretrain.region import (
    balanced_edges,
    bin_labels,
    lung_zones,
    majority_organ,
    overlap_targets,
    uniform_edges,
    without_leak,
)

NAN = float("nan")


def test_bins_count_with_the_last_axis_fastest() -> None:
    position = torch.tensor([[0.1, 0.1, 0.9], [0.9, 0.5, 0.1], [-0.2, 1.3, 0.5], [NAN, 0.5, 0.5]])
    assert bin_labels(position, uniform_edges(3, axes=3)).tolist() == [2, 21, 7, -1]


def test_balanced_edges_fill_all_bins_equally(generator: torch.Generator) -> None:
    position = torch.rand(3000, 2, generator=generator) ** 3  # crowded near zero
    uneven = bin_labels(position, uniform_edges(3, axes=2)).bincount(minlength=9)
    even = bin_labels(position, balanced_edges(position, bins=3)).bincount(minlength=9)
    assert uneven.max() > 3 * 3000 / 9
    assert even.max() < 1.2 * 3000 / 9


def test_too_few_positions_cannot_be_balanced() -> None:
    with pytest.raises(ValueError, match="1 known positions cannot be cut into 2"):
        balanced_edges(torch.tensor([[0.5, 0.5], [NAN, 0.1]]), bins=2)


def test_soft_targets_are_the_shares_of_the_overlap() -> None:
    edges = uniform_edges(2, axes=2)
    position = torch.tensor([[0.25, 0.25], [0.5, 0.25], [0.45, 0.5], [0.02, 0.9], [NAN, 0.5]])
    soft = overlap_targets(position, torch.full((5, 2), 0.4), edges)
    expected = [[1, 0, 0, 0], [0.5, 0, 0.5, 0], [0.3125, 0.3125, 0.1875, 0.1875], [0, 1, 0, 0]]
    torch.testing.assert_close(soft[:4], torch.tensor(expected))
    assert soft[4].isnan().all()


def test_tiny_crops_have_hard_soft_targets(generator: torch.Generator) -> None:
    position, edges = torch.rand(50, 3, generator=generator), uniform_edges(3, axes=3)
    soft = overlap_targets(position, torch.full((50, 3), 1e-3), edges)
    assert torch.equal(soft.argmax(1), bin_labels(position, edges))
    torch.testing.assert_close(soft.sum(1), torch.ones(50), atol=1e-3, rtol=0)


def test_the_majority_organ_ignores_background_and_unlabelled_voxels() -> None:
    maps = torch.zeros(4, 10, 10, dtype=torch.int64)
    maps[0, :2], maps[0, 2] = 2, 1
    maps[1] = -1
    maps[1, 0] = 3
    maps[3, 0, 0] = 1  # a single voxel, exactly one percent
    assert majority_organ(maps, organs=3).tolist() == [1, 2, -1, 0]


def test_lung_zones_by_hand() -> None:
    position = torch.tensor([[0.1, 0.2], [0.5, 0.2], [0.9, 0.7], [1.0, 1.0], [NAN, 0.5]])
    assert lung_zones(position).tolist() == [0, 1, 5, 5, -1]


def test_labels_move_with_a_flip(generator: torch.Generator) -> None:
    position = torch.rand(200, 2, generator=generator)
    flipped = torch.stack([position[:, 0], 1 - position[:, 1]], 1)  # a left liver is a right one
    edges = uniform_edges(3, axes=2)
    before, after = bin_labels(position, edges), bin_labels(flipped, edges)
    rows, columns = before // 3, before % 3
    assert torch.equal(after, rows * 3 + (2 - columns))
    assert torch.equal(lung_zones(flipped), (lung_zones(position) + 3) % 6)


def test_unknown_regions_take_no_part(generator: torch.Generator) -> None:
    logits = torch.randn(3, 4, generator=generator, requires_grad=True)
    hard = masked_cross_entropy(logits, torch.tensor([1, -1, 3]))
    soft_target = nn.functional.one_hot(torch.tensor([1, 0, 3]), 4).float()
    soft_target[1] = NAN
    soft = masked_cross_entropy(logits, soft_target)
    torch.testing.assert_close(hard, soft)
    soft.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[1].any()
    assert float(masked_cross_entropy(logits.detach(), torch.full((3,), -1))) == 0


def test_only_padding_that_tells_the_position_hides_it() -> None:
    valid = torch.ones(6, 7, 8, dtype=torch.bool)
    valid[1, 0] = valid[1, -2:] = False  # a scan that lies in the middle, to a voxel
    valid[2, :, :2] = valid[2, :, -2:] = False  # the same, by two voxels on both sides
    valid[3, :1] = False  # its border is in view
    valid[4, 0, 0] = False  # a bent border
    valid[5] = False  # nothing of the scan
    position = torch.full((6, 3), 0.5)
    assert without_leak(position, valid).isnan().any(1).tolist() == [False] * 3 + [True] * 3


def noise_crops(
    n: int, generator: torch.Generator, *, round_field: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of pure noise scans, padded with zeros beyond the scan or its round field of view."""
    size, crop = 24, 8
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    scan = (x >= 4) & (x < 20) & (y >= 4) & (y < 20)
    if round_field:
        scan = (x - 11.5) ** 2 + (y - 11.5) ** 2 < 8**2
    image = (0.5 + torch.rand(n, size, size, generator=generator)) * scan
    corner = torch.randint(0, 17, (n, 2), generator=generator)
    pieces, valid = [], []
    for one, (row, column) in zip(image, corner.tolist(), strict=True):
        window = slice(row, row + crop), slice(column, column + crop)
        pieces.append(one[window])
        valid.append(scan[window])
    position = (corner + crop / 2 - 4) / 16
    return torch.stack(pieces)[:, None], torch.stack(valid), position


@pytest.mark.parametrize("round_field", [False, True])
def test_on_noise_a_network_cannot_tell_the_region(round_field: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    edges = uniform_edges(2, axes=2)

    def trial(hide: bool) -> tuple[float, float, int]:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(64, 4),
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

        def draw(n: int) -> tuple[Tensor, Tensor]:
            image, valid, position = noise_crops(n, generator, round_field=round_field)
            return image, bin_labels(without_leak(position, valid) if hide else position, edges)

        for _ in range(80):
            image, label = draw(128)
            optimizer.zero_grad()
            masked_cross_entropy(network(image), label).backward()
            optimizer.step()
        image, label = draw(3000)
        known = label >= 0
        n, chance = int(known.sum()), float(label[known].bincount().max() / known.sum())
        return float((network(image).argmax(1) == label)[known].float().mean()), chance, n

    leaking, chance, _ = trial(hide=False)
    assert leaking > chance + 0.2  # padding alone tells the region
    honest, chance, n = trial(hide=True)
    assert n > 100
    assert abs(honest - chance) < 0.1
    assert honest < chance + 3 * (chance * (1 - chance) / n) ** 0.5
