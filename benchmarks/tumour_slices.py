"""Turn a glioma cohort into a CheXpert-like one: single FLAIR slices, "Lesion" present or absent.

Run: ``python benchmarks/tumour_slices.py LGG_MULTISITE OUT``, with a folder in BraTS layout (the
public "LGG segmentation" set of TCGA cases) whose ``splits.json`` names the patients of each part.

Of every patient up to ``EACH`` slices with and ``EACH`` without tumour are taken, evenly over the
head. A slice counts as "present" from ``LEAST`` tumour pixels on and as "absent" without any;
slices in between, and those that hold little head, are left out. Tumour outlines are drawn on
FLAIR, so FLAIR is shown; every patient has it.

OUT holds ``train.csv``, ``valid.csv``, ``test.csv`` (Path, Patient, Site, Lesion), ``regions.csv``
and masks, which Penumbra's CheXpert reader takes unchanged with modality ``mri``.
"""

import csv
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

EACH, LEAST, HEAD = 5, 60, 0.2
PARTS = {"train": "train", "val": "valid", "test": "test"}


def as_displayed(volume: np.ndarray, z: int) -> np.ndarray:
    """Anterior up, the patient's right on the left."""
    return volume[::-1, ::-1, z].T


def evenly(candidates: np.ndarray) -> list[int]:
    places = np.linspace(0, len(candidates) - 1, min(EACH, len(candidates))).round()
    return [int(candidates[int(p)]) for p in places]


def write_patient(root: Path, out: Path, part: str, name: str) -> tuple[list, list]:
    def volume(kind: str) -> np.ndarray:
        image = nibabel.load(root / name / f"{name}_{kind}.nii.gz")
        return np.asarray(nibabel.as_closest_canonical(image).dataobj)

    flair, tumour = volume("flair"), volume("seg") > 0
    head = (flair > 20).mean((0, 1)) > HEAD
    area = tumour.sum((0, 1))
    rows, regions = [], []
    for label, chosen in ((1, area >= LEAST), (0, area == 0)):
        for z in evenly(np.flatnonzero(chosen & head)):
            place = Path(part, f"patient_{name}", "study1", f"slice{z:02d}.png")
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(as_displayed(flair, z), np.uint8)).save(
                out / place
            )
            rows.append([place, name, name.split("_")[1], label])
            if label:
                mask = Path("masks", place)
                (out / mask).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(as_displayed(tumour, z))).save(out / mask)
                regions.append([place, "Lesion", mask])
    return rows, regions


def write_table(path: Path, header: list[str], rows: list) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main(root: Path, out: Path) -> None:
    split = json.loads((root / "splits.json").read_text())
    outlined = []
    for part, ours in PARTS.items():
        rows = []
        for name in sorted(split[part]):
            slices, regions = write_patient(root, out, ours, name)
            rows += slices
            outlined += regions
        write_table(out / f"{ours}.csv", ["Path", "Patient", "Site", "Lesion"], rows)
        print(f"{part}: {len(split[part])} patients, {len(rows)} slices")
    write_table(out / "regions.csv", ["Path", "region", "mask"], outlined)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
