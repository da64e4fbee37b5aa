"""How wide the posterior should be, chosen on validation patients.

The KL weight that suits one task drowns another: a radiograph's label says little about 10^5
weights, and the posterior then stays as wide as its prior. Scaling the trained deviations and
looking at the likelihood of validation patients mends that at the price of a few predictions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from penumbra import progress
from penumbra.assess.calibrate import judged_places
from penumbra.bayes import bank
from penumbra.bayes.temper import has_width, tempered
from penumbra.bayes.temper import temper as widen
from penumbra.bayes.temperature import fit_temperature
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.evaluate.overlap import confusion, dice, label_map
from penumbra.inference.maps import CaseMaps, map_case
from penumbra.trained import Trained

CASES = 6
"""Segmented validation cases looked at; radiographs are all looked at."""
VOXELS = 10_000

Scored = list[dict[str, float]]


def temper(model: Trained, store: Store, indices: list[int]) -> tuple[float, Scored]:
    """Scale the posterior, in place, to the width with the least validation NLL.

    NLL is that of the averaged probabilities at their own best temperature, per voxel around
    prediction and reference plus per finding, since that is what is published. The NLL falls to
    one side of the width as trained, so only widths on the way down are tried. The table says what
    each scored, width 0 (the mean weights) too: where all are alike, the posterior adds nothing;
    where 0 is best, it harms. 0 is never chosen: it would have no epistemic part.

    Returns:
        The width, 1 where there is nothing to choose, and one row per width: ``width``, ``nll``,
        ``temperature``, ``dice`` of the averaged prediction and ``epistemic_share`` of the
        total uncertainty.
    """
    grid = model.config.bayes.temper
    chosen = indices[: CASES if model.task.classes else None]
    if not grid or not chosen or not has_width(model.network):
        return 1.0, []
    places: dict[int, np.ndarray] = {}
    with progress.bar("temper", 1 + len(grid)) as advance:

        def score(width: float) -> dict[str, float]:
            row = _score(model, store, chosen, width, places)
            advance(f"width {width:g}")
            return row

        mean_weights = score(0.0)
        tried = _descend(sorted(grid), score)
    best = min(tried, key=lambda row: row["nll"])
    widen(model.network, best["width"])
    return best["width"], [mean_weights, *sorted(tried, key=lambda row: row["width"])]


def _descend(widths: list[float], score: Callable[[float], dict[str, float]]) -> Scored:
    """Walk from the width as trained to whichever side lowers the NLL, while it does."""
    start = min(range(len(widths)), key=lambda i: abs(np.log(widths[i])))
    tried = {start: score(widths[start])}
    for side in (1, -1):
        at = start
        while 0 <= at + side < len(widths):
            at += side
            tried[at] = score(widths[at])
            if tried[at]["nll"] >= tried[at - side]["nll"]:
                break
        if at != start and tried[start + side]["nll"] < tried[start]["nll"]:
            break  # it fell on this side, so it rises on the other
    return list(tried.values())


def _score(
    model: Trained, store: Store, indices: list[int], width: float, places: dict[int, np.ndarray]
) -> dict[str, float]:
    settings = model.config
    generator = torch.Generator().manual_seed(settings.seed)
    mean_only = width == 0
    with tempered(model.network, 1e-6 if mean_only else width):
        count = 1 if mean_only else settings.evaluate.fixed_draws
        draws = bank(model.network, draws=count, generator=generator)
    seen = _Seen()
    for index in indices:
        case = store[index]
        maps = map_case(model.network, draws, case, store.task, settings)
        if maps.voxels is not None and case.segmentation is not None:
            if index not in places:
                places[index] = _voxels_of(case, maps, settings.seed + index)
            seen.add_voxels(case, maps, places[index])
        if maps.findings is not None:
            seen.add_findings(case, maps)
    return {"width": width, **seen.scores()}


def _voxels_of(case: Prepared, maps: CaseMaps, seed: int) -> np.ndarray:
    """Flat places around the mean weights' prediction and the reference: the same at any width."""
    assert maps.voxels is not None
    reference, predicted = np.asarray(case.segmentation), label_map(maps.voxels.probability.numpy())
    return judged_places(predicted, reference, case.spacing_mm, most=VOXELS, seed=seed)


@dataclass
class _Seen:
    """What one width says of the validation cases."""

    logs: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    coins: list[Tensor] = field(default_factory=list)
    sides: list[Tensor] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    epistemic: float = 0.0
    total: float = 0.0

    def add_voxels(self, case: Prepared, maps: CaseMaps, places: np.ndarray) -> None:
        assert maps.voxels is not None
        probability = maps.voxels.probability.flatten(1)[:, places].T
        reference = np.asarray(case.segmentation)
        self.logs.append(probability.clamp_min(1e-12).log())
        self.labels.append(torch.from_numpy(reference.ravel()[places].astype(np.int64)))
        predicted = label_map(maps.voxels.probability.numpy())
        counts = confusion(predicted, reference, classes=len(maps.voxels.probability))
        self.dice.append(dice(counts, range(1, len(maps.voxels.probability))))
        self.epistemic += float(maps.voxels.epistemic.flatten()[places].sum())
        self.total += float(maps.voxels.total.flatten()[places].sum())

    def add_findings(self, case: Prepared, maps: CaseMaps) -> None:
        assert maps.findings is not None
        label = torch.from_numpy(np.asarray(case.findings).astype(np.float64))
        known = (label == 0) | (label == 1)
        p = maps.findings.probability[known]
        self.coins.append(torch.stack([1 - p, p], 1).clamp_min(1e-12).log())
        self.sides.append(label[known].long())
        if maps.voxels is None:
            self.epistemic += float(maps.findings.epistemic.sum())
            self.total += float(maps.findings.total.sum())

    def scores(self) -> dict[str, float]:
        nll, temperature = 0.0, 1.0
        for logs, labels in ((self.coins, self.sides), (self.logs, self.labels)):
            if sum(len(each) for each in labels):
                loss, temperature = _best(torch.cat(logs), torch.cat(labels))
                nll += loss
        share = self.epistemic / self.total if self.total else 0.0
        scores = {"nll": nll, "temperature": temperature, "epistemic_share": share}
        if not np.isnan(self.dice).all():
            scores["dice"] = float(np.nanmean(self.dice))
        return scores


def _best(logs: Tensor, labels: Tensor) -> tuple[float, float]:
    """NLL at the temperature that suits it best, and that temperature."""
    temperature = fit_temperature(logs, labels)
    scaled = (logs.double() / temperature).log_softmax(1)
    return -float(scaled.gather(1, labels[:, None]).mean()), temperature
