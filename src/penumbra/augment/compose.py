"""Families put together: contrastive pairs, supervised augmentation, graded shifts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from penumbra.augment.elastic import Warp
from penumbra.augment.intensity import BiasField, Exposure, Gain, Gamma, Window
from penumbra.augment.kspace import Ghosting, Gibbs, Motion, Rician, Spike, Undersampling
from penumbra.augment.masking import Masking, labelled
from penumbra.augment.metal import Metal
from penumbra.augment.profile import ACQUISITION, INTENSITY, LIMITS, Profile, profile_for
from penumbra.augment.radiograph import Blur, Collimation, PhotonNoise, Scatter
from penumbra.augment.resample import resample
from penumbra.augment.supervoxel import coarse_supervoxels
from penumbra.augment.tomography import BeamHardening, Dose, Kernel
from penumbra.types import IGNORE, Modality


class Family(Protocol):
    """The contract: chance in ``sample``, none in ``apply``."""

    @classmethod
    def sample(
        cls, generator: torch.Generator, shape: Sequence[int], profile: Profile
    ) -> "Family": ...

    def apply(self, image: Tensor) -> Tensor: ...


FAMILIES: Mapping[str, type[Family]] = {
    "gamma": Gamma,
    "gain": Gain,
    "bias_field": BiasField,
    "undersampling": Undersampling,
    "gibbs": Gibbs,
    "motion": Motion,
    "ghosting": Ghosting,
    "spike": Spike,
    "rician": Rician,
    "window": Window,
    "kernel": Kernel,
    "beam_hardening": BeamHardening,
    "dose": Dose,
    "metal": Metal,
    "exposure": Exposure,
    "photon_noise": PhotonNoise,
    "scatter": Scatter,
    "blur": Blur,
    "collimation": Collimation,
}
"""Every family that leaves the anatomy where it is."""


OUTSIDE: Mapping[Modality, Literal["border", "zeros"]] = {
    "mri": "border",
    "ct": "border",
    "xray": "zeros",
}
"""Beyond the scan: more of the air at its border, or the black around a film, which holds tissue
up to its edges (repeated, they would be streaks)."""


@dataclass(frozen=True)
class View:
    """One view of a batch.

    Attributes:
        body: the body, moved with the image; outside of the scan it is False.
        acquisition: which of the modality's acquisition families was applied to each image, 0 for
            none; a view of another acquisition must not be asked for its scan's protocol.
        centre: where the view's centre lies in the original image, 0..1 per axis (0.5: unmoved).
        extent: its sides over those of the original image.
        positions: where every voxel lies in the original image, as ``resample`` wants it.
        clean: the moved image before grey values changed and regions were hidden.
        hidden: the hidden voxels.
    """

    image: Float[Tensor, "b c *space"]
    body: Bool[Tensor, "b *space"]
    acquisition: Int[Tensor, " b"]
    centre: Float[Tensor, "b dim"]
    extent: Float[Tensor, " b"]
    positions: Float[Tensor, "b *space dim"]
    clean: Float[Tensor, "b c *space"]
    hidden: Bool[Tensor, "b *space"]


def two_views(
    image: Float[Tensor, "b c *space"],
    *,
    modality: Modality,
    generator: torch.Generator,
    body: Bool[Tensor, "b *space"],
    spacing_mm: tuple[float, ...] | None = None,
    labels: Int[Tensor, "b *space"] | None = None,
    kind: Literal["anatomy", "generic"] = "anatomy",
    held_out: Collection[str] = (),
) -> tuple[View, View]:
    """Two views of every image: crop, deformation, intensity, acquisition, masked regions.

    The first view keeps its protocol, so it is the one from which a protocol may be predicted; the
    second gets one acquisition family per image as well. ``generic`` is the ablation's baseline:
    crop and intensity only, in both. Proposal 2.1.2.

    Args:
        labels: known structures, each masked as a whole or not at all; elsewhere, and without
            them, supervoxels are masked.
        spacing_mm: voxel size per axis; without it amplitudes count voxels as millimetres.
        held_out: families that no view may show, so that they stay new to the model.
    """
    rows = profile_for(modality, spacing_mm)
    intensity = kept(INTENSITY[modality], held_out)
    acquisition = kept(ACQUISITION[modality], held_out)
    if kind == "generic":
        rows = rows.at("elastic", 0)
    regions = coarse_supervoxels(image) if kind == "anatomy" else None
    if regions is not None and labels is not None:
        regions = labelled(labels, regions)
    views = []
    for changes_protocol in (False, kind == "anatomy"):
        warp = Warp.sample(generator, image.shape, rows)
        where = warp.positions(image)
        clean = moved = resample(image, where, padding=OUTSIDE[modality])
        inside = resample(body[:, None].to(image), where, "nearest", "zeros")[:, 0] > 0.5
        for name in intensity:
            moved = _some(moved, name, rows, generator, 0.8)
        pick = torch.zeros(len(image), dtype=torch.int64, device=image.device)
        if changes_protocol:
            moved, pick = _one_of(moved, acquisition, rows, generator, 0.8)
        moved = moved.clamp(*LIMITS[modality])
        hidden = torch.zeros_like(body)
        if regions is not None:
            seen = resample(regions[:, None].to(image), where, "nearest")[:, 0].to(regions.dtype)
            masking = Masking.sample(generator, image.shape, rows, inside, seen)
            moved, hidden = masking.apply(moved), masking.hidden
        centre, extent = (value.to(image) for value in warp.box(image.shape[2:]))
        views.append(View(moved, inside, pick, centre, extent, where, clean, hidden))
    return views[0], views[1]


def augment(
    image: Float[Tensor, "b c *space"],
    segmentation: Int[Tensor, "b *space"] | None = None,
    masks: Float[Tensor, "b m *space"] | None = None,
    *,
    modality: Modality,
    generator: torch.Generator,
    probability: float = 0.5,
    spacing_mm: tuple[float, ...] | None = None,
    held_out: Collection[str] = (),
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Supervised augmentation: labels and expert masks move with the image.

    Per image and with ``probability`` each: a warp, every intensity family, one acquisition
    family. No flips: they would change laterality and situs. Voxels from outside of the scan hold
    what ``OUTSIDE`` says in the image and are ignored in the segmentation. Families ``held_out``
    of training are never shown.

    Raises:
        ValueError: the probability is not in 0..1.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {probability} is not between 0 and 1")
    rows = profile_for(modality, spacing_mm)
    index = _chosen(image, generator, probability)
    if len(index):
        warp = Warp.sample(generator, (len(index), *image.shape[1:]), rows)
        image = image.index_copy(0, index, warp.apply(image[index], padding=OUTSIDE[modality]))
        if segmentation is not None:
            shifted = (segmentation[index] - IGNORE)[:, None].to(image)
            moved = warp.apply(shifted, "nearest", "zeros")[:, 0].to(segmentation.dtype) + IGNORE
            segmentation = segmentation.index_copy(0, index, moved)
        if masks is not None:
            moved_masks = warp.apply(masks[index], "bilinear", "zeros")
            masks = masks.index_copy(0, index, moved_masks)
    for name in kept(INTENSITY[modality], held_out):
        image = _some(image, name, rows, generator, probability)
    acquisition = kept(ACQUISITION[modality], held_out)
    image, _ = _one_of(image, acquisition, rows, generator, probability)
    return image.clamp(*LIMITS[modality]), segmentation, masks


def shift(
    image: Float[Tensor, "b c *space"],
    *,
    family: str,
    severity: int,
    modality: Modality,
    generator: torch.Generator,
    body: Bool[Tensor, "b *space"] | None = None,
    spacing_mm: tuple[float, ...] | None = None,
) -> Float[Tensor, "b c *space"]:
    """The image under one family at a fixed severity of 1-5; 0 gives the image back.

    ``elastic`` moves the anatomy, so labels no longer fit; ``families`` lists those that do not.

    Raises:
        ValueError: the family does not exist for this modality, or the severity is not 0..5.
    """
    rows = profile_for(modality, spacing_mm).at(family, severity)
    if severity == 0:
        return image
    if family == "elastic":
        warp = Warp.sample_elastic(generator, image.shape, rows)
        return warp.apply(image, padding=OUTSIDE[modality])
    if family in ("zoom", "rotation"):
        still = rows.at("elastic", 0)
        other = "rotation" if family == "zoom" else "zoom"
        warp = Warp.sample(generator, image.shape, still.at(other, 0))
        return warp.apply(image, padding=OUTSIDE[modality])
    if family == "masking":
        regions = coarse_supervoxels(image)
        return Masking.sample(generator, image.shape, rows, body, regions).apply(image)
    changed = FAMILIES[family].sample(generator, image.shape, rows).apply(image)
    return changed.clamp(*LIMITS[modality])


def kept(names: Sequence[str], held_out: Collection[str]) -> tuple[str, ...]:
    """The families that training may show.

    Example:
        >>> kept(("gamma", "gain"), held_out={"gain"})
        ('gamma',)
    """
    return tuple(name for name in names if name not in held_out)


def _chosen(image: Tensor, generator: torch.Generator, probability: float) -> Tensor:
    coin = torch.rand(image.shape[0], generator=generator, device=generator.device)
    return (coin < probability).nonzero()[:, 0].to(image.device)


def _some(
    image: Tensor, name: str, rows: Profile, generator: torch.Generator, probability: float
) -> Tensor:
    """One family on a random part of the batch."""
    return _on(image, _chosen(image, generator, probability), name, rows, generator)


def _one_of(
    image: Tensor,
    names: Sequence[str],
    rows: Profile,
    generator: torch.Generator,
    probability: float,
) -> tuple[Tensor, Int[Tensor, " b"]]:
    """At most one family per image (several artefacts at once are rare, and cost time), and which.

    Families count from one; 0 is none.
    """
    lot = torch.rand(image.shape[0], generator=generator, device=generator.device)
    pick = (lot / max(probability, 1e-12) * len(names)).floor().long().to(image.device)
    for i, name in enumerate(names):
        image = _on(image, (pick == i).nonzero()[:, 0], name, rows, generator)
    return image, torch.where(pick < len(names), pick + 1, 0)


def _on(
    image: Tensor, index: Tensor, name: str, rows: Profile, generator: torch.Generator
) -> Tensor:
    if not len(index):
        return image
    params = FAMILIES[name].sample(generator, (len(index), *image.shape[1:]), rows)
    return image.index_copy(0, index, params.apply(image[index]))
