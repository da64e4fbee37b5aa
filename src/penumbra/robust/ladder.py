"""Every attack of a plan on one batch: what each makes of it, and the worst per image."""

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
from penumbra.robust.stochastic import expectation
from penumbra.robust.uncertainty import Draws, uncertainty_loss
from penumbra.types import IGNORE

Method = Literal[
    "noise",
    "fgsm",
    "pgd",
    "pgd-20",
    "pgd-100",
    "pgd-balanced",
    "pgd-cosine",
    "apgd",
    "square",
    "transfer",
    "hide",
    "raise",
]
"""``hide`` and ``raise`` attack the epistemic uncertainty and keep the labels."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Which attacks, how hard.

    Attributes:
        steps: of each gradient attack; APGD gets twice, Square ten times as many.
        restarts: starts of PGD and of the transfer attack; the first is the image itself.
        samples: calls behind each gradient (expectation over transformation), for a predict
            function that draws anew on every call; a bank of fixed draws needs one.
        chunk_voxels: of the images attacked at once, but always one image: 16 slices of 64 x 64.
            More of them at once make feature maps so large that they are mapped anew for every
            step; fewer leave a small network waiting for its calls.
    """

    methods: tuple[Method, ...] = ("noise", "fgsm", "pgd", "pgd-balanced", "apgd")
    norm: Norm = "linf"
    steps: int = 10
    restarts: int = 1
    samples: int = 1
    chunk_voxels: int = 2**16

    def at_once(self, image: Tensor) -> int:
        """How many images of this size are attacked at once.

        Example:
            >>> Ladder().at_once(torch.zeros(100, 3, 128, 128))
            4
        """
        return max(1, self.chunk_voxels // image[0, 0].numel())


def climb(
    draws: Draws,
    around: Ball,
    labels: Tensor,
    *,
    ladder: Ladder,
    surrogate: Predict | None = None,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The images that each method makes of one batch, and ``worst``.

    ``worst`` takes, per image, the most damaging of all methods and of the clean image (an
    attacker may also do nothing). ``transfer`` attacks ``surrogate`` and is judged on ``draws``.

    Raises:
        ValueError: ``transfer`` without a surrogate.
    """
    if "transfer" in ladder.methods and surrogate is None:
        raise ValueError("the transfer attack needs a surrogate model's predict function")

    def judged(image: Tensor) -> Attacked:
        with torch.no_grad():
            return Attacked(image, damage(draws(image).mean(0), labels))

    best, images = judged(around.image), {}
    for method in ladder.methods:
        model = surrogate if method == "transfer" and surrogate else mean_of(draws)
        match method:
            case "hide" | "raise":
                made = iter([_unsure(draws, around, method, ladder, generator)])
            case _:
                made = run_attack(method, model, labels, around, ladder, generator)
        strongest = worst(judged(image) for image in made)
        images[method] = strongest.image
        best = worst([best, strongest])
    return images | {"worst": best.image}


def mean_of(draws: Draws) -> Predict:
    """The averaged prediction, which is what a reader sees and an attacker attacks."""
    return lambda image: draws(image).mean(0)


def damage(probability: Tensor, labels: Tensor) -> Tensor:
    """How wrong each image is answered ``[b]``: what the worst case is chosen by.

    Segmentation: the share of wrong voxels plus ``lost_dice``; findings: the cross-entropy.
    """
    if labels.is_floating_point():
        return cross_entropy(probability, labels)
    return wrong_share(probability, labels) + lost_dice(probability, labels)


def lost_dice(probability: Tensor, labels: Tensor) -> Tensor:
    """Mean of 1 - Dice over the foreground classes that each image's reference holds ``[b]``.

    0 where the reference holds none.
    """
    counted = (labels != IGNORE).flatten(1)
    chosen, reference = probability.argmax(1).flatten(1), labels.flatten(1)
    lost, present = torch.zeros(2, len(labels), device=labels.device)
    for c in range(1, probability.shape[1]):
        predicted, real = (chosen == c) & counted, reference == c
        dice = 2 * (predicted & real).sum(1) / (predicted.sum(1) + real.sum(1)).clamp(min=1)
        lost = lost + (1 - dice) * real.any(1)
        present = present + real.any(1)
    return lost / present.clamp(min=1)


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
    """The images that one attack on the labels makes, one per restart.

    Raises:
        ValueError: the method attacks the uncertainty.
    """

    def objective(weighting: Weighting = "plain") -> Objective:
        loss = label_loss(predict, labels, weighting=weighting)
        return expectation(loss, samples=ladder.samples) if ladder.samples > 1 else loss

    match method:
        case "noise":
            yield noise(objective(), around, steps=4, generator=generator)
        case "fgsm":
            yield fgsm(objective(), around, generator=None)
        case "pgd" | "pgd-20" | "pgd-100" | "transfer":
            steps = {"pgd-20": 20, "pgd-100": 100}.get(method, ladder.steps)
            for start in range(ladder.restarts):
                chance = generator if start else None
                yield pgd(objective(), around, steps=steps, generator=chance)
        case "pgd-balanced":
            yield pgd(objective("balanced"), around, steps=ladder.steps, generator=generator)
        case "pgd-cosine":
            loss = objective("cosine")
            yield pgd(loss, around, steps=ladder.steps, generator=generator, keep="last")
        case "apgd":
            yield apgd(objective(), around, steps=2 * ladder.steps, generator=generator)
        case "square":
            yield square(objective(), around, steps=10 * ladder.steps, generator=generator)
        case _:
            raise ValueError(f"{method} attacks the uncertainty, not the labels")


def _unsure(
    draws: Draws,
    around: Ball,
    direction: Literal["hide", "raise"],
    ladder: Ladder,
    generator: torch.Generator,
) -> Tensor:
    """The image under an attack on the epistemic uncertainty that keeps the clean labels."""

    def per_class(image: Tensor) -> Tensor:
        p = draws(image)
        return p if image.ndim + 1 == p.ndim else torch.stack([1 - p, p], 2)

    with torch.no_grad():
        kept = per_class(around.image).mean(0).argmax(1)
    valid = around.mask[:, 0] > 0 if kept.ndim == around.image.ndim - 1 else None
    objective = uncertainty_loss(per_class, kept, direction=direction, valid=valid)
    return pgd(objective, around, steps=ladder.steps, generator=generator)
