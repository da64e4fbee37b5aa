"""Deformation: no folds, known amplitude, labels that stay labels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penumbra.augment.elastic import Warp, jacobian, rigid_positions
from penumbra.augment.profile import profile_for
from penumbra.augment.resample import resample


@pytest.mark.parametrize(
    ("shape", "spacing", "draws"),
    [((32, 24), (3.0, 6.0), 10_000), ((10, 12, 8), (6.0, 5.0, 8.0), 10_000)],
)
@pytest.mark.parametrize("severity", [None, 5])
def test_nothing_folds_in_ten_thousand_draws(
    shape: tuple[int, ...], spacing: tuple[float, ...], draws: int, severity: int | None
) -> None:
    rows = profile_for("mri", spacing)
    rows = rows if severity is None else rows.at("elastic", severity)
    generator = torch.Generator().manual_seed(0)
    lowest = math.inf
    for _ in range(draws // 500):
        warp = Warp.sample(generator, (500, 1, *shape), rows)
        lowest = min(lowest, float(jacobian(warp, shape).min()))
    assert lowest > 0


@given(amplitude=st.floats(0.5, 60.0), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_nothing_folds_at_any_amplitude_by_construction(amplitude: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    control_mm = max(32.0, 2 * 2 * amplitude / 0.9)
    size = math.floor(63 / control_mm) + 4
    worst = (torch.rand(8, 2, size, size, generator=generator) < 0.5).float() * 2 - 1
    warp = Warp(
        worst * amplitude,  # every control vector at its extreme
        torch.eye(2).expand(8, 2, 2),
        torch.zeros(8, 2),
        (1.0, 1.0),
        control_mm,
    )
    assert jacobian(warp, (64, 64)).min() > 0


def displacement_mm(warp: Warp, image: torch.Tensor) -> torch.Tensor:
    """Sampling position minus own position, in mm, from what grid_sample is given."""
    space = image.shape[2:]
    half = torch.tensor([(n - 1) * s / 2 for n, s in zip(space, warp.spacing_mm, strict=True)])
    positions = warp.positions(image).flip(-1) * half
    axes = torch.meshgrid(
        *[torch.linspace(-float(h), float(h), n) for n, h in zip(space, half, strict=True)],
        indexing="ij",
    )
    return positions - torch.stack(axes, -1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 3.0)])
def test_the_amplitude_in_mm_is_as_configured(spacing: tuple[float, float]) -> None:
    image = torch.zeros(400, 1, 60, 60)
    rows = profile_for("ct", spacing).at("elastic", 4)  # 5 mm
    warp = Warp.sample_elastic(torch.Generator().manual_seed(0), image.shape, rows)
    moved = displacement_mm(warp, image)
    assert moved.abs().max() <= 5.0 + 1e-3
    # control values are uniform in +-5; the spline averages them: integral of B^2 is 151/315
    expected = 5.0 * math.sqrt((151 / 315) ** 2 / 3)
    assert abs(float(moved.square().mean().sqrt()) / expected - 1) < 0.05


def test_the_spline_jacobian_is_the_derivative_of_the_positions(
    generator: torch.Generator,
) -> None:
    image = torch.zeros(2, 1, 80, 70, dtype=torch.float64)
    warp = Warp.sample(generator, image.shape, profile_for("mri", (1.0, 1.0)))
    total = displacement_mm(warp, image).double()
    slopes = torch.stack(torch.gradient(total, dim=(1, 2)), -1) + torch.eye(2)
    by_differences = torch.linalg.det(slopes)[:, 2:-2, 2:-2]
    by_spline = jacobian(warp, (80, 70))[:, 2:-2, 2:-2]
    torch.testing.assert_close(by_differences, by_spline.double(), atol=2e-3, rtol=2e-3)


def test_amount_zero_is_the_identity(generator: torch.Generator) -> None:
    image = torch.rand(2, 3, 9, 14, 5, generator=generator)
    rows = profile_for("mri", (1.0, 2.0, 4.0))
    for family in ("elastic", "zoom", "rotation"):
        rows = rows.at(family, 0)
    same = Warp.sample(generator, image.shape, rows).apply(image)
    torch.testing.assert_close(same, image, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (24, 30, 20)])
def test_a_warped_label_keeps_its_class_set(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = sum(a**2 for a in axes) ** 0.5
    labels = (radius < 0.6).long() + (radius < 0.3).long() * 4
    batch = labels.expand(30, *shape)
    warp = Warp.sample(generator, (30, 1, *shape), profile_for("ct", (2.0,) * len(shape)))
    moved = warp.apply(batch[:, None].float(), "nearest")
    for one in moved:
        assert set(one.unique().tolist()) == {0, 1, 5}


def test_image_and_label_move_together(generator: torch.Generator) -> None:
    axes = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    labels = ((axes[0] ** 2 + 2 * axes[1] ** 2) < 0.4).long().expand(8, 64, 64)
    warp = Warp.sample(generator, (8, 1, 64, 64), profile_for("ct", (2.0, 2.0)))
    image = warp.apply(labels[:, None].float())
    moved = warp.apply(labels[:, None].float(), "nearest")[:, 0]
    overlap = ((image[:, 0] > 0.5) == (moved == 1)).float().mean()
    assert overlap > 0.995


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    image = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    positions = rigid_positions(image, torch.tensor([math.pi / 2]), torch.zeros(1, 2), (2.0, 2.0))
    turned = resample(image, positions)
    expected = [torch.rot90(image, k, (2, 3)) for k in (1, 3)]
    assert min(float((turned - e).abs().max()) for e in expected) < 1e-5


def test_rotation_keeps_lengths_on_an_anisotropic_grid() -> None:
    image = torch.zeros(1, 1, 21, 41)
    positions = rigid_positions(image, torch.tensor([0.3]), torch.zeros(1, 2), (2.0, 1.0))
    half = torch.tensor([20.0, 20.0])
    corner = positions[0, 0, 0].flip(-1) * half
    assert abs(float(corner.norm()) - math.hypot(20, 20)) < 1e-3
