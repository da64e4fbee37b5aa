"""The quick look while training: validation patients through the mean weights."""

import numpy as np
import torch

from penumbra.assess.constant import Answers
from penumbra.bayes import bank
from penumbra.config import Config
from penumbra.data.store import Store
from penumbra.evaluate import calibration
from penumbra.evaluate.overlap import confusion, dice, label_map
from penumbra.evaluate.ranking import auroc
from penumbra.inference.maps import map_case
from penumbra.model import Network

CASES = 12
"""Validation cases looked at; the rest wait for the evaluation."""


def validate(
    network: Network, store: Store, indices: list[int], config: Config
) -> dict[str, float]:
    """Mean Dice over regions and macro AUROC over findings; ``score`` is their mean.

    With ``train.keep: likelihood`` the score is minus ``nll``, the negative log-likelihood in nats
    of the body's voxels and of the stated findings. A figure that is defined for none of the cases
    counts as 0. ``constant`` is 1 where a head gives the same answer for all of them
    (``assess.constant``).
    Posterior draws would be fairer but several times dearer; two are enough to steer.
    """
    draws = bank(network, draws=2, generator=torch.Generator().manual_seed(config.seed))
    answers = Answers()
    overlaps, probabilities, labels = [], [], []
    tallies = [calibration.empty(), calibration.empty()]
    for index in indices[: CASES if store.task.classes else None]:
        case = store[index]
        maps = map_case(network, draws, case, store.task, config)
        answers.add(case, maps)
        if maps.voxels is not None and case.segmentation is not None:
            predicted = label_map(maps.voxels.probability)
            reference = np.asarray(case.segmentation)
            p, body = maps.voxels.probability.numpy(), np.asarray(case.body)
            tallies[0] += calibration.categorical(p, reference, within=body)
            counts = confusion(predicted, reference, classes=len(store.task.classes))
            overlaps += [dice(counts, members) for members in store.task.regions.values()]
        if maps.findings is not None:
            probabilities.append(maps.findings.probability.numpy())
            labels.append(np.asarray(case.findings))
            tallies[1] += calibration.bernoulli(probabilities[-1], labels[-1])
    result = {}
    if not np.isnan(overlaps).all():
        result["dice"] = float(np.nanmean(overlaps))
    if probabilities:
        p, y = np.stack(probabilities), np.stack(labels)
        areas = [auroc(p[:, f], y[:, f]) for f in range(p.shape[1])]
        result["auroc"] = float(np.nanmean(areas)) if not np.isnan(areas).all() else 0.0
    score = float(np.mean(list(result.values()) or [0.0]))
    result["nll"] = sum(calibration.nll(tally) for tally in tallies if tally.n)
    if config.train.keep == "likelihood":
        score = -result["nll"]
    return {**result, "score": score, "constant": float(bool(answers.warnings("val")))}
