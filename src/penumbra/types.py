"""The vocabulary: axis letters and the records that cross stages.

Axes: ``t`` posterior draws, ``b`` batch, ``c`` channels or classes, ``f`` findings,
``*space`` voxel axes (RAS+ for volumes, rows and columns for radiographs).

Units of a stored or augmented image, by modality:
``ct`` Hounsfield units; ``mri`` and ``xray`` fractions of the display range, where 0..1 spans the
0.5-99.5 percentiles of the body (MRI) or the detector's full range (X-ray).
A network only ever sees *display* units: CT windowed to 0..1, the others as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Modality = Literal["mri", "ct", "xray"]
Part = Literal["train", "val", "test"]

IGNORE = -1
"""Class index of a voxel that no loss and no metric counts."""


@dataclass(frozen=True, slots=True)
class Case:
    """One scan of one patient, as files; nothing is read yet.

    Attributes:
        images: channel name -> file (or folder, for a DICOM series). A missing channel is absent.
        segmentation: label map in the grid of the images.
        findings: finding -> 1 present, 0 absent, -1 uncertain; NaN or absent: not stated.
        masks: finding or structure -> expert mask file, in the grid of the images.
        roi: organ or body mask.
    """

    id: str
    patient: str
    images: Mapping[str, Path]
    segmentation: Path | None = None
    findings: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, Path] = field(default_factory=dict)
    roi: Path | None = None
    site: str | None = None
    protocol: str | None = None
    part: Part | None = None

    def plot(self) -> "Figure":
        """Every channel on the slice with most to see, labels outlined, as a matplotlib figure.

        Raises:
            DataError: a file cannot be read, or its grid differs from the first image's.
        """
        # A record lies below the room that reads files; only this view of it looks up.
        figure: Figure = import_module("penumbra.data.picture").plot(self)
        return figure

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        facts: dict[str, object] = {"patient": self.patient, "part": self.part, "site": self.site}
        facts |= {"protocol": self.protocol} | dict(self.images)
        facts |= {"segmentation": self.segmentation, **self.findings}
        rows = (
            f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>"
            for name, value in facts.items()
            if value is not None
        )
        return f"<table><caption>{escape(self.id)}</caption>{''.join(rows)}</table>"


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of every case of a cohort.

    Attributes:
        classes: mutually exclusive voxel classes, ``classes[0]`` the background; empty: none asked.
        label_values: value in a label file -> index into ``classes``.
        regions: evaluated structure -> class indices whose union it is (BraTS: WT, TC, ET).
        findings: image-level labels, each its own Bernoulli.
    """

    modality: Modality
    channels: tuple[str, ...]
    classes: tuple[str, ...] = ()
    label_values: Mapping[int, int] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cohort:
    """Cases that share one task."""

    name: str
    task: Task
    cases: tuple[Case, ...]

    def part(self, part: Part) -> "Cohort":
        """The cases whose ``part`` is ``part``."""
        return Cohort(self.name, self.task, tuple(c for c in self.cases if c.part == part))


@dataclass(frozen=True, slots=True)
class Output:
    """What one pass of the network says; every field is logits except ``attention``.

    Attributes:
        segmentation: class logits on the input grid.
        findings: one logit per finding.
        attention: the gate maps A^l in [0, 1], finest level first, each on its own level's grid;
            one map for a segmentation task, then one per finding.
        spread: log-variances of the class logits, then their factors, where the network predicts
            them (``penumbra.bayes.spread``); ``segmentation`` is then the logits' mean.
        deep: class logits of coarser levels, finest first, for deep supervision while training.
    """

    segmentation: Float[Tensor, "b c *space"] | None
    findings: Float[Tensor, "b f"] | None
    attention: tuple[Tensor, ...] = ()
    spread: Float[Tensor, "b k *space"] | None = None
    deep: tuple[Float[Tensor, "b c *space"], ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Uncertainty:
    """The law of total variance, and the entropy family, per voxel or per finding.

    ``total = epistemic + aleatoric``; ``mutual_information = entropy - expected_entropy``.
    The class axis is gone for categorical draws and kept for Bernoulli findings.
    """

    probability: Tensor
    epistemic: Tensor
    aleatoric: Tensor
    total: Tensor
    entropy_nats: Tensor
    expected_entropy_nats: Tensor
    mutual_information_nats: Tensor

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.epistemic.shape)
        means = ", ".join(
            f"{name} {float(getattr(self, name).float().mean()):.3g}"
            for name in ("epistemic", "aleatoric", "total")
        )
        return f"Uncertainty({shape}; means: {means})"

    def plot(self, at: Any = ...) -> "Figure":
        """Epistemic and aleatoric maps side by side; ``at`` picks the plane.

        ``plot(0)`` is the first image of a batch, ``plot((..., 12))`` the axial slice 12.

        Raises:
            ValueError: ``at`` does not leave two axes.
        """
        from matplotlib.figure import Figure

        planes = {name: getattr(self, name)[at].float().cpu() for name in _COLORS}
        if planes["epistemic"].ndim != 2:
            shape = tuple(self.epistemic.shape)
            raise ValueError(f"maps of shape {shape} need an index that leaves two axes, got {at}")
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        for axes, (name, plane) in zip(figure.subplots(1, 2), planes.items(), strict=True):
            figure.colorbar(axes.imshow(plane, cmap=_COLORS[name]), ax=axes)
            axes.set_title(name)
        return figure


_COLORS = {"epistemic": "magma", "aleatoric": "viridis"}
