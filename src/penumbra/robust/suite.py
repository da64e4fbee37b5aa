"""The robustness of any predict function: accuracy against eps and severity, gates, verdicts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from penumbra.robust.ball import ball
from penumbra.robust.gates import Gate, masking_gates
from penumbra.robust.ladder import Ladder, climb, lost_dice, mean_of, wrong_share
from penumbra.robust.objective import Predict, label_loss
from penumbra.robust.shift import Shift
from penumbra.robust.uncertainty import Draws
from penumbra.types import IGNORE

Batch = Mapping[str, Tensor]
"""``image`` (stored units) and ``segmentation`` or ``findings``; ``valid`` and ``body`` if known;
``case`` numbers the case of each image (by default the batch is one: its slices, or the volume)."""

Score = Callable[[Tensor, Tensor], Mapping[str, float]]
"""The draws' probabilities ``[t b c *space]`` and the labels of one case -> metric -> value."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to the model.

    Attributes:
        eps: radii in display units; every method of the ladder runs at each.
        shifts: cells of the severity suite.
        gates_eps: the gates run on the first images at this radius; 0: no gates.
        gates_images: how many; a gate costs some 20 times ``steps`` passes of each.
    """

    eps: tuple[float, ...] = (1 / 255, 4 / 255)
    ladder: Ladder = field(default_factory=Ladder)
    shifts: tuple[Shift, ...] = ()
    gates_eps: float = 4 / 255
    gates_images: int = 16
    seed: int = 0


@dataclass(slots=True)
class Condition:
    """Every case under one attack or shift.

    Attributes:
        name: the attack (``worst``: the worst of all per image), or the shift's family.
        level: eps in display units, or the severity.
        values: metric -> one value per case, in the order of the batches.
        draws: findings only, ``[t n f]``, for metrics over the whole cohort such as the AUC.
    """

    kind: Literal["clean", "attack", "shift"]
    name: str
    level: float
    seen: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)
    draws: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def mean(self, metric: str) -> float:
        """The mean over cases that have the metric (NaN values are left out)."""
        found = torch.tensor(self.values.get(metric, []), dtype=torch.float64)
        return float(found.nanmean())


@dataclass(frozen=True, slots=True)
class Robustness:
    """All conditions, the clean one first, and the gates' verdicts."""

    conditions: tuple[Condition, ...]
    gates: tuple[Gate, ...]

    @property
    def trustworthy(self) -> bool:
        """Every gate held; otherwise the numbers overstate the robustness."""
        return all(gate.passed for gate in self.gates)

    def rows(self) -> list[dict[str, str | float | bool]]:
        """One flat record per condition and metric, for tables and curves over ``level``."""
        return [
            {
                "kind": cell.kind,
                "name": cell.name,
                "level": cell.level,
                "seen": cell.seen,
                "metric": metric,
                "mean": cell.mean(metric),
                "n": float(sum(value == value for value in values)),  # NaN: no such structure
            }
            for cell in self.conditions
            for metric, values in cell.values.items()
        ]


def robustness(
    draws: Draws,
    batches: Iterable[Batch],
    *,
    plan: Plan,
    display: Callable[[Tensor], Tensor],
    shift: Callable[[Batch, Shift, torch.Generator], Tensor] | None = None,
    surrogate: Predict | None = None,
    fresh: Draws | None = None,
    score: Score | None = None,
) -> Robustness:
    """Attack and shift every case, score it, and check that the attacks can be believed.

    Args:
        draws: images in display units -> every draw's probabilities ``[t b c *space]`` or
            ``[t b f]``, differentiably; a deterministic model has one. Their mean is attacked.
        display: stored units -> display units (``augment.display.to_display``).
        shift: a batch, a cell and a generator -> its image in stored units as shifted.
        surrogate: the model whose gradients the ``transfer`` attack uses (the mean weights).
        fresh: the same model with other draws, for the gate that scores the attack again.
        score: per case; by default ``dice`` (mean over foreground classes in the reference) or
            ``accuracy`` at 0.5 over stated findings.

    ``worst`` chooses per image among all attacks of one eps, by the damage to the answer: wrong
    voxels and lost Dice, or the cross-entropy of findings.

    Raises:
        ValueError: ``transfer`` without a surrogate, shifts without ``shift``, or no batch.
    """
    if plan.shifts and shift is None:
        raise ValueError(f"{len(plan.shifts)} shifts are planned, but no shift function is given")
    conditions: dict[tuple[str, str, float], Condition] = {}
    gates: list[Gate] = []
    for number, batch in enumerate(batches):
        generator = torch.Generator().manual_seed(plan.seed + number)
        case = _Case(batch, display(batch["image"]), _labels(batch))
        if number == 0 and plan.gates_eps:
            gates = _gates(draws, fresh, case, plan, generator)
        cells = [(Condition("clean", "clean", 0.0), _predicted(draws, case.image, plan))]
        cells += _attacks(draws, surrogate, case, plan, generator)
        if shift is not None:
            for planned in plan.shifts:
                shown = display(shift(batch, planned, generator))
                cells.append((_named(planned), _predicted(draws, shown, plan)))
        for cell, answers in cells:
            kept = conditions.setdefault((cell.kind, cell.name, cell.level), cell)
            _add(kept, answers, case, score or default_score)
    if not conditions:
        raise ValueError("there is no case to attack")
    return Robustness(tuple(conditions.values()), tuple(gates))


def default_score(draws: Tensor, labels: Tensor) -> dict[str, float]:
    """Mean foreground Dice of the classes in the reference, or accuracy over stated findings.

    Example:
        >>> p = torch.tensor([[[[0.1, 0.8], [0.9, 0.2]]]])  # predicts class 1, class 0
        >>> default_score(p, torch.tensor([[1, 1]]))["dice"]
        0.6666666666666666
    """
    probability = draws.mean(0)
    if labels.is_floating_point():
        stated = labels >= 0
        right = (probability > 0.5) == (labels > 0.5)
        return {"accuracy": float(right[stated].double().mean())}
    chosen, counted = probability.argmax(1), labels != IGNORE
    dice = []
    for c in range(1, probability.shape[1]):
        predicted, reference = (chosen == c) & counted, labels == c
        if reference.any():
            both = float((predicted & reference).sum())
            dice.append(2 * both / float(predicted.sum() + reference.sum()))
    return {"dice": sum(dice) / len(dice) if dice else float("nan")}


Answers = list[tuple[Condition, Tensor]]


@dataclass(frozen=True, slots=True)
class _Case:
    batch: Batch
    image: Tensor
    labels: Tensor

    def groups(self) -> list[Tensor]:
        """The images of each case, in the order of their first one."""
        case = self.batch.get("case", torch.zeros(len(self.image), dtype=torch.int64))
        return [(case == name).nonzero()[:, 0] for name in dict.fromkeys(case.tolist())]

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        valid = self.batch.get("valid")
        for start in range(0, len(self.image), size):
            part = slice(start, start + size)
            yield self.image[part], self.labels[part], None if valid is None else valid[part]


def _labels(batch: Batch) -> Tensor:
    return batch["segmentation"] if "segmentation" in batch else batch["findings"]


def _attacks(
    draws: Draws, surrogate: Predict | None, case: _Case, plan: Plan, chance: torch.Generator
) -> Answers:
    answers: Answers = []
    for eps in plan.eps:
        parts: dict[str, list[Tensor]] = {}
        for image, labels, valid in case.chunks(plan.ladder.at_once(case.image)):
            around = ball(image, eps=eps, norm=plan.ladder.norm, valid=valid)
            made = climb(
                draws, around, labels, ladder=plan.ladder, surrogate=surrogate, generator=chance
            )
            for name, attacked in made.items():
                parts.setdefault(name, []).append(_predicted(draws, attacked, plan))
        answers += [(Condition("attack", name, eps), torch.cat(p, 1)) for name, p in parts.items()]
    return answers


def _named(cell: Shift) -> Condition:
    return Condition("shift", cell.family, float(cell.severity), seen=cell.seen)


def _predicted(draws: Draws, image: Tensor, plan: Plan) -> Tensor:
    with torch.no_grad():
        return torch.cat([draws(part) for part in image.split(plan.ladder.at_once(image))], 1)


def _gates(
    draws: Draws, fresh: Draws | None, case: _Case, plan: Plan, chance: torch.Generator
) -> list[Gate]:
    image, labels, valid = next(case.chunks(plan.gates_images))
    stated = (labels >= 0).flatten(1).any(1)  # an image without a label has no loss to attack
    if not bool(stated.any()):
        return []
    image, labels = image[stated], labels[stated]
    valid = None if valid is None else valid[stated]

    def failure_of(model: Draws) -> Callable[[Tensor], Tensor]:
        def of(x: Tensor) -> Tensor:
            with torch.no_grad():
                return failure(model(x).mean(0), labels)

        return of

    predict = mean_of(draws)
    return masking_gates(
        label_loss(predict, labels),
        failure_of(draws),
        ball(image, eps=plan.gates_eps, norm=plan.ladder.norm, valid=valid),
        steps=plan.ladder.steps,
        generator=chance,
        destroyer=label_loss(predict, labels, weighting="balanced"),
        fresh=None if fresh is None else failure_of(fresh),
    )


def failure(probability: Tensor, labels: Tensor) -> Tensor:
    """What the gates watch, 0..1: 1 - Dice of each image's structures, or 1 - AUC of the batch.

    The AUC is over all pairs of an image that has a finding and one that has not (never over two
    findings: their base rates differ, whatever the image). Where there is no such structure or
    pair, the share of what is answered wrongly.

    Example:
        >>> failure(torch.tensor([[0.9, 0.2], [0.5, 0.1]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        tensor(1.)
    """
    if not labels.is_floating_point():
        present = (labels > 0).flatten(1).any(1)
        wrong = wrong_share(probability, labels)
        return torch.where(present, lost_dice(probability, labels), wrong)
    pairs = (labels == 0)[:, None] & (labels == 1)[None]
    if not bool(pairs.any()):
        return wrong_share(probability, labels)
    gap = probability[:, None] - probability[None]
    return (0.5 * (gap.sign() + 1))[pairs].mean()


def _add(cell: Condition, draws: Tensor, case: _Case, score: Score) -> None:
    if case.labels.is_floating_point():
        cell.draws.append(draws)
        cell.labels.append(case.labels)
    for images in case.groups():
        for metric, value in score(draws[:, images], case.labels[images]).items():
            cell.values.setdefault(metric, []).append(float(value))
