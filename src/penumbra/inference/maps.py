"""Scan -> posterior draws -> maps: one case at a time, every window sharing the same draws.

Slice-wise networks see batches of whole slices; volumetric networks see overlapping windows whose
probabilities are blended per draw before any moment is taken, so that the maps carry no seams.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from penumbra.types import Output, Task, Uncertainty

SLICES_PER_BATCH = 16
OVERLAP = 0.5


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
    """Decode every draw over a whole case and keep streaming moments only."""
    if config.data.dim == 2:
        pieces = [_map_images(network, bank, x, task) for x in _slices(prepared, config)]
        return _join(pieces, prepared, task)
    return _map_volume(network, bank, prepared, task, config)


def _slices(prepared: Prepared, config: Config) -> Iterator[Tensor]:
    """Batches [n, c, h, w] in display units: a radiograph, or a volume's axial slices."""
    image = torch.from_numpy(np.array(prepared.image, dtype=np.float32))
    stack = image[None] if image.dim() == 3 else rearrange(image, "c h w n -> n c h w")
    display = to_display(stack, modality=config.modality, window_hu=config.data.window_hu)
    yield from display.split(SLICES_PER_BATCH)


@dataclass
class _Piece:
    """Slices or windows with all their draws reduced."""

    voxels: Uncertainty | None
    findings: Uncertainty | None
    attention: Tensor
    labels: list[Tensor]  # per draw, the most probable class of every voxel


def _map_images(network: Network, bank: Bank, image: Tensor, task: Task) -> _Piece:
    image = image.to(next(network.parameters()).device)
    voxels, findings = Moments("categorical"), Moments("bernoulli")
    attention: Tensor | None = None
    labels = []
    features = bank.encode(image)
    for t in range(len(bank)):
        output = bank.decode(features, t)
        if output.segmentation is not None:
            probability = output.segmentation.float().softmax(1)
            voxels.update(probability)
            labels.append(probability.argmax(1).to(torch.uint8).cpu())
        if output.findings is not None:
            findings.update(output.findings.float().sigmoid())
        maps = _attention(network, output, image) / len(bank)
        attention = maps if attention is None else attention + maps
    assert attention is not None
    return _Piece(
        voxels=voxels.uncertainty() if task.classes else None,
        findings=findings.uncertainty() if task.findings else None,
        attention=attention,
        labels=labels,
    )


def _attention(network: Network, output: Output, image: Tensor) -> Tensor:
    if not output.attention:
        return image.new_zeros(len(image), 1 + network.findings, *image.shape[2:])
    return composite(output.attention, network.beta, image.shape[2:])


def _join(pieces: list[_Piece], prepared: Prepared, task: Task) -> CaseMaps:
    """Stack slices back to the case's own grid."""
    volume = prepared.image.ndim == 4

    def stacked(parts: list[Tensor]) -> Tensor:
        whole = torch.cat([p.cpu() for p in parts])
        return torch.movedim(whole, 0, -1) if volume else whole[0]

    def merged(uncertainties: list[Uncertainty]) -> Uncertainty:
        fields = Uncertainty.__dataclass_fields__
        return Uncertainty(**{f: stacked([getattr(u, f) for u in uncertainties]) for f in fields})

    draws = [stacked([p.labels[t] for p in pieces]) for t in range(len(pieces[0].labels))]
    return CaseMaps(
        voxels=merged([p.voxels for p in pieces if p.voxels]) if task.classes else None,
        findings=_whole_case([p.findings for p in pieces if p.findings]) if task.findings else None,
        attention=stacked([p.attention for p in pieces]),
        draw_volumes_ml=_volumes_ml(draws, prepared, task),
        disagreement=_disagreement(draws),
    )


def _whole_case(findings: list[Uncertainty]) -> Uncertainty:
    """Findings of a case: of the one image, or of the slice where each is most probable."""
    fields = Uncertainty.__dataclass_fields__
    stacked = {f: torch.cat([getattr(u, f).cpu() for u in findings]) for f in fields}
    where = stacked["probability"].argmax(0, keepdim=True)
    return Uncertainty(**{f: values.gather(0, where)[0] for f, values in stacked.items()})


def _map_volume(
    network: Network, bank: Bank, prepared: Prepared, task: Task, config: Config
) -> CaseMaps:
    """Blend each draw's windows into one volume, then take moments over draws."""
    image = torch.from_numpy(np.array(prepared.image, dtype=np.float32))[None]
    image = to_display(image, modality=config.modality, window_hu=config.data.window_hu)
    image = image.to(next(network.parameters()).device)
    size = tuple(min(p, n) for p, n in zip(config.data.patch, image.shape[2:], strict=True))
    interval = tuple(max(1, round(n * (1 - OVERLAP))) for n in size)
    windows = dense_patch_slices(image.shape[2:], size, interval)
    weight = compute_importance_map(size, mode="gaussian", device=image.device)
    voxels, findings, labels = Moments("categorical"), Moments("bernoulli"), []
    attention = image.new_zeros(1, 1 + network.findings, *image.shape[2:])
    for t in range(len(bank)):
        blend = _Blend(image, weight)
        for window in windows:
            output = bank.decode(bank.encode(image[(..., *window)]), t)
            blend.add(window, output, _attention(network, output, image[(..., *window)]))
        if task.classes:
            probability = blend.probability()
            voxels.update(probability)
            labels.append(probability.argmax(1)[0].to(torch.uint8).cpu())
        if task.findings:
            findings.update(torch.stack(blend.findings).amax(0))
        attention += blend.attention() / len(bank)
    return CaseMaps(
        voxels=_first(voxels.uncertainty()) if task.classes else None,
        findings=_first(findings.uncertainty()) if task.findings else None,
        attention=attention[0].cpu(),
        draw_volumes_ml=_volumes_ml(labels, prepared, task),
        disagreement=_disagreement(labels),
    )


class _Blend:
    """Gaussian-weighted sums of one draw's windows."""

    def __init__(self, image: Tensor, weight: Tensor) -> None:
        self.shape, self.weight = image.shape[2:], weight
        self.total = image.new_zeros(1, 1, *self.shape)
        self.sums: Tensor | None = None
        self.maps: Tensor | None = None
        self.findings: list[Tensor] = []

    def add(self, window: tuple[slice, ...], output: Output, maps: Tensor) -> None:
        place: tuple[Any, ...] = (..., *window)
        if output.segmentation is not None:
            probability = output.segmentation.float().softmax(1) * self.weight
            if self.sums is None:
                self.sums = probability.new_zeros(1, probability.shape[1], *self.shape)
            self.sums[place] += probability
        if output.findings is not None:
            self.findings.append(output.findings.float().sigmoid())
        if self.maps is None:
            self.maps = maps.new_zeros(1, maps.shape[1], *self.shape)
        self.maps[place] += maps * self.weight
        self.total[place] += self.weight

    def probability(self) -> Tensor:
        assert self.sums is not None
        blended = self.sums / self.total
        return blended / blended.sum(1, keepdim=True)

    def attention(self) -> Tensor:
        assert self.maps is not None
        return self.maps / self.total


def _first(uncertainty: Uncertainty) -> Uncertainty:
    fields = Uncertainty.__dataclass_fields__
    return Uncertainty(**{f: getattr(uncertainty, f)[0].cpu() for f in fields})


def _volumes_ml(draws: list[Tensor], prepared: Prepared, task: Task) -> dict[str, np.ndarray]:
    voxel_ml = float(np.prod(prepared.geometry.spacing_mm)) / 1000
    return {
        region: np.array(
            [sum(int((draw == c).sum()) for c in classes) * voxel_ml for draw in draws]
        )
        for region, classes in task.regions.items()
    }


def _disagreement(draws: list[Tensor]) -> float:
    """1 - mean Dice over pairs of draws' foregrounds; two empty draws agree."""
    foregrounds = [(draw > 0).flatten() for draw in draws]
    sizes = [int(f.sum()) for f in foregrounds]
    dice = [
        2 * int((foregrounds[i] & foregrounds[j]).sum()) / max(1, sizes[i] + sizes[j])
        if sizes[i] + sizes[j]
        else 1.0
        for i in range(len(draws))
        for j in range(i)
    ]
    return 1.0 - float(np.mean(dice)) if dice else 0.0
