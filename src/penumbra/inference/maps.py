"""One case -> posterior draws -> maps; the encoder runs once per window, all windows share draws.

Slice-wise networks see batches of whole slices, volumetric networks overlapping windows. Every
window's draws are reduced to moments at once, and the moments are blended: memory grows neither
with the number of draws nor with the number of windows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from einops import rearrange
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor

from penumbra.attend.composite import composite
from penumbra.augment import to_display
from penumbra.bayes.bank import Bank
from penumbra.bayes.uncertainty import Moments
from penumbra.config import Config
from penumbra.data.preprocess import Prepared
from penumbra.model import Network
from penumbra.types import Task, Uncertainty

SLICES_PER_BATCH = 16
OVERLAP = 0.5
BLENDED = ("probability", "epistemic", "aleatoric", "expected_entropy_nats")
"""What windows are blended in; the other fields of an ``Uncertainty`` follow from these."""


@dataclass(frozen=True)
class CaseMaps:
    """What the posterior says of one case, in the grid of the prepared image.

    Attributes:
        voxels: per-voxel uncertainty of the segmentation; ``voxels.probability`` is [c, *space].
        findings: per-finding uncertainty; every field is [f].
        attention: composite gate maps [m, *space] in [0, 1]; map 0 segmentation, then findings.
        draw_volumes_ml: region -> its volume in every draw [t].
        disagreement: 1 - mean pairwise Dice of the draws' foregrounds; 0 without a segmentation.
    """

    voxels: Uncertainty | None
    findings: Uncertainty | None
    attention: Tensor
    draw_volumes_ml: Mapping[str, np.ndarray]
    disagreement: float


@torch.inference_mode()
def map_case(
    network: Network, bank: Bank, prepared: Prepared, task: Task, config: Config
) -> CaseMaps:
    """Decode every draw over a whole case, keeping moments only.

    Where windows overlap, their moments are averaged with Gaussian weights. The draws are the same
    in all of them, so the average of variances differs from the variance of the average only by
    what the windows' contexts disagree on.
    """
    canvas = _Canvas(prepared, task, len(bank), 1 + network.findings)
    device = next(network.parameters()).device
    for window in windows(prepared, config):
        canvas.add(window, _decode(network, bank, window.image.to(device), task))
    return canvas.maps()


@dataclass(frozen=True)
class Window:
    """Images [n, c, ...] in display units, and where their maps belong in the case.

    Attributes:
        place: of the maps in the case.
        core: the part of the maps that no other window's core covers, relative to ``place``.
        weight: of the maps in the blend.
        stacked: the n images are slices along the case's last axis.
    """

    image: Tensor
    place: tuple[slice, ...]
    core: tuple[slice, ...]
    weight: Tensor
    stacked: bool = False

    def laid(self, maps: Tensor) -> Tensor:
        """Maps [n, ..., *patch] as they lie in the case."""
        return maps.cpu().movedim(0, -1) if self.stacked else maps.cpu()[0]


def windows(prepared: Prepared, config: Config) -> Iterator[Window]:
    """What the network sees of a case, in turn: slices in batches, or overlapping windows."""
    image = torch.from_numpy(np.array(prepared.image, dtype=np.float32))
    display = to_display(image[None], modality=config.modality, window_hu=config.data.window_hu)[0]
    shape, whole = display.shape[1:], (slice(None),) * (display.dim() - 1)
    if len(shape) == 2:
        yield Window(display[None], whole, whole, torch.ones(()))
    elif config.data.dim == 2:
        for start in range(0, shape[-1], SLICES_PER_BATCH):
            batch = slice(start, min(start + SLICES_PER_BATCH, shape[-1]))
            stack = rearrange(display[..., batch], "c h w n -> n c h w")
            yield Window(stack, (*whole[1:], batch), whole, torch.ones(()), stacked=True)
    else:
        size = tuple(min(p, n) for p, n in zip(config.data.patch, shape, strict=True))
        interval = tuple(max(1, round(n * (1 - OVERLAP))) for n in size)
        weight = compute_importance_map(size, mode="gaussian")
        places = dense_patch_slices(shape, size, interval)
        for place, core in zip(places, _cores(places), strict=True):
            spot: tuple[Any, ...] = (slice(None), *place)
            yield Window(display[spot][None], place, core, weight)


def _cores(places: list[tuple[slice, ...]]) -> list[tuple[slice, ...]]:
    """Of every window the part nearer to its own middle than to its neighbours'."""
    cuts = []
    for ranges in zip(*places, strict=True):
        spans = sorted({(r.start, r.stop) for r in ranges})
        middles = [(b + a) // 2 for (_, b), (a, _) in pairwise(spans)]
        edges = [spans[0][0], *middles, spans[-1][1]]
        cuts.append({s: slice(edges[i] - s[0], edges[i + 1] - s[0]) for i, s in enumerate(spans)})
    return [
        tuple(cut[r.start, r.stop] for cut, r in zip(cuts, place, strict=True)) for place in places
    ]


@dataclass
class _Decoded:
    """A window with all draws reduced: moments, mean attention, and each draw's label maps."""

    voxels: Uncertainty | None
    findings: Uncertainty | None
    attention: Tensor
    labels: list[Tensor]


def _decode(network: Network, bank: Bank, image: Tensor, task: Task) -> _Decoded:
    voxels, findings = Moments("categorical"), Moments("bernoulli")
    attention = image.new_zeros(len(image), 1 + network.findings, *image.shape[2:])
    labels = []
    features = bank.encode(image)
    for t in range(len(bank)):
        output = bank.decode(features, t)
        if output.segmentation is not None:
            probability = output.segmentation.float().softmax(1)
            voxels.update(probability)
            labels.append(probability.argmax(1))
        if output.findings is not None:
            findings.update(output.findings.float().sigmoid())
        if output.attention:
            attention += composite(output.attention, network.beta, image.shape[2:]) / len(bank)
    return _Decoded(
        voxels.uncertainty() if task.classes else None,
        findings.uncertainty() if task.findings else None,
        attention,
        labels,
    )


class _Canvas:
    """The case's maps while windows are added; the only arrays of the case's size."""

    def __init__(self, prepared: Prepared, task: Task, draws: int, maps: int) -> None:
        self.prepared, self.task, self.draws = prepared, task, draws
        shape = prepared.image.shape[1:]
        leading = {"probability": (len(task.classes),)}
        names = BLENDED if task.classes else ()
        self.sums = {name: torch.zeros(*leading.get(name, ()), *shape) for name in names}
        self.attention = torch.zeros(maps, *shape)
        self.weight = torch.zeros(shape)
        self.findings: list[Uncertainty] = []
        self.voxels_of = {region: torch.zeros(draws) for region in task.regions}
        self.shared = torch.zeros(draws, draws)

    def add(self, window: Window, decoded: _Decoded) -> None:
        place: tuple[Any, ...] = (..., *window.place)
        for name, total in self.sums.items():
            total[place] += window.laid(getattr(decoded.voxels, name)) * window.weight
        self.attention[place] += window.laid(decoded.attention) * window.weight
        self.weight[place] += window.weight
        if decoded.findings is not None:
            self.findings.append(decoded.findings)
        if decoded.labels:
            self._count(window, decoded.labels)

    def _count(self, window: Window, labels: list[Tensor]) -> None:
        """Voxels of every region in every draw, each voxel counted in one window only."""
        core: tuple[Any, ...] = (..., *window.core)
        draws = torch.stack([window.laid(x) for x in labels])[core].flatten(1)
        for region, classes in self.task.regions.items():
            members = torch.isin(draws, torch.tensor(classes, dtype=draws.dtype))
            self.voxels_of[region] += members.sum(1)
        foreground = (draws > 0).float()
        self.shared += foreground @ foreground.T

    def maps(self) -> CaseMaps:
        self.attention /= self.weight
        voxel_ml = float(np.prod(self.prepared.spacing_mm)) / 1000
        return CaseMaps(
            voxels=self._uncertainty() if self.task.classes else None,
            findings=_most_probable(self.findings) if self.findings else None,
            attention=self.attention,
            draw_volumes_ml={r: n.numpy() * voxel_ml for r, n in self.voxels_of.items()},
            disagreement=self._disagreement(),
        )

    def _uncertainty(self) -> Uncertainty:
        for total in self.sums.values():
            total /= self.weight
        probability = self.sums["probability"]
        entropy = torch.zeros_like(self.weight)
        for of_class in probability:  # class by class: no second array of all classes
            entropy += torch.special.entr(of_class)
        return Uncertainty(
            **self.sums,
            total=self.sums["epistemic"] + self.sums["aleatoric"],
            entropy_nats=entropy,
            mutual_information_nats=(entropy - self.sums["expected_entropy_nats"]).clamp_(min=0),
        )

    def _disagreement(self) -> float:
        """1 - mean Dice over pairs of draws; two empty draws agree."""
        sizes = self.shared.diagonal()
        both = sizes[:, None] + sizes
        dice = torch.where(both > 0, 2 * self.shared / both.clamp(min=1), 1.0)
        pairs = self.draws * (self.draws - 1)
        return 1 - float(dice.sum() - self.draws) / pairs if pairs and self.task.classes else 0.0


def _most_probable(findings: list[Uncertainty]) -> Uncertainty:
    """Findings of a case: of its one image, or where in it each is most probable."""
    stacked = {
        f.name: torch.cat([getattr(u, f.name).cpu() for u in findings]) for f in fields(Uncertainty)
    }
    where = stacked["probability"].argmax(0, keepdim=True)
    return Uncertainty(**{name: each.gather(0, where)[0] for name, each in stacked.items()})
