"""Our attention against every explainer and prior, on held-out annotated cases (METHOD section 5).

Localization always stands beside faithfulness: maps that were trained to match masks can win the
first without showing what the network uses.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from penumbra import progress
from penumbra.assess.pictures import Picture, pictures, stated
from penumbra.bayes import bank
from penumbra.data.store import Store
from penumbra.evaluate import faithfulness, localization
from penumbra.evaluate.protocol import CaseScores
from penumbra.inference.explain import CAMS, Explainer, explain_images
from penumbra.inference.levels import levels_of
from penumbra.nets.hooks import hooked
from penumbra.trained import Trained

BLUR = 0.15
"""Standard deviation of the erased image's blur, as a share of its sides."""

STEPS = 10
"""Of an insertion or deletion curve."""

Localizer = Callable[[Picture], np.ndarray]
"""A map of one structure from a network that was trained on the masks: the upper bound."""

Levels = Mapping[Explainer, int]
"""CAM -> the level that it reads (``inference.levels.levels_of``)."""

Maps = dict[str, list[np.ndarray]]
"""Method -> one map per picture."""


def compare(
    model: Trained,
    store: Store,
    indices: Sequence[int],
    methods: Sequence[Explainer],
    *,
    tuning: Sequence[int],
    levels: Levels | None = None,
) -> list[CaseScores]:
    """Scores ``explanation/<method>/<metric>`` of every annotated structure.

    Localization: hit, IoU at Otsu's and at the tuned threshold, AUPRC, centroid error in mm.
    Faithfulness: area under insertion and deletion, on the network with its mean weights; for
    attention also what replacing the gate by its mean changes.

    Args:
        tuning: validation cases on which each method's threshold is chosen.
        levels: that CAMs read; by default ``choose_levels`` of the same cases.

    Raises:
        DataError: no case of ``indices`` or of ``tuning`` has an expert's mask.
    """
    judged, tuned = pictures(model, store, indices), pictures(model, store, tuning)
    levels = choose_levels(model, tuned, methods) if levels is None else levels
    shown, before = (draw_maps(model, each, methods, levels) for each in (judged, tuned))
    return judge_maps(model, judged, shown, thresholds(before, tuned))


def choose_levels(model: Trained, tuned: Sequence[Picture], methods: Sequence[Explainer]) -> Levels:
    """The level at which each CAM's maps have the best mean AUPRC on validation pictures.

    Which level points best differs between networks, and a rival is as strong as its settings.
    """

    def quality(method: Explainer, level: int) -> float:
        drawn = draw_maps(model, tuned, [method], {method: level})[method]
        found = [localization.auprc(m, p.mask) for m, p in zip(drawn, tuned, strict=True)]
        return float(np.mean(found))

    choices = range(len(levels_of(model.network)))
    return {m: max(choices, key=partial(quality, m)) for m in methods if m in CAMS}


def thresholds(maps: Maps, tuned: Sequence[Picture]) -> dict[str, float]:
    """Every method's own threshold, from maps of validation pictures."""
    masks = [each.mask for each in tuned]
    return {m: localization.tune_threshold(drawn, masks) for m, drawn in maps.items()}


def judge_maps(
    model: Trained,
    judged: Sequence[Picture],
    maps: Maps,
    cuts: Mapping[str, float],
    *,
    faithful: bool = True,
) -> list[CaseScores]:
    """``compare``, of maps that are drawn already, with the thresholds of each method.

    Args:
        faithful: ask for faithfulness too, which takes two dozen passes per map.
    """
    scores: list[dict[tuple[str, str], float]] = [{} for _ in judged]
    with progress.bar("judge explanations", len(judged)) as advance:
        for k, each in enumerate(judged):
            for method, drawn in maps.items():
                values = localization.score(
                    drawn[k], each.mask, spacing_mm=each.spacing_mm, threshold=cuts[method]
                )
                if faithful:
                    values |= _erasure(model, each, drawn[k])
                if faithful and method == "attention":
                    values |= ablation(model, each)
                scores[k] |= {
                    (f"explanation/{method}/{metric}", each.name): value
                    for metric, value in values.items()
                }
            advance(each.case)
    return [CaseScores(p.case, p.patient, s) for p, s in zip(judged, scores, strict=True)]


def draw_maps(
    model: Trained,
    judged: Sequence[Picture],
    methods: Sequence[Explainer],
    levels: Levels | None = None,
    localizer: Localizer | None = None,
) -> Maps:
    """Every method's map of every picture; the same draws for all.

    Args:
        levels: that CAMs read; the coarsest for a CAM that is not named.
    """
    chance = torch.Generator().manual_seed(model.config.seed)
    posterior = bank(model.network, draws=model.config.evaluate.fixed_draws, generator=chance)
    maps: Maps = {}
    for method in methods:
        maps[method] = [
            explain_images(
                model,
                posterior,
                p.image,
                p.organ,
                row=p.row,
                method=method,
                level=(levels or {}).get(method),
            )[0]
            .cpu()
            .numpy()
            for p in judged
        ]
    if localizer is not None:
        maps["localizer"] = [localizer(p) for p in judged]
    return maps


def ablation(model: Trained, each: Picture) -> dict[str, float]:
    """What is lost when this structure's gate, at every level, is its own mean."""

    def flat(gate: object, inputs: object, maps: Tensor) -> Tensor:
        level = maps.clone()
        own = maps[:, each.row : each.row + 1]
        level[:, each.row : each.row + 1] = own.mean(tuple(range(2, maps.ndim)), keepdim=True)
        return level

    before = stated(model, each.image, each.row)
    gates = [gate for branch in model.network.branches for gate in branch.gates]
    with hooked(gates, flat):
        after = stated(model, each.image, each.row)
    lost = faithfulness.gate_ablation(before, after)
    return {"gate_drop": lost.drop, "gate_change": lost.change, "gate_flipped": lost.flipped}


def _erasure(model: Trained, each: Picture, shown: np.ndarray) -> dict[str, float]:
    image = each.image[0].numpy()
    blur = [0.0, *(BLUR * n for n in image.shape[1:])]
    fill = gaussian_filter(image, blur)
    region = stated(model, each.image, each.row)[0] > 0.5 if each.row == 0 else None
    region = torch.ones_like(region) if region is not None and not region.any() else region

    def predict(images: np.ndarray) -> np.ndarray:
        found = stated(model, torch.from_numpy(images), each.row)
        return (found if region is None else found[:, region].mean(1)).numpy()

    modes: tuple[Literal["insertion", "deletion"], ...] = ("insertion", "deletion")
    return {
        mode: faithfulness.erase(predict, image, shown, mode=mode, fill=fill, steps=STEPS).area
        for mode in modes
    }
