"""Our attention against every explainer and prior, on held-out annotated cases (METHOD section 5).

Localization always stands beside faithfulness: maps that were trained to match masks can win the
first without showing what the network uses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from penumbra.assess.calibrate import expert_masks
from penumbra.augment import to_display
from penumbra.bayes import bank
from penumbra.bayes.bank import Bank
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.errors import DataError
from penumbra.evaluate import faithfulness, localization
from penumbra.evaluate.protocol import CaseScores, Row, summarise
from penumbra.inference.explain import Explainer, explain_images, logits_of, map_names
from penumbra.trained import Trained

BLUR = 0.15
"""Standard deviation of the erased image's blur, as a share of its sides."""


@dataclass(frozen=True)
class Picture:
    """What the network sees at once, with an expert's mask: a radiograph, slice or volume."""

    case: str
    patient: str
    row: int
    image: Tensor
    body: Tensor
    mask: np.ndarray
    spacing_mm: tuple[float, ...]


def compare(
    model: Trained,
    store: Store,
    indices: Sequence[int],
    methods: Sequence[Explainer],
    *,
    tuning: Sequence[int],
    localizer: Trained | None = None,
) -> list[Row]:
    """Rows ``explanation/<method>/<metric>`` for every annotated structure, over patients.

    Localization: hit, IoU at Otsu's and at the tuned threshold, AUPRC, centroid error in mm.
    Faithfulness: area under insertion and deletion, on the network with its mean weights; for
    attention also what replacing the gate by its mean changes. Of a volume, the slice with most
    of the structure is judged when the network is slice-wise.

    Args:
        tuning: validation cases on which each method's threshold is chosen.
        localizer: a segmentation model trained on the masks: the supervised upper bound.

    Raises:
        DataError: no case of ``indices`` or of ``tuning`` has an expert's mask.
    """
    settings = model.config
    chance = torch.Generator().manual_seed(settings.seed)
    posterior = bank(model.network, draws=settings.evaluate.fixed_draws, generator=chance)
    judged, tuned = _pictures(model, store, indices), _pictures(model, store, tuning)
    named = map_names(model.task)
    scores: list[dict[tuple[str, str], float]] = [{} for _ in judged]
    for method in methods:
        threshold = localization.tune_threshold(
            [_map(model, posterior, each, method) for each in tuned], [t.mask for t in tuned]
        )
        for found, each in zip(scores, judged, strict=True):
            shown = _map(model, posterior, each, method)
            values = _localization(shown, each, threshold) | _faithfulness(model, each, shown)
            if method == "attention":
                values |= _ablation(model, each)
            found |= {(f"explanation/{method}/{m}", named[each.row]): v for m, v in values.items()}
    if localizer is not None:
        threshold = localization.tune_threshold(
            [_foreground(localizer, t) for t in tuned], [t.mask for t in tuned]
        )
        for found, each in zip(scores, judged, strict=True):
            values = _localization(_foreground(localizer, each), each, threshold)
            found |= {(f"explanation/localizer/{m}", named[each.row]): v for m, v in values.items()}
    cases = [CaseScores(p.case, p.patient, s) for p, s in zip(judged, scores, strict=True)]
    return summarise(cases, part="test", samples=settings.evaluate.bootstrap, seed=settings.seed)


def _pictures(model: Trained, store: Store, indices: Sequence[int]) -> list[Picture]:
    pictures = [p for i in indices for p in _of_case(model, store[i])]
    if not pictures:
        raise DataError("no case has an expert's mask: explanations cannot be compared")
    return pictures


def _of_case(model: Trained, case: Prepared) -> list[Picture]:
    settings, answered = model.config, map_names(model.task)
    image = torch.from_numpy(np.array(case.image, dtype=np.float32))[None]
    display = to_display(image, modality=settings.modality, window_hu=settings.data.window_hu)
    body = torch.from_numpy(np.array(case.body))[None]
    pictures = []
    for row, mask in expert_masks(case):
        if row not in answered or not mask.any():
            continue
        sliced = mask.ndim == 3 and settings.data.dim == 2
        at = (..., int(np.argmax(mask.sum((0, 1))))) if sliced else (...,)
        spacing = case.spacing_mm[: mask.ndim - sliced]
        patient = case.case.patient
        pictures.append(
            Picture(case.id, patient, row, display[at], body[at], np.asarray(mask[at]), spacing)
        )
    return pictures


def _map(model: Trained, posterior: Bank, each: Picture, method: Explainer) -> np.ndarray:
    shown = explain_images(model, posterior, each.image, each.body, row=each.row, method=method)
    return shown[0].cpu().numpy()


def _localization(shown: np.ndarray, each: Picture, threshold: float) -> dict[str, float]:
    return localization.score(shown, each.mask, spacing_mm=each.spacing_mm, threshold=threshold)


@torch.no_grad()
def _stated(model: Trained, image: Tensor, row: int) -> Tensor:
    """Probability of the finding [b], or of the foreground [b, *space]."""
    logits = logits_of(model.network, row)(image)
    return logits.softmax(1)[:, 1] if row == 0 else logits.sigmoid()[:, row - 1]


def _faithfulness(model: Trained, each: Picture, shown: np.ndarray) -> dict[str, float]:
    image = each.image[0].numpy()
    blur = [0.0, *(BLUR * n for n in image.shape[1:])]
    fill = gaussian_filter(image, blur)
    region = _stated(model, each.image, each.row)[0] > 0.5 if each.row == 0 else None
    region = torch.ones_like(region) if region is not None and not region.any() else region

    def predict(images: np.ndarray) -> np.ndarray:
        stated = _stated(model, torch.from_numpy(images), each.row)
        return (stated if region is None else stated[:, region].mean(1)).numpy()

    return {
        "insertion": faithfulness.erase(predict, image, shown, mode="insertion", fill=fill).area,
        "deletion": faithfulness.erase(predict, image, shown, mode="deletion", fill=fill).area,
    }


def _ablation(model: Trained, each: Picture) -> dict[str, float]:
    """What is lost when this map, at every level, is its own mean."""

    def flat(gate: object, inputs: object, maps: Tensor) -> Tensor:
        axes = tuple(range(2, maps.ndim))
        level = maps.clone()
        level[:, each.row] = maps[:, each.row : each.row + 1].mean(axes, keepdim=True)[:, 0]
        return level

    before = _stated(model, each.image, each.row)
    hooks = [gate.register_forward_hook(flat) for gate in model.network.gates]
    try:
        after = _stated(model, each.image, each.row)
    finally:
        for hook in hooks:
            hook.remove()
    lost = faithfulness.gate_ablation(before, after)
    return {"gate_drop": lost.drop, "gate_change": lost.change, "gate_flipped": lost.flipped}


def _foreground(localizer: Trained, each: Picture) -> np.ndarray:
    return _stated(localizer, each.image, 0)[0].numpy()
