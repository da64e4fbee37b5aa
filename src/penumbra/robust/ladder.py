"""Every attack of a plan on one case: what each makes of it, and the worst per image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from penumbra.robust.attack import Attacked, fgsm, noise, pgd, worst
from penumbra.robust.autopgd import apgd
from penumbra.robust.ball import Ball, Norm
from penumbra.robust.blackbox import square
from penumbra.robust.objective import Objective, Predict, Weighting, cross_entropy, label_loss
from penumbra.types import IGNORE

Method = Literal["noise", "fgsm", "pgd", "pgd-balanced", "pgd-cosine", "apgd", "square", "transfer"]


@dataclass(frozen=True, slots=True)
class Ladder:
    """Which attacks, how hard.

    Attributes:
        steps: of each gradient attack; APGD gets twice, Square ten times as many.
        restarts: starts of PGD and of the transfer attack; the first is the image itself.
        chunk: images attacked at once.
    """

    methods: tuple[Method, ...] = ("noise", "fgsm", "pgd", "pgd-balanced", "apgd")
    norm: Norm = "linf"
    steps: int = 10
    restarts: int = 1
    chunk: int = 16


def climb(
    predict: Predict,
    around: Ball,
    labels: Tensor,
    *,
    ladder: Ladder,
    surrogate: Predict | None = None,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The probabilities of one batch under each method, and under ``worst``.

    ``worst`` takes, per image, the most damaging of all methods and of the clean image (an
    attacker may also do nothing). ``transfer`` attacks ``surrogate`` and is scored on ``predict``.

    Raises:
        ValueError: ``transfer`` without a surrogate.
    """
    if "transfer" in ladder.methods and surrogate is None:
        raise ValueError("the transfer attack needs a surrogate model's predict function")
    best = _answer(predict, around.image, labels)
    answers = {}
    for method in ladder.methods:
        attacked_model = surrogate if method == "transfer" and surrogate else predict
        made = run_attack(method, attacked_model, labels, around, ladder, generator)
        answer = worst(_answer(predict, image, labels) for image in made)
        answers[method] = answer.image
        best = worst([best, answer])
    return answers | {"worst": best.image}


def _answer(predict: Predict, image: Tensor, labels: Tensor) -> Attacked:
    """Probabilities with their damage, so that ``worst`` chooses among answers."""
    with torch.no_grad():
        probability = predict(image)
    return Attacked(probability, damage(probability, labels))


def damage(probability: Tensor, labels: Tensor) -> Tensor:
    """How wrong each image is answered ``[b]``: what the worst case is chosen by.

    Segmentation: the share of wrong voxels plus the mean of 1 - Dice over the foreground classes
    that the image's reference holds; findings: the cross-entropy.
    """
    if labels.is_floating_point():
        return cross_entropy(probability, labels)
    counted = (labels != IGNORE).flatten(1)
    chosen, reference = probability.argmax(1).flatten(1), labels.flatten(1)
    lost, present = torch.zeros(2, len(labels), device=labels.device)
    for c in range(1, probability.shape[1]):
        predicted, real = (chosen == c) & counted, reference == c
        dice = 2 * (predicted & real).sum(1) / (predicted.sum(1) + real.sum(1)).clamp(min=1)
        lost = lost + (1 - dice) * real.any(1)
        present = present + real.any(1)
    return wrong_share(probability, labels) + lost / present.clamp(min=1)


def wrong_share(probability: Tensor, labels: Tensor) -> Tensor:
    """Share of the counted voxels, or of the stated findings, that are answered wrongly ``[b]``.

    Example:
        >>> wrong_share(torch.tensor([[0.9, 0.9]]), torch.tensor([[1.0, 0.0]]))
        tensor([0.5000])
    """
    if labels.is_floating_point():
        counted, wrong = labels >= 0, (probability > 0.5) != (labels > 0.5)
    else:
        counted, wrong = labels != IGNORE, probability.argmax(1) != labels
    total = counted.flatten(1).sum(1).clamp(min=1)
    return (wrong & counted).flatten(1).sum(1) / total


def run_attack(
    method: Method,
    predict: Predict,
    labels: Tensor,
    around: Ball,
    ladder: Ladder,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """The images that one method makes, one per restart."""

    def objective(weighting: Weighting = "plain") -> Objective:
        return label_loss(predict, labels, weighting=weighting)

    match method:
        case "noise":
            yield noise(objective(), around, steps=4, generator=generator)
        case "fgsm":
            yield fgsm(objective(), around, generator=None)
        case "pgd" | "transfer":
            for start in range(ladder.restarts):
                chance = generator if start else None
                yield pgd(objective(), around, steps=ladder.steps, generator=chance)
        case "pgd-balanced":
            yield pgd(objective("balanced"), around, steps=ladder.steps, generator=generator)
        case "pgd-cosine":
            loss = objective("cosine")
            yield pgd(loss, around, steps=ladder.steps, generator=generator, keep="last")
        case "apgd":
            yield apgd(objective(), around, steps=2 * ladder.steps, generator=generator)
        case "square":
            yield square(objective(), around, steps=10 * ladder.steps, generator=generator)
