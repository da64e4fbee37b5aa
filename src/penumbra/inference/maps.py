"""One case -> posterior draws -> maps; the encoder runs once per window, all windows share draws.

Every window's draws are reduced to moments at once, and the moments are laid on the case's canvas:
memory grows neither with the number of draws nor with the number of windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penumbra.attend.composite import composite
from penumbra.bayes.bank import Bank
from penumbra.bayes.stopping import LEAST, enough_draws
from penumbra.bayes.stream import WindowMaps, window_maps
from penumbra.bayes.uncertainty import surprise
from penumbra.config import Config
from penumbra.data.preprocess import Prepared
from penumbra.evaluate.overlap import label_map, members_mask
from penumbra.inference.windows import Window, windows
from penumbra.memory import give_back, keep_freed, zeros
from penumbra.model import Network
from penumbra.types import Task, Uncertainty

BLENDED = ("probability", "epistemic", "aleatoric", "expected_entropy_nats")
"""What windows are blended in; the other fields of an ``Uncertainty`` follow from these."""

PILOTS = 2
"""Windows with most tissue, on which ``draws: auto`` decides for the whole case."""


@dataclass(frozen=True)
class CaseMaps:
    """What the posterior says of one case, in the grid of the prepared image.

    Attributes:
        voxels: per-voxel uncertainty of the segmentation; ``voxels.probability`` is [c, *space].
        findings: per-finding uncertainty; every field is [f].
        attention: composite gate maps [m, *space] in [0, 1]; map 0 segmentation, then findings.
        draw_volumes_ml: region -> its volume in every draw [t]; propagated variances give one mean.
        disagreement: 1 - mean pairwise Dice of the draws' foregrounds; 0 without a segmentation.
    """

    voxels: Uncertainty | None
    findings: Uncertainty | None
    attention: Tensor
    draw_volumes_ml: Mapping[str, np.ndarray]
    disagreement: float

    def structure_entropy(self, regions: Mapping[str, Sequence[int]]) -> float:
        """Mean over regions of the entropy (nats) where the region is predicted; log C if nowhere.

        High where the network marks what it hardly believes in. 0 without a segmentation.
        """
        if self.voxels is None:
            return 0.0
        classes = len(self.voxels.probability)
        labels = label_map(self.voxels.probability.numpy())
        entropy = self.voxels.entropy_nats.numpy()
        inside = [entropy[members_mask(labels, m, classes=classes)] for m in regions.values()]
        return float(np.mean([x.mean() if x.size else np.log(classes) for x in inside]))


@torch.inference_mode()
def map_case(
    network: Network, bank: Bank, prepared: Prepared, task: Task, config: Config
) -> CaseMaps:
    """Decode every draw over a whole case, keeping moments only.

    Where windows overlap, their moments are averaged with Gaussian weights. The draws are the same
    in all of them, so the average of variances differs from the variance of the average only by
    what the windows' contexts disagree on. With ``draws: auto`` the case takes as many draws of the
    bank as its maps need.
    """
    keep_freed()
    device = next(network.parameters()).device
    draws = len(bank)
    if config.evaluate.draws == "auto" and draws > LEAST:
        draws = enough_draws(bank, [w.image.to(device) for w in _pilots(prepared, config)])
    canvas = _Canvas(prepared, task, draws, 1 + network.findings)
    for window in windows(prepared, config, how=config.evaluate.windows):
        _lay(canvas, window, network, bank)
    del window  # a tile may be as large as a case
    return canvas.maps(coherent=bank.coherent)


def _lay(canvas: "_Canvas", window: Window, network: Network, bank: Bank) -> None:
    """A window's maps on the canvas."""
    image = window.image.to(next(network.parameters()).device)
    maps = window_maps(bank, image, draws=canvas.draws, kept=window.kept, core=window.core)
    if maps.attention:
        kept: tuple[Any, ...] = (..., *window.kept)
        seen = composite(maps.attention, network.beta, image.shape[2:])
        canvas.attend(window, seen[kept])
    canvas.add(window, maps)


def _pilots(prepared: Prepared, config: Config) -> list[Window]:
    """The windows that show most of the body."""
    body = torch.from_numpy(np.array(prepared.body, dtype=np.float32))
    ranked: list[tuple[float, int, Window]] = []
    for k, window in enumerate(windows(prepared, config, how=config.evaluate.windows)):
        ranked.append((-float(body[window.place].sum()), k, window))
        ranked = sorted(ranked, key=lambda each: each[:2])[:PILOTS]
    return [window for _, _, window in ranked]


class _Canvas:
    """The case's maps while windows are added; the only arrays of the case's size."""

    def __init__(self, prepared: Prepared, task: Task, draws: int, maps: int) -> None:
        self.prepared, self.task, self.draws = prepared, task, draws
        shape = prepared.image.shape[1:]
        leading = {"probability": (len(task.classes),)}
        names = BLENDED if task.classes else ()
        self.sums = {name: zeros(*leading.get(name, ()), *shape) for name in names}
        self.attention = zeros(maps, *shape)
        self.weight = zeros(*shape)
        self.findings: list[Uncertainty] = []
        self.classes = np.zeros((draws, len(task.classes)), np.int64)
        self.shared = np.zeros((draws, draws), np.int64)

    def add(self, window: Window, maps: WindowMaps) -> None:
        place: tuple[Any, ...] = (..., *window.place)
        for name, total in self.sums.items():
            total[place] += window.laid(getattr(maps.voxels, name)) * window.weight
        self.weight[place] += window.weight
        if maps.findings is not None:
            self.findings.append(maps.findings)
        if maps.counts is not None:  # each voxel in one window only
            self.classes += maps.counts.classes
            self.shared += maps.counts.shared

    def attend(self, window: Window, attention: Tensor) -> None:
        place: tuple[Any, ...] = (..., *window.place)
        self.attention[place] += window.laid(attention) * window.weight

    def maps(self, *, coherent: bool) -> CaseMaps:
        self.attention /= self.weight
        voxel_ml = float(np.prod(self.prepared.spacing_mm)) / 1000
        volumes = {
            region: self.classes[:, list(members)].sum(1) * voxel_ml
            for region, members in self.task.regions.items()
        }
        return CaseMaps(
            voxels=self._uncertainty() if self.task.classes else None,
            findings=_most_probable(self.findings) if self.findings else None,
            attention=self.attention,
            draw_volumes_ml=volumes
            if coherent
            else {r: v.mean(keepdims=True) for r, v in volumes.items()},
            disagreement=self._disagreement() if coherent else 0.0,
        )

    def _uncertainty(self) -> Uncertainty:
        for total in self.sums.values():
            total /= self.weight
        probability = self.sums["probability"]
        give_back()  # what the windows needed; these arrays are of the case's size
        entropy = self.weight  # has done its duty
        for place in range(len(entropy)):  # plane by plane: no second array of all classes
            entropy[place] = surprise(probability[:, place]).sum(0)
        return Uncertainty(
            **self.sums,
            total=zeros(*entropy.shape).add_(self.sums["epistemic"]).add_(self.sums["aleatoric"]),
            entropy_nats=entropy,
            mutual_information_nats=zeros(*entropy.shape)
            .add_(entropy)
            .sub_(self.sums["expected_entropy_nats"])
            .clamp_(min=0),
        )

    def _disagreement(self) -> float:
        """1 - mean Dice over pairs of draws; two empty draws agree."""
        sizes = self.shared.diagonal()
        both = sizes[:, None] + sizes
        dice = np.where(both > 0, 2 * self.shared / both.clip(min=1), 1.0)
        pairs = self.draws * (self.draws - 1)
        return 1 - float(dice.sum() - self.draws) / pairs if pairs and self.task.classes else 0.0


def _most_probable(findings: list[Uncertainty]) -> Uncertainty:
    """Findings of a case: of its one image, or where in it each is most probable."""
    stacked = {
        f.name: torch.cat([getattr(u, f.name).cpu() for u in findings]) for f in fields(Uncertainty)
    }
    where = stacked["probability"].argmax(0, keepdim=True)
    return Uncertainty(**{name: each.gather(0, where)[0] for name, each in stacked.items()})
