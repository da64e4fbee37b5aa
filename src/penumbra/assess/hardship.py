"""The same model under attack and under graded shifts: one probe image per test case.

A probe is the radiograph, the slice with most foreground, or the patch around it: attacking every
slice of every volume would cost hours and say the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penumbra import progress
from penumbra.augment import families, shift, to_display
from penumbra.bayes import Bank, bank
from penumbra.config import Config
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.evaluate.findings import Findings, score_findings
from penumbra.evaluate.overlap import confusion, dice
from penumbra.evaluate.protocol import Row, row
from penumbra.evaluate.statistics import bootstrap
from penumbra.robust.ladder import Ladder, Method
from penumbra.robust.shift import Shift, suite
from penumbra.robust.suite import Batch, Condition, Plan, Robustness, robustness
from penumbra.trained import Trained
from penumbra.types import Task

DRAWS = 4
"""Draws behind the attacked prediction; the attacker sees all of them (EOT over the posterior)."""

METHODS: tuple[Method, ...] = ("noise", "fgsm", "pgd")


@dataclass(frozen=True)
class Hardship:
    """Rows of ``metrics.json``, series for the plots, and whether the attacks can be believed."""

    rows: list[Row]
    series: list[dict[str, Any]]
    gates: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    """What every probe scored in every condition, for paired comparisons of models."""


def hardship(model: Trained, store: Store, indices: list[int]) -> Hardship:
    """Clean, attacked and shifted accuracy of the first test cases, with the masking gates."""
    config, settings = model.config, model.config.evaluate
    chosen = _spread(indices, settings.attack_cases)
    if not chosen:
        return Hardship([], [], [], [])
    probes = [_probe(store[i], model) for i in chosen]
    generator = torch.Generator().manual_seed(config.seed + 2)
    judge = bank(model.network, draws=min(settings.fixed_draws, DRAWS), generator=generator)
    names = families(config.modality)
    plan = Plan(
        eps=settings.attack_eps,
        ladder=Ladder(methods=METHODS, steps=settings.attack_steps),
        shifts=tuple(suite(names, seen=names, severities=settings.severities)),
        gates_eps=max(settings.attack_eps, default=0.0),
        seed=config.seed,
    )

    def shifted(batch: Batch, cell: Shift, chance: torch.Generator) -> Tensor:
        return shift(
            batch["image"],
            family=cell.family,
            severity=cell.severity,
            modality=config.modality,
            generator=chance,
            body=batch["body"],
            spacing_mm=store[chosen[0]].spacing_mm[: config.data.dim],
        )

    def display(image: Tensor) -> Tensor:
        return to_display(image, modality=config.modality, window_hu=config.data.window_hu)

    result = robustness(
        _predict(judge, model.task),
        _shown(_batched(probes, model.task)),
        plan=plan,
        display=display,
        shift=shifted,
        score=lambda p, y: _dice(p, y, model.task) if model.task.classes else {},
    )
    patients = [store.cases[i].patient for i in chosen]
    rows = [_row(each, patients, model.task, config) for each in result.conditions]
    series = [_point(c, r) for c, r in zip(result.conditions, rows, strict=True)]
    listed = [_listed(each, patients, model.task) for each in result.conditions]
    return Hardship(rows, series, _gates(result), listed)


def _predict(draws: Bank, task: Task) -> Any:
    def predict(image: Tensor) -> Tensor:
        outputs = list(draws.probabilities(image))
        return torch.stack(
            [o.segmentation if task.classes else o.findings for o in outputs]  # type: ignore[misc]
        ).mean(0)

    return predict


def _batched(probes: list[dict[str, Tensor]], task: Task) -> list[dict[str, Tensor]]:
    """Radiographs of one shape are attacked together; a segmented case stays a batch of one."""
    if task.classes or len({probe["image"].shape for probe in probes}) > 1:
        return probes
    return [{key: torch.cat([probe[key] for probe in probes]) for key in probes[0]}]


def _shown(batches: list[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    with progress.bar("attack and shift", len(batches)) as advance:
        for batch in batches:
            yield batch
            advance()


def _dice(probability: Tensor, labels: Tensor, task: Task) -> Mapping[str, float]:
    counts = confusion(
        probability.argmax(1).cpu().numpy(), labels.cpu().numpy(), classes=len(task.classes)
    )
    scores = [dice(counts, members) for members in task.regions.values()]
    defined = [s for s in scores if not np.isnan(s)]
    return {"dice": float(np.mean(defined)) if defined else float("nan")}


def _row(condition: Condition, patients: list[str], task: Task, config: Config) -> Row:
    part = "test" if condition.kind == "clean" else f"test/{_title(condition)}"
    samples, seed = config.evaluate.bootstrap, config.seed
    if task.classes:
        interval = bootstrap(condition.values["dice"], patients, samples=samples, seed=seed)
        return row(part, "probe_dice", "mean", interval)
    found = Findings(
        probability=torch.cat(condition.probability).numpy(),
        labels=torch.cat(condition.labels).numpy(),
        names=task.findings,
        patients=patients,
    )
    rows = score_findings(found, part=part, samples=samples, seed=seed)
    mean = next(r for r in rows if r.metric == "auroc" and r.label == "mean")
    return Row(
        part,
        "probe_auroc",
        "mean",
        mean.value,
        mean.low,
        mean.high,
        mean.n,
        undefined=mean.undefined,
    )


def _title(condition: Condition) -> str:
    if condition.kind == "attack":
        return f"{condition.name} eps={condition.level:.4f}"
    return f"{condition.name} severity={condition.level:.0f}"


def _listed(condition: Condition, patients: list[str], task: Task) -> dict[str, Any]:
    listed: dict[str, Any] = {
        "kind": condition.kind,
        "name": condition.name,
        "level": condition.level,
        "patients": patients,
    }
    if task.classes:
        values = [float(v) for v in condition.values["dice"]]
        return listed | {"dice": [v if np.isfinite(v) else None for v in values]}
    labels = torch.cat(condition.labels).tolist()
    return listed | {
        "probability": torch.cat(condition.probability).tolist(),
        "label": [[y if np.isfinite(y) else None for y in row] for row in labels],
    }


def _point(condition: Condition, each: Row) -> dict[str, Any]:
    """A row as the report plots it: an attack at an eps, or a family at a severity."""
    kind = "family" if condition.kind == "shift" else "attack"
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


def _spread(indices: list[int], count: int) -> list[int]:
    """An even choice over the test cases, so that every site has its share."""
    if count == 0:
        return []
    places = np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).round())
    return [indices[int(place)] for place in places]


def _probe(case: Prepared, model: Trained) -> dict[str, Tensor]:
    """One image of a case in stored units, with a batch axis of one."""
    image, body = np.asarray(case.image), np.asarray(case.body)
    labels = None if case.segmentation is None else np.asarray(case.segmentation)
    pick: tuple[Any, ...] = (...,)
    if image.ndim == 4:
        shown = body if labels is None or not (labels > 0).any() else labels > 0
        if model.config.data.dim == 2:
            pick = (..., int(np.argmax(shown.sum((0, 1)))))
        else:
            centre = np.argwhere(shown).mean(0).round().astype(int)
            pick = (..., *_around(centre, model.config.data.patch, shown.shape))
    inside = torch.from_numpy(np.array(body[pick]))[None]
    probe = {
        "image": torch.from_numpy(image[pick].astype(np.float32))[None],
        "body": inside,
        "valid": inside,
    }
    if model.task.classes and labels is not None:
        return probe | {"segmentation": torch.from_numpy(labels[pick].astype(np.int64))[None]}
    return probe | {"findings": torch.from_numpy(np.array(case.findings))[None]}


def _around(
    centre: np.ndarray, patch: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    starts = [
        int(np.clip(c - p // 2, 0, max(0, n - p)))
        for c, p, n in zip(centre, patch, shape, strict=True)
    ]
    return tuple(slice(s, s + p) for s, p in zip(starts, patch, strict=True))
