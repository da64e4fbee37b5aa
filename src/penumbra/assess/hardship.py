"""The same model under attack and under graded shifts: one probe image per test case.

A probe is the radiograph, the slice with most foreground, or the patch around it: attacking every
slice of every volume would cost hours and say the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
from penumbra.evaluate.overlap import confusion, dice
from penumbra.evaluate.protocol import Row, row
from penumbra.evaluate.ranking import auroc
from penumbra.evaluate.statistics import bootstrap
from penumbra.robust.attack import noise, pgd
from penumbra.robust.ball import ball
from penumbra.robust.objective import label_loss
from penumbra.trained import Trained
from penumbra.types import Task


@dataclass(frozen=True)
class Probe:
    """One image in stored units, with a batch axis of one."""

    image: Tensor
    body: Tensor
    segmentation: Tensor | None
    findings: Tensor
    patient: str


Change = Callable[[Probe], Tensor]
"""A probe -> the image in display units that the model gets to see."""


def hardship(
    model: Trained, store: Store, indices: list[int]
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows and plot series of clean, attacked and shifted accuracy over the first test cases."""
    settings = model.config.evaluate
    chosen = _spread(indices, settings.attack_cases)
    if not chosen:
        return [], []
    probes = [_probe(store[i], model.config) for i in chosen]
    generator = torch.Generator().manual_seed(model.config.seed + 2)
    judge = bank(model.network, draws=settings.draws, generator=generator)
    conditions: dict[str, Change] = {"clean": partial(_display, config=model.config)}
    conditions |= _attacks(model, generator) | _shifts(model.config, generator)
    rows, series = [], []
    with progress.bar("attack and shift", len(conditions)) as advance:
        for name, change in conditions.items():
            for each in _accuracy(model.task, judge, probes, change, name, model.config):
                rows.append(each)
                series.append(_point(each, name))
            advance(name)
    return rows, series


def _attacks(model: Trained, generator: torch.Generator) -> dict[str, Change]:
    """Noise of the attack's size, then PGD through the averaged prediction of a few draws."""
    settings = model.config.evaluate
    attacker = bank(model.network, draws=2, generator=generator)
    predict = _averaged(attacker, model.task)

    def attacked(probe: Probe, eps: float, random_only: bool) -> Tensor:
        image = _display(probe, model.config)
        around = ball(image, eps=eps, valid=probe.body)
        labels = probe.findings if probe.segmentation is None else probe.segmentation
        objective = label_loss(predict, labels)
        if random_only:
            return noise(objective, around, steps=3, generator=generator)
        return pgd(objective, around, steps=settings.attack_steps, generator=generator)

    conditions: dict[str, Change] = {}
    for eps in settings.attack_eps:
        level = f"eps={eps:.4f}"
        conditions[f"noise {level}"] = partial(attacked, eps=eps, random_only=True)
        conditions[f"pgd-{settings.attack_steps} {level}"] = partial(
            attacked, eps=eps, random_only=False
        )
    return conditions


def _shifts(config: Config, generator: torch.Generator) -> dict[str, Change]:
    def shifted(probe: Probe, family: str, severity: int) -> Tensor:
        image = shift(
            probe.image,
            family=family,
            severity=severity,
            modality=config.modality,
            generator=generator,
            body=probe.body,
        )
        return to_display(image, modality=config.modality, window_hu=config.data.window_hu)

    return {
        f"{family} severity={severity}": partial(shifted, family=family, severity=severity)
        for family in families(config.modality)
        for severity in config.evaluate.severities
    }


def _averaged(draws: Bank, task: Task) -> Callable[[Tensor], Tensor]:
    def predict(image: Tensor) -> Tensor:
        outputs = list(draws.probabilities(image))
        field = "segmentation" if task.classes else "findings"
        return torch.stack([getattr(o, field) for o in outputs]).mean(0)

    return predict


def _accuracy(
    task: Task, draws: Bank, probes: list[Probe], change: Change, name: str, config: Config
) -> list[Row]:
    predict = _averaged(draws, task)
    part = "test" if name == "clean" else f"test/{name}"
    probabilities = []
    for probe in probes:
        image = change(probe)
        with torch.no_grad():
            probabilities.append(predict(image)[0].cpu())
    patients = [probe.patient for probe in probes]
    samples, seed = config.evaluate.bootstrap, config.seed
    if task.classes:
        overlaps = [_dice(p, probe, task) for p, probe in zip(probabilities, probes, strict=True)]
        interval = bootstrap(overlaps, patients, samples=samples, seed=seed)
        return [row(part, "probe_dice", "mean", interval)]
    p = torch.stack(probabilities).numpy()
    y = torch.cat([probe.findings for probe in probes]).cpu().numpy()
    areas = [auroc(p[:, f], y[:, f]) for f in range(p.shape[1])]
    value = float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")
    nothing = float("nan")
    return [Row(part, "probe_auroc", "mean", value, nothing, nothing, len(set(patients)))]


def _dice(probability: Tensor, probe: Probe, task: Task) -> float:
    assert probe.segmentation is not None
    reference = probe.segmentation[0].cpu().numpy()
    counts = confusion(probability.argmax(0).numpy(), reference, classes=len(task.classes))
    scores = [dice(counts, members) for members in task.regions.values()]
    return float(np.nanmean(scores)) if not np.isnan(scores).all() else float("nan")


def _point(each: Row, name: str) -> dict[str, Any]:
    """A row as the report plots it: an attack at an eps, or a family at a severity."""
    family, _, level = name.partition(" ")
    kind = "attack" if family.startswith(("noise", "pgd")) and "eps" in level else "family"
    number = float(level.partition("=")[2]) if level else 0.0
    value = each.value if np.isfinite(each.value) else None
    return {kind: family, "level": number, "metric": each.metric, "value": value}


def _display(probe: Probe, config: Config) -> Tensor:
    return to_display(probe.image, modality=config.modality, window_hu=config.data.window_hu)


def _spread(indices: list[int], count: int) -> list[int]:
    """An even choice over the test cases, so that every site has its share."""
    if count == 0:
        return []
    places = np.unique(np.linspace(0, len(indices) - 1, min(count, len(indices))).round())
    return [indices[int(place)] for place in places]


def _probe(case: Prepared, config: Config) -> Probe:
    image, body = np.asarray(case.image), np.asarray(case.body)
    labels = None if case.segmentation is None else np.asarray(case.segmentation)
    window: tuple[Any, ...] = ()
    if image.ndim == 4:
        shown = body if labels is None or not (labels > 0).any() else labels > 0
        if config.data.dim == 2:
            window = (..., int(np.argmax(shown.sum((0, 1)))))
        else:
            centre = np.argwhere(shown).mean(0).round().astype(int)
            window = (..., *_around(centre, config.data.patch, shown.shape))
    pick = window or (...,)
    return Probe(
        image=torch.from_numpy(image[pick].astype(np.float32))[None],
        body=torch.from_numpy(body[pick].copy())[None],
        segmentation=None
        if labels is None
        else torch.from_numpy(labels[pick].astype(np.int64))[None],
        findings=torch.from_numpy(np.asarray(case.findings).copy())[None],
        patient=case.case.patient,
    )


def _around(
    centre: np.ndarray, patch: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    starts = [
        int(np.clip(c - p // 2, 0, max(0, n - p)))
        for c, p, n in zip(centre, patch, shape, strict=True)
    ]
    return tuple(slice(s, s + p) for s, p in zip(starts, patch, strict=True))
