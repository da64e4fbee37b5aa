"""How the phantoms are written: BraTS folders, multi-atlas, CheXpert CSVs, and their truth."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Shaped
from PIL import Image

from penumbra.data import phantom_ct, phantom_mri, phantom_signal, phantom_xray
from penumbra.data.phantom_shapes import PhantomCase
from penumbra.types import Part

CHEXPERT_FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
CHEXPERT_PARTS: dict[Part, str] = {"train": "train", "val": "valid", "test": "test"}
NOT_STATED = 0.05
"""Share of a training film's findings that its report leaves out (blank in the CSV)."""
HEDGED = 0.05
"""A training report calls a severity this close to the threshold uncertain (-1)."""
FINDING_OF_REGION = {
    "ground_glass_opacities": "Lung Opacity",
    "consolidation": "Consolidation",
    "pneumothorax": "Pneumothorax",
    "pleural_effusion": "Pleural Effusion",
}
PARTICIPANTS = ("subject", "split", "site", "protocol")


@dataclass(frozen=True, slots=True)
class Plan:
    """One case to be made: which person, which part, which scanner, from which seed."""

    number: int
    patient: int
    part: Part
    scanner: int | None  # None: the shifted one
    seed: int
    patient_seed: int


def write_mri(root: Path, plans: list[Plan], shape: tuple[int, ...], ambiguity: float) -> None:
    """Brains in the BraTS layout, with ``participants.csv`` and the truth beside them."""
    rows = []
    x, y, z = shape
    for p in plans:
        scanner = (
            phantom_signal.SHIFTED if p.scanner is None else phantom_signal.SCANNERS[p.scanner]
        )
        case = phantom_mri.mri_phantom(
            p.seed, shape=(x, y, z), scanner=scanner, ambiguity=ambiguity
        )
        name = f"phantom_{p.number:04d}"
        (root / name).mkdir()
        for channel, image in case.images.items():
            path = root / name / f"{name}_{channel}.nii.gz"
            _save(path, np.rint(image).astype(np.int16), case.spacing_mm, "LPS")
        assert case.segmentation is not None
        _save(root / name / f"{name}_seg.nii.gz", case.segmentation, case.spacing_mm, "LPS")
        _save_truth(root / "truth", name, case, "LPS")
        protocol = f"{scanner.field_t:g}T-{scanner.t1_sequence.replace('_', '-')}"
        rows.append((name, p.part, scanner.name, protocol))
    _write_participants(root, rows)


def write_ct(root: Path, plans: list[Plan], shape: tuple[int, ...], ambiguity: float) -> None:
    """Abdomens in HU in the multi-atlas layout, with ``dataset.json`` and the truth beside them."""
    rows, pairs = [], []
    x, y, z = shape
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    for p in plans:
        scanner = phantom_ct.SHIFTED if p.scanner is None else phantom_ct.SCANNERS[p.scanner]
        case = phantom_ct.ct_phantom(p.seed, shape=(x, y, z), scanner=scanner, ambiguity=ambiguity)
        name = f"img{p.number + 1:04d}"
        image, label = f"imagesTr/{name}.nii.gz", f"labelsTr/label{name[3:]}.nii.gz"
        assert case.segmentation is not None
        _save(root / image, case.images["ct"], case.spacing_mm, "LAS")
        _save(root / label, case.segmentation, case.spacing_mm, "LAS")
        _save_truth(root / "truth", name, case, "LAS")
        pairs.append({"image": f"./{image}", "label": f"./{label}"})
        rows.append((name, p.part, scanner.name, f"{scanner.kvp}kVp-{scanner.kernel}"))
    names = {"0": "background", **{str(v): k for k, v in phantom_ct.ORGANS.items()}}
    _write_json(
        root / "dataset.json",
        {"name": "phantom-ct", "modality": {"0": "CT"}, "labels": names, "training": pairs},
    )
    _write_participants(root, rows)


def write_xray(
    root: Path, cohort: str, plans: list[Plan], shape: tuple[int, ...], ambiguity: float
) -> None:
    """Chest films in CheXpert's layout, with outlined regions and the truth beside them."""
    rng = np.random.default_rng([plans[0].seed, 1])
    films: dict[Part, list[list[str]]] = {"train": [], "val": [], "test": []}
    regions: list[list[str]] = []
    rows: dict[int, tuple[str, Part, str, str]] = {}
    studies: dict[int, int] = {}
    truth, metadata = [], []
    for p in plans:
        scanner = phantom_xray.SHIFTED if p.scanner is None else phantom_xray.SCANNERS[p.scanner]
        case = phantom_xray.xray_phantom(
            p.seed,
            shape=(shape[0], shape[1]),
            scanner=scanner,
            ambiguity=ambiguity,
            body_seed=p.patient_seed,
        )
        patient = f"patient{p.patient + 1:05d}"
        studies[p.patient] = studies.get(p.patient, 0) + 1
        stem = f"{CHEXPERT_PARTS[p.part]}/{patient}/study{studies[p.patient]}/view1_frontal"
        (root / stem).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(case.images["xray"]).save(root / f"{stem}.png")
        film = f"{cohort}/{stem}.png"
        folder = root / "masks" / stem
        folder.mkdir(parents=True)
        for region, mask in case.regions.items():
            if case.findings.get(FINDING_OF_REGION.get(region, ""), 1.0) == 0:
                continue  # too slight to be called, so nobody outlined it
            Image.fromarray(mask).save(folder / f"{region}.png")  # 1 bit
            path = f"{cohort}/masks/{stem}/{region}.png"
            regions.append([film, region, path, str(int(mask.sum()))])
        sex, age = ("Male", "Female")[p.patient_seed % 2], str(20 + p.patient_seed % 60)
        cells = _report(case, rng, draft=p.part == "train")
        films[p.part].append([film, sex, age, "Frontal", scanner.view, *cells])
        rows[p.patient] = (patient, p.part, scanner.name, f"{scanner.view}-{scanner.energy_kev}keV")
        metadata.append([film, p.part, patient, scanner.view, scanner.name])
        truth.append([film, *_finding_truth(case)])
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS]
    for part, lines in films.items():
        _write_csv(root / f"{CHEXPERT_PARTS[part]}.csv", header, lines)
    _write_csv(root / "regions.csv", ["Path", "region", "mask", "pixels"], regions)
    _write_csv(root / "participants.csv", PARTICIPANTS, rows.values())
    header = ["Path", "split", "patient", "view_raw", "source"]
    _write_csv(root / "metadata.csv", header, metadata)
    (root / "truth").mkdir()
    names = list(case.findings)
    columns = ["severity", "probability", "readers"]
    _write_csv(
        root / "truth" / "findings.csv",
        ["Path", *(f"{name} {column}" for name in names for column in columns)],
        truth,
    )


def _report(case: PhantomCase, rng: np.random.Generator, *, draft: bool) -> list[str]:
    """One CSV row's findings, as the first reader called them.

    A training film's report (``draft``) hedges what lies near the threshold, -1, and leaves some
    cells blank; validation and test films are complete, as CheXpert's are.
    """
    cells = dict.fromkeys(CHEXPERT_FINDINGS, "")
    blank = rng.uniform(size=len(case.findings)) < NOT_STATED
    for i, (name, present) in enumerate(case.findings.items()):
        hedged = abs(case.truth["severity"][i] - phantom_xray.THRESHOLD) < HEDGED
        if draft and blank[i]:
            continue
        cells[name] = "-1.0" if draft and hedged else f"{present:.1f}"
    called = [cells[name] for name in case.findings]
    if "-1.0" not in called and "" not in called:
        cells["No Finding"] = f"{float('1.0' not in called):.1f}"
    return list(cells.values())


def _finding_truth(case: PhantomCase) -> list[str]:
    assert case.finding_readers is not None
    row = []
    for i, chance in enumerate(case.finding_probability.values()):
        votes = "".join(str(int(v)) for v in case.finding_readers[:, i])
        row += [f"{case.truth['severity'][i]:.4f}", f"{chance:.4f}", votes]
    return row


def _write_participants(root: Path, rows: list[tuple[str, Part, str, str]]) -> None:
    _write_csv(root / "participants.csv", PARTICIPANTS, rows)
    parts: tuple[Part, ...] = ("train", "val", "test")
    _write_json(
        root / "splits.json", {part: [r[0] for r in rows if r[1] == part] for part in parts}
    )


def _save_truth(folder: Path, name: str, case: PhantomCase, axes: str) -> None:
    """Every reader's label map and, per label value, its exact probability in percent."""
    assert case.readers is not None
    assert case.probability is not None
    folder.mkdir(exist_ok=True)
    readers = np.moveaxis(case.readers, 0, -1)
    percent = np.rint(100 * np.moveaxis(case.probability, 0, -1)).astype(np.uint8)
    _save(folder / f"{name}_readers.nii.gz", readers, case.spacing_mm, axes)
    _save(folder / f"{name}_probability.nii.gz", percent, case.spacing_mm, axes)


def _save(
    path: Path, array: Shaped[np.ndarray, "..."], spacing_mm: Sequence[float], axes: str
) -> None:
    """Write an RAS+ array as NIfTI in another axis order, as the benchmark stores it."""
    image = nib.Nifti1Image(array, np.diag([*spacing_mm, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    there = nib.orientations.axcodes2ornt(tuple(axes))
    here = nib.orientations.axcodes2ornt(("R", "A", "S"))
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(here, there)), path)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_json(path: Path, tree: object) -> None:
    path.write_text(json.dumps(tree, indent=1) + "\n")
