"""The same model under attack and under graded shifts: one probe image per test case."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from penumbra.assess.probes import probes, score, spread, undisturbed
from penumbra.augment import families, shift, to_display
from penumbra.bayes import Bank, bank, to_probabilities
from penumbra.bayes.uncertainty import decompose
from penumbra.config import Config
from penumbra.data.store import Store
from penumbra.evaluate.findings import Findings, score_findings, score_uncertainty
from penumbra.evaluate.protocol import Row, row
from penumbra.evaluate.statistics import bootstrap
from penumbra.memory import keep_freed
from penumbra.robust.ladder import Ladder, Method
from penumbra.robust.objective import Predict
from penumbra.robust.shift import Shift, degradation, suite
from penumbra.robust.suite import Batch, Condition, Plan, Robustness, robustness
from penumbra.robust.uncertainty import Draws
from penumbra.trained import Trained
from penumbra.types import Task

METHODS: tuple[Method, ...] = ("noise", "fgsm", "pgd", "apgd")
GATED = 2
"""Segmented probes that the gates run on; of radiographs as many as an AUC wants."""

FINDINGS_GATED = 16

VOLUME = 5
"""Axes of a batch of volumes."""


@dataclass(frozen=True)
class Hardship:
    """Rows of ``metrics.json``, series for the plots, and whether the attacks can be believed."""

    rows: list[Row]
    series: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    """What every probe scored in every condition, for paired comparisons of models."""


@dataclass(frozen=True)
class Subject:
    """Who is attacked: the draws of a model, other draws of the same, and its mean weights."""

    draws: Draws
    fresh: Draws | None = None
    surrogate: Predict | None = None


def hardship(model: Trained, store: Store, indices: list[int]) -> Hardship:
    """Clean, attacked and shifted accuracy of some test cases, with the masking gates."""
    settings = model.config.evaluate
    if not settings.attack_cases:
        return Hardship([], [], [], [])
    plan = planned(model.config)
    subject = subject_of(model, draws=settings.attack_draws)
    return attack(subject, model.config, model.task, store, indices, plan)


def planned(config: Config, ladder: Ladder | None = None) -> Plan:
    """The plan that a run's settings ask for; families held out of training are told apart."""
    settings, names = config.evaluate, families(config.modality)
    seen = set(names) - set(config.train.held_out)
    return Plan(
        eps=settings.attack_eps,
        ladder=ladder or Ladder(methods=METHODS, steps=settings.attack_steps),
        shifts=tuple(suite(names, seen=seen, severities=settings.severities)),
        gates_eps=max(settings.attack_eps, default=0.0),
        seed=config.seed,
    )


def subject_of(model: Trained, *, draws: int) -> Subject:
    """A trained model as the attacker sees it."""
    field = "segmentation" if model.task.classes else "findings"
    place = next(model.network.parameters()).device

    def drawn(seed: int) -> Draws:
        generator = torch.Generator().manual_seed(seed)
        return _stacked(bank(model.network, draws=draws, generator=generator), field, place)

    def mean_weights(image: Tensor) -> Tensor:
        output = getattr(model.network(image.to(place)), field).cpu()
        return output.softmax(1) if model.task.classes else output.sigmoid()

    seed = model.config.seed
    return Subject(drawn(seed + 2), drawn(seed + 3), mean_weights)


def attack(
    subject: Subject,
    config: Config,
    task: Task,
    store: Store,
    indices: list[int],
    plan: Plan,
) -> Hardship:
    """One probe of each of the chosen cases through a plan."""
    keep_freed()
    chosen = spread(indices, config.evaluate.attack_cases)
    spacing = store[chosen[0]].spacing_mm[: config.data.dim]
    plan = replace(plan, gates_images=GATED if task.classes else FINDINGS_GATED)
    result = robustness(
        subject.draws,
        undisturbed(probes(store, chosen, config, task)),
        plan=plan,
        display=lambda image: to_display(
            image, modality=config.modality, window_hu=config.data.window_hu
        ),
        shift=_shifter(config, spacing),
        surrogate=subject.surrogate,
        fresh=subject.fresh,
        score=lambda draws, y: score(draws, y, task, spacing) if task.classes else {},
    )
    patients = [store.cases[i].patient for i in chosen]
    rows = [_rows(each, patients, task, config) for each in result.conditions]
    series = [_point(c, r) for c, each in zip(result.conditions, rows, strict=True) for r in each]
    listed = [_listed(each, patients, task) for each in result.conditions]
    flat = [r for each in rows for r in each] + _degradations(result, rows)
    return Hardship(flat, series, _gates(result), listed)


def _stacked(drawn: Bank, field: str, place: torch.device) -> Draws:
    """The attack itself stays on the CPU; the network works where it is.

    The encoder runs once for all draws. Of a volume, a gradient works each draw out again instead
    of holding the features of all (a fifth to a third slower; memory stays flat in the draws).
    """

    def draws(image: Tensor) -> Tensor:
        encoded = drawn.encode(image.to(place))

        def answer(t: int) -> Tensor:
            return cast(Tensor, getattr(to_probabilities(drawn.decode(encoded, t)), field))

        volume = image.requires_grad and image.dim() == VOLUME
        numbers = range(len(drawn))
        if volume:
            return torch.stack([checkpoint(answer, t, use_reentrant=False) for t in numbers]).cpu()
        return torch.stack([answer(t) for t in numbers]).cpu()

    return draws


def _shifter(
    config: Config, spacing_mm: tuple[float, ...]
) -> Callable[[Batch, Shift, torch.Generator], Tensor]:
    def shifted(batch: Batch, cell: Shift, chance: torch.Generator) -> Tensor:
        return shift(
            batch["image"],
            family=cell.family,
            severity=cell.severity,
            modality=config.modality,
            generator=chance,
            body=batch["body"],
            spacing_mm=spacing_mm,
        )

    return shifted


def _rows(condition: Condition, patients: list[str], task: Task, config: Config) -> list[Row]:
    """The task's figure of a condition first, then calibration and error detection."""
    part = "test" if condition.kind == "clean" else f"test/{_title(condition)}"
    samples, seed = config.evaluate.bootstrap, config.seed
    if task.classes:
        return [
            row(
                part,
                f"probe_{name}",
                "mean" if name == "dice" else "all",
                bootstrap(values, patients, samples=samples, seed=seed),
            )
            for name, values in condition.values.items()
            if not np.isnan(values).all()
        ]
    uncertainty = decompose(torch.cat(condition.draws, 1), "bernoulli")
    found = Findings(
        probability=uncertainty.probability.numpy(),
        labels=torch.cat(condition.labels).numpy(),
        names=task.findings,
        patients=patients,
    )
    rows = score_findings(found, part=part, samples=samples, seed=seed)
    entropy = {"entropy": uncertainty.entropy_nats.numpy()}
    rows += score_uncertainty(found, entropy, part=part, samples=samples, seed=seed)
    named = {"auroc": "auroc", "ece": "ece", "error_auroc/entropy": "error_auroc"}
    return [
        replace(r, metric=f"probe_{named[r.metric]}")
        for r in rows
        if r.metric in named and r.label == "mean"
    ]


def _degradations(result: Robustness, rows: Sequence[Sequence[Row]]) -> list[Row]:
    """What the shift suite costs on average: families seen in training, and those held out."""
    clean = rows[0][0]
    found = []
    for seen in (True, False):
        cells = {
            Shift(c.name, int(c.level), seen): each[0].value
            for c, each in zip(result.conditions, rows, strict=True)
            if c.kind == "shift" and c.seen == seen and math.isfinite(each[0].value)
        }
        if not cells or not math.isfinite(clean.value):
            continue
        mean, relative, _, _ = degradation(clean.value, cells)
        part = f"test/shifts {'seen' if seen else 'held out'}"
        for name, value in (("mean_degradation", mean), ("relative_robustness", relative)):
            found.append(Row(part, name, clean.metric, value, math.nan, math.nan, clean.n))
    return found


def _title(condition: Condition) -> str:
    if condition.kind == "attack":
        return f"{condition.name} eps={condition.level:.4f}"
    return f"{condition.name} severity={condition.level:.0f}"


def _listed(condition: Condition, patients: list[str], task: Task) -> dict[str, Any]:
    listed: dict[str, Any] = {
        "kind": condition.kind,
        "name": condition.name,
        "level": condition.level,
        "seen": condition.seen,
        "patients": patients,
    }
    if task.classes:
        return listed | {name: _finite(values) for name, values in condition.values.items()}
    uncertainty = decompose(torch.cat(condition.draws, 1), "bernoulli")
    return listed | {
        "probability": uncertainty.probability.tolist(),
        "label": [_finite(labels) for labels in torch.cat(condition.labels).tolist()],
    }


def _finite(values: Sequence[float]) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in values]


def _point(condition: Condition, each: Row) -> dict[str, Any]:
    """A row as the report plots it: an attack at an eps, or a family at a severity."""
    kind = "attack" if condition.kind == "attack" else "family"
    value = each.value if np.isfinite(each.value) else None
    return {
        kind: condition.name,
        "level": condition.level,
        "metric": each.metric,
        "value": value,
        "seen": condition.seen,
    }


def _gates(result: Robustness) -> list[dict[str, Any]]:
    return [{"name": g.name, "passed": g.passed, "detail": g.detail} for g in result.gates]
