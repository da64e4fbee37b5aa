"""The images that are attacked and shifted: one probe per case, and what each scores.

A probe is the radiograph, the slice with most foreground, or the patch around it: attacking every
slice of every volume would cost hours and say the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penumbra import progress
from penumbra.bayes.uncertainty import decompose
from penumbra.config import Config
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.evaluate import calibration, selective
from penumbra.evaluate.arrays import evenly
from penumbra.evaluate.overlap import confusion, dice
from penumbra.evaluate.protocol import mean_of_defined
from penumbra.evaluate.segmentation import region_of_interest
from penumbra.types import IGNORE, Task

Probe = dict[str, Tensor]
BATCH = 8
"""Probes of one shape that are attacked together."""


def spread(indices: list[int], count: int) -> list[int]:
    """An even choice over the test cases, so that every site has its share."""
    return [indices[place] for place in evenly(len(indices), count)]


def probes(store: Store, chosen: Sequence[int], config: Config, task: Task) -> list[Probe]:
    """Batches of probes in stored units, in the order of the cases.

    Neighbors of one shape share a batch; all radiographs do when they have one shape, so that the
    gates can watch an AUC.
    """
    size = BATCH if task.classes else len(chosen)
    batches: list[list[Probe]] = []
    for number, index in enumerate(chosen):
        probe = _probe(store[index], config, task) | {"case": torch.tensor([number])}
        last = batches[-1] if batches else []
        if last and len(last) < size and last[0]["image"].shape == probe["image"].shape:
            last.append(probe)
        else:
            batches.append([probe])
    return [{key: torch.cat([probe[key] for probe in each]) for key in each[0]} for each in batches]


def score(draws: Tensor, labels: Tensor, task: Task, spacing_mm: Sequence[float]) -> dict[str, Any]:
    """One segmented probe: Dice over regions, and what its uncertainty is worth.

    ``ece`` and ``error_auroc`` (of the predictive entropy, which every model has) within the
    dilated union of prediction and reference; ``error_auroc_epistemic`` where there are several
    draws. What is undefined is NaN.
    """
    p, reference = draws.mean(0)[0].cpu().numpy(), labels[0].cpu().numpy()
    predicted = p.argmax(0)
    counts = confusion(predicted, reference, classes=len(task.classes))
    overlaps = [dice(counts, members) for members in task.regions.values()]
    within = region_of_interest(predicted > 0, reference > 0, spacing_mm=spacing_mm)
    within &= reference != IGNORE
    parts, wrong = decompose(draws.cpu(), "categorical"), predicted != reference

    def error_auroc(uncertainty: Tensor) -> float:
        return selective.error_auroc(uncertainty[0].numpy(), wrong, within=within)

    several = len(draws) > 1
    return {
        "dice": mean_of_defined(overlaps),
        "ece": calibration.ece(calibration.categorical(p, reference, within=within)),
        "error_auroc": error_auroc(parts.entropy_nats),
        "error_auroc_epistemic": error_auroc(parts.epistemic) if several else float("nan"),
    }


def undisturbed(batches: list[Probe]) -> Iterator[Mapping[str, Tensor]]:
    """The batches as they are, with a progress bar over them."""
    with progress.bar("attack and shift", len(batches)) as advance:
        for batch in batches:
            yield batch
            advance()


def _probe(case: Prepared, config: Config, task: Task) -> Probe:
    """One image of a case in stored units, with a batch axis of one."""
    image, body = np.asarray(case.image), np.asarray(case.body)
    labels = None if case.segmentation is None else np.asarray(case.segmentation)
    pick: tuple[Any, ...] = (...,)
    if image.ndim == 4:
        shown = body if labels is None or not (labels > 0).any() else labels > 0
        if config.data.dim == 2:
            pick = (..., int(np.argmax(shown.sum((0, 1)))))
        else:
            centre = np.argwhere(shown).mean(0).round().astype(int)
            pick = (..., *_around(centre, config.data.patch, shown.shape))
    inside = torch.from_numpy(np.array(body[pick]))[None]
    probe = {
        "image": torch.from_numpy(image[pick].astype(np.float32))[None],
        "body": inside,
        "valid": inside,
    }
    if task.classes and labels is not None:
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
