"""Our FGSM and PGD against the Adversarial Robustness Toolbox on the same classifier."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from penumbra.robust.attack import fgsm, pgd
from penumbra.robust.ball import Norm, ball
from penumbra.robust.objective import label_loss

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("art_reference", HERE / "art_reference.py")
assert spec is not None
assert spec.loader is not None
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """ART 1.20.1's images, made by art_reference.py."""
    with np.load(HERE / "art_reference.npz", allow_pickle=False) as file:
        return dict(file)


def ours(norm: Norm, *, single: bool) -> np.ndarray:
    network = reference.network()
    image, labels = reference.images()
    objective = label_loss(lambda x: network(x).softmax(1)[:, :, None], labels[:, None])
    around = ball(image, eps=reference.EPS, norm=norm)
    if single:
        return fgsm(objective, around, generator=None).numpy()
    attacked = pgd(
        objective,
        around,
        steps=reference.STEPS,
        step=reference.STEP,
        generator=None,
        keep="last",
    )
    return attacked.numpy()


@pytest.mark.parametrize(
    ("name", "norm", "single"),
    [("fgsm", "linf", True), ("pgd_linf", "linf", False), ("pgd_l2", "l2", False)],
)
def test_the_attack_equals_arts_voxel_by_voxel(
    recorded: dict[str, np.ndarray], name: str, norm: Norm, single: bool
) -> None:
    attacked = ours(norm, single=single)
    moved = np.abs(recorded[name] - reference.images()[0].numpy()).max()
    assert moved > 0.05  # the record holds an attack
    np.testing.assert_allclose(attacked, recorded[name], rtol=0, atol=2e-5)


def test_the_record_is_what_art_makes_today(recorded: dict[str, np.ndarray]) -> None:
    pytest.importorskip("art")
    root = 12.0
    for name, image in reference.attack_with_art(
        reference.EPS * root, reference.STEP * root
    ).items():
        np.testing.assert_allclose(image, recorded[name], rtol=0, atol=2e-5)
