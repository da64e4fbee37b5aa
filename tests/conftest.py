"""Shapes in signatures are checked while testing and free in production."""

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

from jaxtyping import install_import_hook

install_import_hook("penumbra", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def untrained_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a fresh Bayesian CT network, as good as any for testing what follows."""
    from penumbra import trained
    from penumbra.config import resolve
    from penumbra.types import Task

    config = resolve("abdominal-ct", size="tiny", overrides={"data.spacing_mm": None})
    classes = ("background", "spleen", "liver")
    task = Task(
        modality="ct",
        channels=("ct",),
        classes=classes,
        label_values={k: k for k in range(3)},
        regions={"spleen": (1,), "liver": (2,)},
    )
    network = trained.build(config, task)
    trained.convert(network, config)
    run = tmp_path_factory.mktemp("run")
    calibration = trained.Calibration(review_above=0.05)
    trained.Trained(network.eval(), task, config, calibration).save(run / "model")
    return run


@pytest.fixture(scope="session")
def case():
    """Makes prepared cases of noise with one channel, 2 x 2 x 3 mm."""
    import numpy as np

    from penumbra.data.geometry import Geometry
    from penumbra.data.preprocess import Prepared
    from penumbra.types import Case

    def make(shape: tuple[int, ...], seed: int = 0) -> Prepared:
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        box = tuple((0, n) for n in shape)
        geometry = Geometry(shape, affine, shape, box, box, shape, affine)
        image = np.random.default_rng(seed).random((1, *shape), dtype=np.float32)
        return Prepared(
            case=Case("a", "a", {"flair": Path("a.nii.gz")}),
            image=image,
            segmentation=None,
            findings=np.array([np.nan], dtype=np.float32),
            body=np.ones(shape, dtype=bool),
            masks=np.zeros((0, *shape), dtype=np.uint8),
            mapped=(),
            geometry=geometry,
            foreground=np.zeros((0, 1 + len(shape)), dtype=np.int64),
            body_box=box,
        )

    return make
