"""Honest models pass the gates; models that hide their gradient trip them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from penumbra.robust.ball import ball
from penumbra.robust.gates import Gate, MaskedGradients, masking_gates, require
from penumbra.robust.objective import label_loss
from penumbra.robust.suite import failure

Predict = Callable[[Tensor], Tensor]


def verdicts(predict: Predict, image: Tensor, labels: Tensor) -> list[Gate]:
    def lost(x: Tensor) -> Tensor:
        with torch.no_grad():
            return failure(predict(x), labels)

    return masking_gates(
        label_loss(predict, labels),
        lost,
        ball(image, eps=0.05),
        steps=8,
        generator=torch.Generator().manual_seed(0),
        destroyer=label_loss(predict, labels, weighting="balanced"),
    )


HUGE = "a huge eps destroys the model"


def small_lesion(x: Tensor) -> Tensor:
    """Probabilities of a blurred bright spot: honest, and 98 % of every image is background."""
    brightness = nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return torch.cat([-30 * (brightness - 0.5), 30 * (brightness - 0.5)], 1).softmax(1)


def spot() -> tuple[Tensor, Tensor]:
    image = torch.full((2, 1, 24, 24), 0.2)
    image[:, :, 10:13, 10:13] = 0.9
    return image, small_lesion(image).argmax(1)


def test_an_honest_model_of_a_small_structure_is_destroyed() -> None:
    image, labels = spot()
    assert 0 < float((labels > 0).float().mean()) < 0.02
    assert HUGE not in failed(verdicts(small_lesion, image, labels))


@pytest.mark.parametrize("levels", [4, 10])
def test_a_masked_model_of_a_small_structure_is_not(levels: int) -> None:
    def quantised(x: Tensor) -> Tensor:
        return small_lesion((x * levels).round() / levels)

    image, _ = spot()
    gates = verdicts(quantised, image, quantised(image).argmax(1))
    assert {HUGE, "gradients exist"} <= failed(gates)


def test_an_attack_that_fresh_draws_undo_is_caught(generator: torch.Generator) -> None:
    # Any change fools the draws that were attacked, none fools the others.
    image, labels = spot()
    around = ball(image, eps=0.05)

    def lost(x: Tensor) -> Tensor:
        return (x != image).flatten(1).any(1).float()

    def fresh(x: Tensor) -> Tensor:
        return torch.zeros(len(x))

    loss = label_loss(small_lesion, labels)
    gates = masking_gates(loss, lost, around, steps=2, generator=generator, fresh=fresh)
    assert "fresh draws change nothing" in failed(gates)


@pytest.fixture
def honest(small_network) -> Predict:
    return small_network(2)


@pytest.fixture
def image(generator: torch.Generator) -> Tensor:
    return torch.rand((3, 1, 8, 8), generator=generator)


def failed(gates: list[Gate]) -> set[str]:
    return {gate.name for gate in gates if not gate.passed}


def test_an_honest_model_passes_every_gate(honest: Predict, image: Tensor) -> None:
    gates = verdicts(honest, image, honest(image).argmax(1))
    assert failed(gates) == set()
    assert len(gates) == 8
    require(gates)


def test_a_quantised_input_is_caught(honest: Predict, image: Tensor) -> None:
    def quantised(x: Tensor) -> Tensor:
        return honest((x * 20).round() / 20)

    gates = verdicts(quantised, image, quantised(image).argmax(1))
    assert "gradients exist" in failed(gates)
    assert "white box beats black box" in failed(gates)
    with pytest.raises(MaskedGradients, match="3 of 3 images have no usable gradient"):
        require(gates)


def test_saturated_probabilities_are_caught(honest: Predict, image: Tensor) -> None:
    # Logits multiplied by 1e5: float32 probabilities are exactly 0 or 1, their gradient 0.
    def saturated(x: Tensor) -> Tensor:
        return (1e5 * honest(x).log()).softmax(1)

    gates = verdicts(saturated, image, saturated(image).argmax(1))
    with pytest.raises(MaskedGradients):
        require(gates)


def test_a_wrong_gradient_is_caught(honest: Predict, image: Tensor) -> None:
    class Backwards(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, upstream):
            return -upstream

    def liar(x: Tensor) -> Tensor:
        return honest(Backwards.apply(x))

    gates = verdicts(liar, image, liar(image).argmax(1))
    assert "the gradient tells the truth" in failed(gates)


def test_a_model_that_answers_at_random_under_attack_is_caught(
    honest: Predict, image: Tensor
) -> None:
    chance = torch.Generator().manual_seed(3)

    def noisy(x: Tensor) -> Tensor:
        return honest(x + 3 * torch.randn(1, generator=chance))

    labels = honest(image).argmax(1)
    with pytest.raises(MaskedGradients):
        require(verdicts(noisy, image, labels))


def test_the_error_lists_only_what_failed() -> None:
    gates = [Gate("good", True, "fine"), Gate("bad", False, "0.9 over 0.1")]
    with pytest.raises(MaskedGradients, match=r"bad: 0\.9 over 0\.1") as caught:
        require(gates)
    assert "good" not in str(caught.value)
