"""What is plausible per modality: one table each, with the reason or source of every range.

A family of views has one knob, its *amount*; zero (or the row's ``neutral``) is the identity.
Training views draw it from ``low..high``; a graded shift of severity 1-5 uses one fixed value.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from penumbra.types import Modality

Number = float | int
FiveLevels = tuple[Number, Number, Number, Number, Number]


@dataclass(frozen=True, slots=True)
class Amount:
    """The range of one family's knob; ``log`` amounts are drawn log-uniformly."""

    low: float
    high: float
    severity: FiveLevels
    unit: str
    why: str
    scale: Literal["linear", "log"] = "linear"
    neutral: float = 0.0


Table = Mapping[str, Amount]

# Shared by all modalities: geometry and masking.
_ELASTIC = Amount(
    0.0, 5.0, (1, 2, 3.5, 5, 7), "mm",
    "soft tissue moves up to about 5 mm between scans of one patient; respiration is beyond it",
)  # fmt: skip
_ZOOM = Amount(
    0.0, 0.3, (0.05, 0.1, 0.15, 0.2, 0.3), "share",
    "adult head and trunk sizes vary by 10-15 %; the crop of a contrastive pair wants more",
)  # fmt: skip
_ROTATION = Amount(
    0.0, 8.0, (2, 4, 6, 8, 10), "degrees",
    "tilt that positioning aids leave; larger tilts are repeated by the technologist",
)  # fmt: skip
_MASKING = Amount(
    0.15, 0.30, (0.1, 0.15, 0.2, 0.25, 0.3), "share of the body",
    "proposal 2.1.2: 15-30 % of the body",
)  # fmt: skip

MRI: Table = {
    "elastic": _ELASTIC,
    "zoom": _ZOOM,
    "rotation": _ROTATION,
    "masking": _MASKING,
    "gamma": Amount(
        0.0, 0.35, (0.15, 0.3, 0.45, 0.6, 0.8), "|log gamma|",
        "TE/TR and vendor display curves; 0.7-1.42 is also what nnU-Net found useful",
    ),
    "gain": Amount(
        0.0, 0.2, (0.1, 0.2, 0.3, 0.4, 0.5), "|relative change|",
        "receiver gain is arbitrary; percentile scaling leaves about 20 % of it",
    ),
    "bias_field": Amount(
        0.0, 0.3, (0.1, 0.2, 0.3, 0.4, 0.5), "peak |log field|",
        "10-40 % at 1.5-3 T (Sled et al. 1998; BrainWeb ships 20 % and 40 %)",
    ),
    "undersampling": Amount(
        1.25, 2.5, (1.25, 1.5, 2, 2.5, 3.5), "acceleration",
        "routine acceleration is 2-4, but coils fill part of it in; zero-filled 4 is unreadable",
        neutral=1.0,
    ),
    "gibbs": Amount(
        0.1, 0.5, (0.2, 0.35, 0.5, 0.6, 0.7), "share of lines not acquired",
        "phase resolutions of 50-90 % with zero filling are routine",
    ),
    "motion": Amount(
        0.5, 3.0, (0.5, 1, 2, 3, 5), "mm",
        "head motion in clinical scans: median 1-2 mm, above 3 mm repeated (Andre et al. 2015)",
    ),
    "ghosting": Amount(
        0.05, 0.2, (0.05, 0.1, 0.15, 0.2, 0.3), "ghost over signal",
        "flow and respiratory ghosts; ACR accepts 2.5 % in a still phantom",
    ),
    "spike": Amount(
        0.02, 0.08, (0.02, 0.05, 0.08, 0.12, 0.18), "stripe amplitude, display fraction",
        "herringbone artefact of a single corrupted k-space point",
    ),
    "rician": Amount(
        0.01, 0.06, (0.02, 0.04, 0.06, 0.09, 0.13), "sigma, display fraction",
        "SNR 100 down to 15 at full signal (Gudbjartsson & Patz 1995 for the law)",
    ),
}  # fmt: skip

CT: Table = {
    "elastic": _ELASTIC,
    "zoom": _ZOOM,
    "rotation": _ROTATION,
    "masking": _MASKING,
    "window": Amount(
        0.0, 15.0, (10, 20, 30, 45, 60), "|HU|",
        "water is held within 4-7 HU by quality control; contrast phase moves organs by tens of HU",
    ),
    "kernel": Amount(
        0.2, 0.8, (0.4, 0.7, 1.0, 1.25, 1.5), "|sigma|, mm",
        "soft (B20-B30) to sharp (B50-B70) reconstruction kernels differ by 0.5-1 mm in resolution",
    ),
    "beam_hardening": Amount(
        0.1, 0.6, (0.2, 0.4, 0.6, 0.8, 1.0), "share left uncorrected",
        "scanners correct for water; bone and table hardening stays (Brooks & Di Chiro 1976)",
    ),
    "dose": Amount(
        3e5, 5e6, (2e6, 1e6, 4e5, 1.5e5, 5e4), "photons per mm and view, 1000 views",
        "5e6: 12 HU behind 30 cm of water at 1 mm, a routine abdomen; 3e5: a low-dose screening",
        scale="log", neutral=math.inf,
    ),
    "metal": Amount(
        2.0, 6.0, (1.5, 3, 4.5, 6, 8), "diameter, mm",
        "surgical clips 2-5 mm, pedicle screws 5-8 mm",
    ),
}  # fmt: skip

XRAY: Table = {
    "elastic": _ELASTIC,
    "zoom": _ZOOM,
    "rotation": _ROTATION,
    "masking": _MASKING,
    "exposure": Amount(
        0.0, 0.1, (0.05, 0.1, 0.15, 0.2, 0.3), "|shift|, display fraction",
        "automatic exposure control holds the dose within +-25 %, manual bedside films do not",
    ),
    "gamma": Amount(
        0.0, 0.35, (0.15, 0.3, 0.45, 0.6, 0.8), "|log gamma|",
        "slope of the characteristic curve differs between detectors and vendors",
    ),
    "photon_noise": Amount(
        5e2, 5e3, (2e3, 1e3, 5e2, 2.5e2, 1.2e2), "photons per pixel behind air",
        "quantum mottle of downsampled chest films; bedside exposures are 2-4 times lower",
        scale="log", neutral=math.inf,
    ),
    "scatter": Amount(
        0.05, 0.4, (0.1, 0.2, 0.4, 0.7, 1.0), "scatter to mean primary",
        "chest without grid 0.5-2, behind a grid 0.1-0.4 (Niklason et al. 1981)",
    ),
    "blur": Amount(
        0.3, 1.2, (0.5, 0.8, 1.2, 1.7, 2.4), "sigma, pixels",
        "focal spot, cardiac and respiratory motion at long bedside exposures",
    ),
    "collimation": Amount(
        0.02, 0.12, (0.03, 0.06, 0.1, 0.14, 0.18), "covered share per side",
        "light field edges inside the picture; shutters are part of clinical films",
    ),
}  # fmt: skip

TABLES: Mapping[Modality, Table] = {"mri": MRI, "ct": CT, "xray": XRAY}

INTENSITY: Mapping[Modality, tuple[str, ...]] = {
    "mri": ("gamma", "gain", "bias_field"),
    "ct": ("window",),
    "xray": ("exposure", "gamma"),
}
"""Changes of grey values that any single protocol already shows."""

ACQUISITION: Mapping[Modality, tuple[str, ...]] = {
    "mri": ("undersampling", "gibbs", "motion", "ghosting", "spike", "rician"),
    "ct": ("kernel", "beam_hardening", "dose", "metal"),
    "xray": ("photon_noise", "scatter", "blur", "collimation"),
}
"""Changes of how the picture was taken: they alter what a protocol classifier should say."""

LIMITS: Mapping[Modality, tuple[float, float]] = {
    "mri": (0.0, 1.0),
    "ct": (-1024.0, 3071.0),
    "xray": (0.0, 1.0),
}
"""Range of stored values; CT is the 12-bit Hounsfield scale."""


def families(modality: Modality) -> tuple[str, ...]:
    """Names of the families that leave the anatomy where it is: the graded shifts.

    Example:
        >>> families("ct")
        ('window', 'kernel', 'beam_hardening', 'dose', 'metal')
    """
    return INTENSITY[modality] + ACQUISITION[modality]


@dataclass(frozen=True, slots=True)
class Profile:
    """A modality's table together with the voxel spacing of the images at hand.

    ``spacing_mm`` has one entry per spatial axis; ``None`` means 1 mm.
    """

    modality: Modality
    table: Table
    spacing_mm: tuple[float, ...] | None = None

    def spacing(self, dim: int) -> tuple[float, ...]:
        """Voxel spacing in mm of ``dim`` axes.

        Raises:
            ValueError: the spacing has another number of axes, or is not positive.
        """
        if self.spacing_mm is None:
            return (1.0,) * dim
        if len(self.spacing_mm) != dim or min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm {self.spacing_mm} does not fit an image of {dim} axes")
        return tuple(float(s) for s in self.spacing_mm)

    def draw(self, family: str, generator: torch.Generator, count: int) -> Tensor:
        """``count`` amounts of one family, in the unit of its row."""
        row = self.table[family]
        share = torch.rand(count, generator=generator, device=generator.device)
        if row.scale == "log" and math.isfinite(row.low):
            return row.low * (row.high / row.low) ** share
        if row.low == row.high:
            return torch.full_like(share, row.low)
        return row.low + (row.high - row.low) * share

    def at(self, family: str, severity: int) -> "Profile":
        """The same profile with one family fixed at a severity; 0 is the identity.

        Raises:
            ValueError: the family is not one of this modality, or the severity is not 0..5.
        """
        if family not in self.table:
            known = ", ".join(self.table)
            raise ValueError(f"no family {family!r} for {self.modality}; there are: {known}")
        row = self.table[family]
        if severity not in range(6):
            raise ValueError(f"severity {severity} is not one of 0 (identity) to 5")
        value = float(row.severity[severity - 1]) if severity else row.neutral
        fixed = replace(row, low=value, high=value)
        return replace(self, table={**self.table, family: fixed})


def profile_for(modality: Modality, spacing_mm: tuple[float, ...] | None = None) -> Profile:
    """The shipped profile of a modality."""
    return Profile(modality, TABLES[modality], spacing_mm)


def random_sign(generator: torch.Generator, count: int) -> Tensor:
    """-1 or +1 with equal chance."""
    coin = torch.rand(count, generator=generator, device=generator.device)
    return torch.where(coin < 0.5, -1.0, 1.0)


def draw_seed(generator: torch.Generator) -> int:
    """A seed for noise that is drawn later, on the image's own device."""
    return int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
