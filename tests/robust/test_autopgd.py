"""APGD and the black-box search."""

import pytest
import torch

from penumbra.robust.attack import evaluate, noise, pgd
from penumbra.robust.autopgd import apgd, checkpoints
from penumbra.robust.ball import Norm, ball, change_size
from penumbra.robust.blackbox import square
from penumbra.robust.objective import label_loss


def test_checkpoints_grow_denser_as_published() -> None:
    # Croce & Hein 2020, section 3: shares 0, .22, .41, .57, .70, .80, .87, .93, .99 of the budget.
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(3, 1, 9, 7), (2, 1, 5, 6, 4)])
def test_they_stay_inside_and_beat_noise(
    norm: Norm, shape: tuple[int, ...], small_network, generator: torch.Generator
) -> None:
    predict = small_network(len(shape) - 2)
    image = torch.rand(shape, generator=generator)
    objective = label_loss(predict, predict(image).argmax(1))
    valid = torch.ones((shape[0], *shape[2:]), dtype=torch.bool)
    valid[:, :2] = False
    inside = ball(image, eps=0.08, norm=norm, valid=valid)
    strong = apgd(objective, inside, steps=20, generator=generator)
    blind = square(objective, inside, steps=60, generator=generator)
    control = noise(objective, inside, steps=3, generator=generator)
    loss = {
        name: float(evaluate(objective, x).value.mean())
        for name, x in {"apgd": strong, "square": blind, "noise": control}.items()
    }
    assert loss["apgd"] > loss["square"] > loss["noise"]
    for x in (strong, blind):
        assert float(change_size(x, inside).max()) <= 0.08 + 1e-6
        torch.testing.assert_close(x[:, :, :2], image[:, :, :2], rtol=0, atol=0)


def test_apgd_needs_no_tuned_step_to_match_pgd(small_network, generator: torch.Generator) -> None:
    predict = small_network(2)
    image = torch.rand((4, 1, 10, 10), generator=generator)
    objective = label_loss(predict, predict(image).argmax(1))
    inside = ball(image, eps=0.05)
    automatic = evaluate(objective, apgd(objective, inside, steps=40, generator=None)).value
    for step in (0.05, 0.02, 0.005):
        tuned = pgd(objective, inside, steps=40, generator=None, step=step)
        assert float(automatic.mean()) >= 0.98 * float(evaluate(objective, tuned).value.mean())


def test_apgd_treats_an_image_alike_alone_and_in_a_batch(
    small_network, generator: torch.Generator
) -> None:
    predict = small_network(2)
    image = torch.rand((3, 1, 8, 8), generator=generator)
    labels = predict(image).argmax(1)
    together = apgd(label_loss(predict, labels), ball(image, eps=0.05), steps=12, generator=None)
    alone = apgd(
        label_loss(predict, labels[1:2]), ball(image[1:2], eps=0.05), steps=12, generator=None
    )
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-6)


def test_square_breaks_a_model_whose_gradient_is_zero(generator: torch.Generator) -> None:
    # Rounding hides the gradient; random search does not need one.
    def predict(image):
        logit = 40 * ((image * 10).round() / 10 - 0.5).mean((2, 3))
        return torch.cat([1 - logit.sigmoid(), logit.sigmoid()], 1)[:, :, None]

    image = torch.full((2, 1, 6, 6), 0.56)
    objective = label_loss(predict, torch.ones((2, 1), dtype=torch.int64))
    inside = ball(image, eps=0.1)
    useless = evaluate(objective, pgd(objective, inside, steps=5, generator=None)).value
    found = evaluate(objective, square(objective, inside, steps=40, generator=generator)).value
    torch.testing.assert_close(useless, evaluate(objective, image).value)
    assert bool((found > 2 * useless).all())


def test_more_queries_never_help_the_defender(small_network, generator: torch.Generator) -> None:
    predict = small_network(2)
    image = torch.rand((2, 1, 8, 8), generator=generator)
    objective = label_loss(predict, predict(image).argmax(1))
    seen = []

    def watched(x):
        value = objective(x)
        seen.append(value)
        return value

    final = square(watched, ball(image, eps=0.05), steps=30, generator=generator)
    best = torch.stack(seen).amax(0)
    torch.testing.assert_close(evaluate(objective, final).value, best)
