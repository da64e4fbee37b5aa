"""Explanation maps of a scan: its own space, both channels, one contract for all methods."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from penumbra import trained
from penumbra.bayes import bank
from penumbra.config import resolve
from penumbra.errors import ConfigError
from penumbra.inference.explain import (
    CAMS,
    EXPLAINERS,
    Explainer,
    explain_case,
    explain_images,
    methods_of,
)
from penumbra.inference.explained import explain_scan
from penumbra.inference.levels import cam_level, levels_of
from penumbra.inference.overlay import DOUBT, overlay
from penumbra.reference import Reference
from penumbra.types import Task


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).normal(0, 20, (24, 20, 2))
    grid = np.mgrid[-1:1:24j, -1:1:20j, -1:1:2j]
    hu = np.where(np.hypot(grid[0], grid[1]) < 0.8, 40 + noise, -1000).astype(np.int16)
    path = tmp_path_factory.mktemp("scans") / "one.nii.gz"
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([-2.0, -2.0, 5.0, 1.0])), path)
    return path


def test_every_method_writes_maps_in_the_scans_own_space(
    untrained_ct: Path, scan: Path, tmp_path: Path
) -> None:
    methods: tuple[Explainer, ...] = ("attention", "modulated", "grad_cam", "organ_prior")
    wrote = explain_scan(untrained_ct, scan, tmp_path, methods=methods)
    source = nibabel.load(scan)
    for name in (*methods, "doubt"):
        image = nibabel.load(tmp_path / f"one_{name}.nii.gz")
        assert image.shape[:3] == source.shape, name
        np.testing.assert_array_equal(image.affine, source.affine)
        values = np.asarray(image.dataobj)
        assert 0 <= values.min() <= values.max() <= 1 + 1e-6, name
    page = wrote[-1].read_text()
    assert "cross-hatched" in page
    assert "reference uncertainty" in page
    assert "reads encoder level 2, cells of 4 pixels" in page


def both_tasks(dim: int) -> trained.Trained:
    """A fresh Bayesian network of three levels with classes and a finding."""
    settings = {"data.dim": dim, "data.patch": [8] * dim, "data.spacing_mm": None}
    config = resolve("abdominal-ct", size="tiny", overrides=settings)
    task = Task("ct", ("ct",), ("background", "liver"), findings=("Lesion",))
    network = trained.build(config, task)
    trained.convert(network, config)
    return trained.Trained(network.eval(), task, config)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("method", EXPLAINERS)
def test_every_method_explains_voxels_and_findings_of_a_volume(
    method: Explainer, row: int, generator: torch.Generator
) -> None:
    model = both_tasks(3)
    posterior = bank(model.network, draws=2, generator=generator)
    image = torch.rand((1, 1, 8, 8, 8), generator=generator)
    body = torch.ones((1, 8, 8, 8), dtype=torch.bool)
    shown = explain_images(model, posterior, image, body, row=row, method=method)
    assert shown.shape == (1, 8, 8, 8)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1 + 1e-6


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("method", CAMS)
def test_a_cam_reads_the_features_that_the_gate_of_its_level_reads(
    method: Explainer, row: int, generator: torch.Generator
) -> None:
    model = both_tasks(2)
    network, seen, read = model.network, [], []
    image = torch.rand((1, 1, 16, 16), generator=generator)
    posterior = bank(network, draws=1, generator=generator)
    body = torch.ones((1, 16, 16), dtype=torch.bool)
    maps = {}
    for level, (gate, layer) in enumerate(zip(network.gates, levels_of(network), strict=False)):
        hooks = [
            gate.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0])),
            layer.register_forward_hook(lambda _, __, output: read.append(output)),
        ]
        maps[level] = explain_images(
            model, posterior, image, body, row=row, method=method, level=level
        )
        for hook in hooks:
            hook.remove()
        assert read[-1].shape[2:] == (16 // 2**level,) * 2
        torch.testing.assert_close(read[-1], seen[-1])
    coarsest = explain_images(model, posterior, image, body, row=row, method=method)
    torch.testing.assert_close(coarsest, maps[2])
    assert not torch.equal(maps[0], maps[2])


def test_a_level_that_the_network_lacks_is_named() -> None:
    network = both_tasks(2).network
    with pytest.raises(
        ConfigError, match=r"--level 5: .* 0 \(the decoder's finest\) over 2 .* to 4"
    ):
        cam_level(network, 5)
    assert levels_of(network)[4] is network.encoder.levels[0]


def test_a_published_network_has_no_level_for_grad_cam() -> None:
    network = Reference(
        "densenet121", channels=1, classes=0, findings=1, dim=2, widths=(4, 8), seed=0
    )
    with pytest.raises(ConfigError, match="a published one has none"):
        cam_level(network, None)


def test_doubt_stays_visible_on_full_attention() -> None:
    full = np.ones((10, 10))
    plain = overlay(full, full, np.zeros((10, 10)), scale=(0.0, 1.0))
    unsure = overlay(full, full, full, scale=(0.0, 1.0))
    assert not (plain == DOUBT).all(-1).any()
    assert 0.2 < (unsure == DOUBT).all(-1).mean() < 0.6


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ConfigError, match="lime is no explainer; choose from attention"):
        methods_of("attention,lime")


def test_priors_of_a_volume_know_no_windows(case, generator: torch.Generator) -> None:
    model = both_tasks(3)
    posterior = bank(model.network, draws=1, generator=generator)
    methods: tuple[Explainer, ...] = ("centre_prior", "organ_prior")
    found = explain_case(model, posterior, case((17, 17, 17)), methods=methods)
    for method in methods:
        for shown in found.maps[method]:
            assert shown[8, 8, 8] == shown.max() == 1
            assert shown[4, 4, 4] < 0.9  # the middle of the first window
