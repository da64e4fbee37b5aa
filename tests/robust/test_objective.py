"""The attacker's losses."""

import math

import pytest
import torch

from penumbra.robust.objective import Weighting, cross_entropy


def test_plain_cross_entropy_equals_torchs_on_the_counted_voxels(
    generator: torch.Generator,
) -> None:
    logits = torch.randn((1, 4, 5, 6), generator=generator)
    labels = torch.randint(-1, 4, (1, 5, 6), generator=generator)
    ours = cross_entropy(logits.softmax(1), labels)
    theirs = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1)
    torch.testing.assert_close(ours[0], theirs)


def test_findings_equal_torchs_binary_cross_entropy_on_the_stated_ones() -> None:
    p = torch.tensor([[0.9, 0.2, 0.5, 0.5]])
    labels = torch.tensor([[1.0, 0.0, float("nan"), -1.0]])
    assert float(cross_entropy(p, labels)) == pytest.approx(-(math.log(0.9) + math.log(0.8)) / 2)


def test_balanced_counts_a_one_voxel_lesion_as_much_as_the_background() -> None:
    p = torch.full((1, 2, 100), 0.5)
    p[0, :, 0] = torch.tensor([0.8, 0.2])
    labels = torch.zeros((1, 100), dtype=torch.int64)
    labels[0, 0] = 1
    expected = 0.5 * -math.log(0.2) + 0.5 * -math.log(0.5)
    assert float(cross_entropy(p, labels, weighting="balanced")) == pytest.approx(expected)


def test_cosine_forgets_voxels_that_are_lost() -> None:
    p = torch.tensor([[[0.6, 1e-6], [0.4, 1 - 1e-6]]])
    labels = torch.zeros((1, 2), dtype=torch.int64)
    kept = -math.log(0.6) * 0.6 / math.hypot(0.6, 0.4) / 2
    value = float(cross_entropy(p, labels, weighting="cosine"))
    assert value == pytest.approx(kept, rel=1e-3)


@pytest.mark.parametrize("weighting", ["plain", "balanced", "cosine"])
def test_an_image_is_scored_alone_and_without_labels_scores_zero(
    weighting: Weighting, generator: torch.Generator
) -> None:
    p = torch.randn((3, 3, 4, 4, 2), generator=generator).softmax(1)
    labels = torch.randint(-1, 3, (3, 4, 4, 2), generator=generator)
    labels[1] = -1
    batch = cross_entropy(p, labels, weighting=weighting)
    alone = [cross_entropy(p[i : i + 1], labels[i : i + 1], weighting=weighting) for i in range(3)]
    torch.testing.assert_close(batch, torch.cat(alone))
    assert float(batch[1]) == 0.0


def test_a_probability_of_zero_gives_a_large_finite_loss() -> None:
    p = torch.tensor([[[1.0], [0.0]]])
    value = cross_entropy(p, torch.ones((1, 1), dtype=torch.int64))
    assert 80 < float(value) < 90
