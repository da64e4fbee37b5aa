"""Phantom cohorts on disk, in the layouts of the public benchmarks, with everything true beside."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from penumbra.data.phantom_files import Plan, write_ct, write_mri, write_xray
from penumbra.errors import ConfigError, DataError
from penumbra.types import Modality, Part

SHAPES: dict[Modality, tuple[int, ...]] = {
    "mri": (64, 64, 24),
    "ct": (64, 64, 24),
    "xray": (96, 96),
}


def write_phantom(
    root: Path,
    *,
    modality: Modality,
    cases: int,
    seed: int,
    shape: tuple[int, ...] | None = None,
    ambiguity: float = 0.0,
    scanners: int = 3,
    shifted: bool = True,
) -> None:
    """Write a cohort to ``root``, which must not exist or be empty; the same arguments, same bytes.

    MRI: BraTS folders; CT: multi-atlas ``imagesTr``/``labelsTr``; both with ``splits.json`` and
    ``participants.csv`` (subject, split, site, protocol). X-ray: CheXpert CSVs with
    ``regions.csv``, ``masks/`` and each film's site in ``metadata.csv``. Three in ten patients are
    test and 15 % validation; scanners take turns, and with ``shifted`` half of the test patients
    come from a scanner that no other case has ("site-shift").

    ``truth/`` holds what real data never has: all readers' labels and their exact probability.

    Args:
        shape: voxels (volumes, default 64x64x24) or pixels (radiographs, default 96x96).
        ambiguity: how far readers disagree; 0 not at all, 1 by 4 mm at a boundary or 0.2 in
            severity. The label written is always the first reader's.
        scanners: how many of the three training scanners are used.

    Raises:
        ConfigError: fewer than three cases, a shape of the wrong length or under 8, ...
        DataError: ``root`` holds files already.
    """
    shape = SHAPES[modality] if shape is None else shape
    _check(modality, cases, shape, ambiguity, scanners)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: exists already; choose a new or empty folder for the phantom")
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    plans = plan(cases, seed=seed, scanners=scanners, shifted=shifted, studies=modality == "xray")
    match modality:
        case "mri":
            write_mri(partial, plans, shape, ambiguity)
        case "ct":
            write_ct(partial, plans, shape, ambiguity)
        case "xray":
            write_xray(partial, root.name, plans, shape, ambiguity)
    os.replace(partial, root)


def plan(cases: int, *, seed: int, scanners: int, shifted: bool, studies: bool) -> list[Plan]:
    """Who is scanned where: parts by patient; with ``studies`` every fourth patient comes twice."""
    numbers = list(range(cases))
    patient = [n - (n + 1) // 5 if studies else n for n in numbers]
    people = patient[-1] + 1
    test = max(1, round(0.3 * people))
    val = max(1, round(0.15 * people))
    odd = test // 2 if shifted else 0
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(2 * cases, np.uint32)]

    def part(person: int) -> Part:
        if person < people - test - val:
            return "train"
        return "val" if person < people - test else "test"

    return [
        Plan(
            n,
            patient[n],
            part(patient[n]),
            None if patient[n] >= people - odd else patient[n] % scanners,
            seeds[n],
            seeds[cases + patient[n]],
        )
        for n in numbers
    ]


def _check(
    modality: Modality, cases: int, shape: Sequence[int], ambiguity: float, scanners: int
) -> None:
    if cases < 3:
        raise ConfigError(f"phantom: {cases} case(s) asked; at least 3 (train, val, test) needed")
    if len(shape) != len(SHAPES[modality]) or min(shape) < 8:
        wanted = "x".join(map(str, SHAPES[modality]))
        raise ConfigError(
            f"phantom: shape {tuple(shape)} does not fit {modality}; e.g. {wanted}, 8 at least"
        )
    if not 0 <= ambiguity <= 2:
        raise ConfigError(f"phantom: ambiguity {ambiguity} is outside 0..2")
    if not 1 <= scanners <= 3:
        raise ConfigError(f"phantom: {scanners} scanners asked; 1 to 3 can be simulated")
