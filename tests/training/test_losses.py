"""Task losses by hand: what is ignored, what is averaged, and that no image leans on another."""

import math

import pytest
import torch

from penumbra.training.losses import findings_loss, segmentation_loss, settle
from penumbra.types import IGNORE

NAN = float("nan")


def test_an_undecided_segmentation_costs_the_log_of_its_classes() -> None:
    logits, labels = torch.zeros(1, 4, 3, 3), torch.ones(1, 3, 3, dtype=torch.int64)
    loss = segmentation_loss(logits, labels, dice=0.0)
    assert float(loss) == pytest.approx(math.log(4))


def test_a_sure_and_right_segmentation_costs_nothing() -> None:
    labels = torch.tensor([[[0, 1], [2, 1]]])
    logits = 50.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    assert float(segmentation_loss(logits, labels, dice=1.0)) == pytest.approx(0, abs=1e-5)


def test_the_dice_of_a_half_found_region_by_hand() -> None:
    labels = torch.tensor([[[1, 1, 0, 0]]])
    logits = 50.0 * torch.nn.functional.one_hot(torch.tensor([[[1, 0, 0, 0]]]), 2).movedim(-1, 1)
    both = segmentation_loss(logits.float(), labels, dice=1.0)
    entropy = segmentation_loss(logits.float(), labels, dice=0.0)
    # One voxel shared, one and two marked, smoothing one: 1 - (2 * 1 + 1) / (1 + 2 + 1)
    assert float(both - entropy) == pytest.approx(0.25, abs=1e-5)


def test_ignored_voxels_teach_nothing(generator: torch.Generator) -> None:
    logits = torch.randn(1, 3, 4, 4, generator=generator)
    labels = torch.randint(0, 3, (1, 4, 4), generator=generator)
    labels[0, 0] = IGNORE
    other = logits.clone()
    other[:, :, 0] += 7 * torch.randn(1, 3, 4, generator=generator)
    before, after = (segmentation_loss(x, labels, dice=1.0) for x in (logits, other))
    torch.testing.assert_close(before, after)


def test_an_image_of_ignored_voxels_alone_has_no_loss(generator: torch.Generator) -> None:
    logits = torch.randn(1, 3, 4, 4, generator=generator, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((1, 4, 4), IGNORE), dice=1.0)
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert logits.grad is not None
    assert float(logits.grad.abs().sum()) == 0


def test_cross_entropy_scores_every_image_by_itself(generator: torch.Generator) -> None:
    logits = torch.randn(3, 2, 4, 4, 4, generator=generator)
    labels = torch.randint(-1, 2, (3, 4, 4, 4), generator=generator)
    together = segmentation_loss(logits, labels, dice=0.0)
    alone = [
        segmentation_loss(logits[i : i + 1], labels[i : i + 1], dice=0.0)
        for i in range(len(logits))
    ]
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize(
    ("policy", "target", "known"),
    [
        ("ones", [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]),
        ("zeros", [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]),
        ("ignore", [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]),
    ],
)
def test_the_policies_for_uncertain_findings(
    policy: str, target: list[float], known: list[float]
) -> None:
    labels = torch.tensor([[1.0, 0.0, -1.0, NAN]])
    got = settle(labels, uncertain=policy)  # type: ignore[arg-type]
    assert [part.tolist() for part in got] == [[target], [known]]


def test_findings_are_averaged_over_those_that_are_stated() -> None:
    labels = torch.tensor([[1.0, 0.0, NAN], [NAN, NAN, NAN]])
    loss = findings_loss(torch.zeros(2, 3), labels, uncertain="ignore")
    assert loss.tolist() == pytest.approx([math.log(2), 0.0])
