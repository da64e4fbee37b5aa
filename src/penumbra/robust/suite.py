"""The robustness of any predict function: accuracy against eps and severity, gates, verdicts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from penumbra.robust.ball import ball
from penumbra.robust.gates import Gate, masking_gates
from penumbra.robust.ladder import Ladder, climb, wrong_share
from penumbra.robust.objective import Predict, label_loss
from penumbra.robust.shift import Shift
from penumbra.types import IGNORE

Batch = Mapping[str, Tensor]
"""``image`` (stored units) and ``segmentation`` or ``findings``; ``valid`` and ``body`` if known.
For segmentation one batch is one case: all of its slices, or the volume."""

Score = Callable[[Tensor, Tensor], Mapping[str, float]]
"""Probabilities and labels of one case -> metric name -> value."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done to the model.

    Attributes:
        eps: radii in display units; every method of the ladder runs at each.
        shifts: cells of the severity suite.
        gates_eps: the gates run on the first images at this radius; 0: no gates.
    """

    eps: tuple[float, ...] = (1 / 255, 4 / 255)
    ladder: Ladder = field(default_factory=Ladder)
    shifts: tuple[Shift, ...] = ()
    gates_eps: float = 4 / 255
    seed: int = 0


@dataclass(slots=True)
class Condition:
    """Every case under one attack or shift.

    Attributes:
        name: the attack (``worst``: the worst of all per image), or the shift's family.
        level: eps in display units, or the severity.
        values: metric -> one value per case, in the order of the batches.
        probability: findings only, ``[n f]``, for metrics over the whole cohort such as the AUC.
    """

    kind: Literal["clean", "attack", "shift"]
    name: str
    level: float
    seen: bool = False
    values: dict[str, list[float]] = field(default_factory=dict)
    probability: list[Tensor] = field(default_factory=list)
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
    predict: Predict,
    batches: Iterable[Batch],
    *,
    plan: Plan,
    display: Callable[[Tensor], Tensor],
    shift: Callable[[Batch, Shift, torch.Generator], Tensor] | None = None,
    surrogate: Predict | None = None,
    score: Score | None = None,
) -> Robustness:
    """Attack and shift every case, score it, and check that the attacks can be believed.

    Args:
        predict: images in display units -> averaged probabilities, differentiably.
        display: stored units -> display units (``augment.display.to_display``).
        shift: a batch, a cell and a generator -> its image in stored units as shifted.
        surrogate: the model whose gradients the ``transfer`` attack uses (the mean weights).
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
            gates = _gates(predict, case, plan, generator)
        cells = _clean(predict, case, plan)
        cells += _attacks(predict, surrogate, case, plan, generator)
        if shift is not None:
            for planned in plan.shifts:
                shown = display(shift(batch, planned, generator))
                cells.append((_named(planned), _predicted(predict, shown, plan)))
        for cell, probability in cells:
            kept = conditions.setdefault((cell.kind, cell.name, cell.level), cell)
            _add(kept, probability, case.labels, score or default_score)
    if not conditions:
        raise ValueError("there is no case to attack")
    return Robustness(tuple(conditions.values()), tuple(gates))


def default_score(probability: Tensor, labels: Tensor) -> dict[str, float]:
    """Mean foreground Dice of the classes in the reference, or accuracy over stated findings.

    Example:
        >>> p = torch.tensor([[[0.1, 0.8], [0.9, 0.2]]])  # predicts class 1, class 0
        >>> default_score(p, torch.tensor([[1, 1]]))["dice"]
        0.6666666666666666
    """
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

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        valid = self.batch.get("valid")
        for start in range(0, len(self.image), size):
            part = slice(start, start + size)
            yield self.image[part], self.labels[part], None if valid is None else valid[part]


def _labels(batch: Batch) -> Tensor:
    return batch["segmentation"] if "segmentation" in batch else batch["findings"]


def _clean(predict: Predict, case: _Case, plan: Plan) -> Answers:
    return [(Condition("clean", "clean", 0.0), _predicted(predict, case.image, plan))]


def _attacks(
    predict: Predict, surrogate: Predict | None, case: _Case, plan: Plan, chance: torch.Generator
) -> Answers:
    answers: Answers = []
    for eps in plan.eps:
        parts: dict[str, list[Tensor]] = {}
        for image, labels, valid in case.chunks(plan.ladder.chunk):
            around = ball(image, eps=eps, norm=plan.ladder.norm, valid=valid)
            made = climb(
                predict, around, labels, ladder=plan.ladder, surrogate=surrogate, generator=chance
            )
            for name, probability in made.items():
                parts.setdefault(name, []).append(probability)
        answers += [(Condition("attack", name, eps), torch.cat(p)) for name, p in parts.items()]
    return answers


def _named(cell: Shift) -> Condition:
    return Condition("shift", cell.family, float(cell.severity), seen=cell.seen)


def _predicted(predict: Predict, image: Tensor, plan: Plan) -> Tensor:
    with torch.no_grad():
        return torch.cat([predict(part) for part in image.split(plan.ladder.chunk)])


def _gates(predict: Predict, case: _Case, plan: Plan, chance: torch.Generator) -> list[Gate]:
    image, labels, valid = next(case.chunks(plan.ladder.chunk))

    def wrong(x: Tensor) -> Tensor:
        with torch.no_grad():
            return wrong_share(predict(x), labels)

    around = ball(image, eps=plan.gates_eps, norm=plan.ladder.norm, valid=valid)
    objective = label_loss(predict, labels)
    return masking_gates(objective, wrong, around, steps=plan.ladder.steps, generator=chance)


def _add(cell: Condition, probability: Tensor, labels: Tensor, score: Score) -> None:
    for metric, value in score(probability, labels).items():
        cell.values.setdefault(metric, []).append(float(value))
    if labels.is_floating_point():
        cell.probability.append(probability)
        cell.labels.append(labels)
