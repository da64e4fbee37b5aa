"""Tiny cohorts on disk."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def write_nifti() -> Write:
    """Write an array with an affine (2 mm, axes L-P-S unless given)."""

    def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        grid = np.diag([-2.0, -2.0, 3.0, 1.0]) if affine is None else affine
        image = nib.Nifti1Image(array, grid)
        nib.save(image, path)
        return path

    return write


@pytest.fixture
def head() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """A bright ellipsoid on zeros, textured, with a lesion of the given label value."""

    def make(
        shape: tuple[int, int, int] = (24, 20, 6), *, value: int = 1, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
        radius = np.sqrt(sum((a / r) ** 2 for a, r in zip(axes, (0.8, 0.75, 2.0), strict=True)))
        image = np.where(radius < 1, 20 + 480 * rng.random(shape), 0)
        lesion = (np.abs(axes[0] - 0.3) < 0.2) & (np.abs(axes[1]) < 0.2) & (np.abs(axes[2]) < 0.5)
        return (image + 200 * lesion).astype(np.int16), (value * lesion).astype(np.uint8)

    return make


@pytest.fixture
def brats(tmp_path: Path, write_nifti: Write, head: Callable[..., tuple[np.ndarray, np.ndarray]]):
    """Six subjects of three sequences with labels 0 and 1; one lacks t1."""
    root = tmp_path / "brats"
    for k in range(6):
        image, labels = head(seed=k)
        name = f"BraTS2021_{k:05d}"
        for sequence in ("t1", "t1ce", "flair"):
            if not (k == 3 and sequence == "t1"):
                write_nifti(root / name / f"{name}_{sequence}.nii.gz", image)
        write_nifti(root / name / f"{name}_seg.nii.gz", labels)
    return root


@pytest.fixture
def chexpert(tmp_path: Path) -> Path:
    """Two training and one validation film of 40 x 30 pixels, with a box and an outlined region."""
    root = tmp_path / "films"
    rng = np.random.default_rng(0)
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA,Lung Opacity,Edema\n"
    rows = {
        "train": [("patient00001", "AP", "1.0,-1.0"), ("patient00002", "PA", "0.0,")],
        "valid": [("patient00003", "", ",1.0")],
    }
    for part, films in rows.items():
        lines = []
        for patient, view, findings in films:
            film = root / part / patient / "study1" / "view1_frontal.png"
            film.parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (40, 30), dtype=np.uint8)).save(film)
            path = f"films/{film.relative_to(root)}"
            lines.append(f"{path},Male,50,Frontal,{view},{findings}\n")
        (root / f"{part}.csv").write_text(header + "".join(lines))
    film = "films/train/patient00001/study1/view1_frontal.png"
    (root / "boxes.csv").write_text(f"Path,finding,x,y,width,height\n{film},Edema,3,4,10,5\n")
    mask = np.zeros((40, 30), dtype=np.uint8)
    mask[10:20, 5:15] = 255
    (root / "masks").mkdir()
    Image.fromarray(mask).save(root / "masks" / "ggo.png")
    Image.fromarray(255 - mask).save(root / "masks" / "lung.png")
    (root / "regions.csv").write_text(
        "Path,region,mask\n"
        f"{film},ground_glass_opacities,films/masks/ggo.png\n"
        f"{film},left_lung,films/masks/lung.png\n"
    )
    return root
