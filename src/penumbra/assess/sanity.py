"""Does a map follow the network's weights? Cascading randomization of a trained model."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from penumbra.assess.explanations import Levels, draw_maps
from penumbra.assess.pictures import Picture
from penumbra.evaluate import faithfulness
from penumbra.inference.explain import Explainer
from penumbra.trained import Trained

STAGES = ("heads and gates", "decoder", "encoder")
"""From the top down; every stage randomizes those before it as well."""


def randomization(
    model: Trained,
    judged: Sequence[Picture],
    methods: Sequence[Explainer],
    levels: Levels | None = None,
) -> dict[str, list[float]]:
    """Method -> mean SSIM to the trained model's map after each of ``STAGES``.

    A map that stays alike shows the image, not the network (Adebayo et al. 2018). Weights are
    shuffled within each tensor: their distribution stays, what they learned goes.
    ``levels`` as in ``draw_maps``.
    """
    depths = range(len(STAGES) + 1)
    drawings = [draw_maps(_shuffled(model, d), judged, methods, levels) for d in depths]

    def drawn(method: Explainer, picture: int, depth: int) -> np.ndarray:
        return drawings[depth][method][picture]

    found: dict[str, list[float]] = {}
    for method in methods:
        alike = [
            faithfulness.randomisation(partial(drawn, method, i), layers=len(STAGES))
            for i in range(len(judged))
        ]
        found[method] = np.nanmean([[each.ssim for each in a] for a in alike], axis=0).tolist()
    return found


def _shuffled(model: Trained, depth: int) -> Trained:
    network = copy.deepcopy(model.network)
    branches = network.branches
    parts: list[list[nn.Module]] = [
        [part for branch in branches for part in (branch.heads, branch.gates)],
        [branch.decoder for branch in branches],
        [network.encoder],
    ]
    chance = torch.Generator().manual_seed(model.config.seed)
    for part in parts[:depth]:
        for module in part:
            for weight in module.parameters():
                order = torch.randperm(weight.numel(), generator=chance)
                weight.data = weight.data.flatten()[order].reshape(weight.shape)
    return replace(model, network=network)
