"""Gradient attacks: their set, their order, their closed forms."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from penumbra.robust.attack import (
    Attacked,
    evaluate,
    fgsm,
    noise,
    pgd,
    value_and_gradient,
    worst,
)
from penumbra.robust.ball import Norm, ball, change_size, radius
from penumbra.robust.objective import label_loss

Predict = Callable[[Tensor], Tensor]


def problem(predict: Predict, shape: tuple[int, ...], generator: torch.Generator):
    image = torch.rand(shape, generator=generator)
    return image, label_loss(predict, predict(image).argmax(1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(2, 1, 9, 7), (2, 1, 5, 6, 4)])
def test_attacks_stay_inside_and_each_is_stronger_than_the_one_before(
    norm: Norm, shape: tuple[int, ...], small_network, generator: torch.Generator
) -> None:
    image, objective = problem(small_network(len(shape) - 2), shape, generator)
    valid = torch.ones((shape[0], *shape[2:]), dtype=torch.bool)
    valid[:, :2] = False
    inside = ball(image, eps=0.08, norm=norm, valid=valid)
    images = [
        noise(objective, inside, steps=3, generator=generator),
        fgsm(objective, inside, generator=None),
        pgd(objective, inside, steps=20, generator=None),
    ]
    values = [float(evaluate(objective, x).value.mean()) for x in images]
    assert values == sorted(values)
    for x in images:
        assert float(change_size(x, inside).max()) <= 0.08 + 1e-6
        torch.testing.assert_close(x[:, :, :2], image[:, :, :2], rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_on_a_linear_model_reaches_the_closed_form_optimum(norm: Norm) -> None:
    # Half the logit difference is w . x, so the worst image moves against w: by eps * sign(w)
    # in L-inf, by radius * w / |w| in L2 (one voxel, so the voxel's loss is the image's).
    weight = torch.tensor([1.0, -2.0, 0.5]).reshape(1, 3, 1)
    image = torch.full((1, 3, 1), 0.5)

    def predict(x: Tensor) -> Tensor:
        logit = (x * weight).sum(1, keepdim=True)
        return torch.cat([-logit, logit], 1).softmax(1)

    inside = ball(image, eps=0.1, norm=norm)
    objective = label_loss(predict, torch.ones((1, 1), dtype=torch.int64))
    attacked = pgd(
        objective, inside, steps=100, step=0.02, generator=torch.Generator().manual_seed(1)
    )
    away = weight.sign() * 0.1 if norm == "linf" else weight / weight.norm() * radius(inside)
    torch.testing.assert_close(attacked, image - away, rtol=0, atol=1e-4)


def test_more_steps_never_help_the_defender(small_network, generator: torch.Generator) -> None:
    image, objective = problem(small_network(2), (4, 1, 8, 8), generator)
    inside = ball(image, eps=0.06)
    values = []
    for steps in (1, 2, 5, 10, 20):
        start = torch.Generator().manual_seed(5)
        x = pgd(objective, inside, steps=steps, generator=start, step=0.02)
        values.append(evaluate(objective, x).value)
    for fewer, more in itertools.pairwise(values):
        assert bool((more >= fewer - 1e-6).all())


def test_more_restarts_never_help_the_defender(small_network, generator: torch.Generator) -> None:
    image, objective = problem(small_network(2), (4, 1, 8, 8), generator)
    inside = ball(image, eps=0.06)
    starts = [pgd(objective, inside, steps=3, generator=generator) for _ in range(4)]
    values = [worst(evaluate(objective, x) for x in starts[: k + 1]).value for k in range(4)]
    for fewer, more in itertools.pairwise(values):
        assert bool((more >= fewer).all())


def test_a_zero_radius_changes_nothing(small_network, generator: torch.Generator) -> None:
    image, objective = problem(small_network(2), (2, 1, 6, 6), generator)
    point = ball(image, eps=0.0)
    for attacked in (
        fgsm(objective, point, generator=generator),
        pgd(objective, point, steps=3, generator=generator),
        noise(objective, point, steps=2, generator=generator),
    ):
        torch.testing.assert_close(attacked, image, rtol=0, atol=0)


def test_an_image_is_attacked_alike_alone_and_in_a_batch(
    small_network, generator: torch.Generator
) -> None:
    predict = small_network(2)
    image = torch.rand((3, 1, 8, 8), generator=generator)
    labels = predict(image).argmax(1)
    together = pgd(label_loss(predict, labels), ball(image, eps=0.05), steps=5, generator=None)
    for i in range(3):
        one = slice(i, i + 1)
        alone = pgd(
            label_loss(predict, labels[one]), ball(image[one], eps=0.05), steps=5, generator=None
        )
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-6)


def test_multi_label_findings_are_attacked_where_they_are_stated(
    findings_network, generator: torch.Generator
) -> None:
    image = torch.rand((3, 1, 8, 8), generator=generator)
    labels = torch.tensor([[1.0, float("nan")], [0.0, 1.0], [float("nan"), float("nan")]])
    objective = label_loss(findings_network(), labels)
    before = evaluate(objective, image).value
    after = evaluate(objective, pgd(objective, ball(image, eps=0.1), steps=5, generator=None)).value
    assert bool((after[:2] > before[:2]).all())
    assert float(after[2]) == 0.0


def test_weights_receive_no_gradient_from_an_attack(generator: torch.Generator) -> None:
    network = nn.Conv2d(1, 2, 3, padding=1)
    image = torch.rand((1, 1, 6, 6), generator=generator)
    labels = torch.zeros((1, 6, 6), dtype=torch.int64)
    objective = label_loss(lambda x: network(x).softmax(1), labels)
    pgd(objective, ball(image, eps=0.05), steps=2, generator=generator)
    assert all(p.grad is None for p in network.parameters())
    assert all(p.requires_grad for p in network.parameters())


def test_attacks_work_where_gradients_are_switched_off(
    small_network, generator: torch.Generator
) -> None:
    image, objective = problem(small_network(2), (1, 1, 6, 6), generator)
    with torch.no_grad():
        _, gradient = value_and_gradient(objective, image)
    assert float(gradient.abs().sum()) > 0


def test_the_worst_case_is_taken_per_image() -> None:
    first = Attacked(torch.zeros(2, 1, 1), torch.tensor([1.0, 0.0]))
    second = Attacked(torch.ones(2, 1, 1), torch.tensor([0.0, 2.0]))
    both = worst([first, second])
    assert both.image.flatten().tolist() == [0.0, 1.0]
    assert both.value.tolist() == [1.0, 2.0]


def test_no_candidate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no candidate"):
        worst([])
