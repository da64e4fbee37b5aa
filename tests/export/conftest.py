"""Outside programs, and predictions of a CT series, without any network."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from penumbra.export.series import read_series

CLASSES = ["background", "spleen", "right kidney", "odd thing"]


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    """The path of an outside program; a test without it is skipped, but never in CI."""

    def find(program: str) -> str:
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if path is None and os.environ.get("CI") == "true":
            pytest.fail(f"{program} is missing; CI must have it")
        if path is None:
            pytest.skip(f"{program} is not installed")
        return path

    return find


@pytest.fixture(scope="session")
def write_prediction() -> Callable[..., Path]:
    """Write a made-up prediction on a series' grid, as ``penumbra predict`` lays it out."""

    def write(out: Path, series: Path, *, verdict: str = "review") -> Path:
        source = read_series(series)
        rng = np.random.default_rng(0)
        shape = source.shape
        probability = rng.dirichlet(np.ones(len(CLASSES)), shape).astype(np.float32)
        arrays = {
            "segmentation": probability.argmax(-1).astype(np.uint8),
            "probability": probability,
            "epistemic": rng.random(shape, dtype=np.float32),
            "aleatoric": rng.random(shape, dtype=np.float32),
            "attention": rng.random((*shape, 1), dtype=np.float32),
        }
        out.mkdir(parents=True)
        for name, array in arrays.items():
            image = nibabel.Nifti1Image(array, source.affine)
            nibabel.save(image, out / f"c1_{name}.nii.gz")
        volume = {"mean": 12.5, "low": 11.0, "high": 14.25, "level": 0.9, "draws": 8}
        record = {
            "schema": "penumbra-prediction-1",
            "case": "c1",
            "decision": {"verdict": verdict, "reasons": ["because"], "need_of_review": 1.2},
            "volumes_ml": {name: volume for name in CLASSES[1:]},
            "task": {
                "modality": "ct",
                "classes": CLASSES,
                "regions": {name: [k] for k, name in enumerate(CLASSES) if k},
                "findings": [],
            },
            "files": {name: [f"c1_{name}.nii.gz"] for name in arrays},
        }
        (out / "c1.json").write_text(json.dumps(record))
        return out

    return write
