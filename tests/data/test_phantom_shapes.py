import numpy as np
import pytest

from penumbra.data.phantom_shapes import (
    BOUNDARY_STD_MM,
    ellipsoid,
    grid_mm,
    inside_probability,
    reader_offsets_mm,
    smooth_field,
    tilted,
)


def test_a_sphere_has_its_exact_distance_and_volume() -> None:
    points, spacing = grid_mm((60, 60, 60), (60.0, 60.0, 60.0))
    distance = ellipsoid(points, (1.0, -2.0, 3.0), (20.0, 20.0, 20.0))
    exact = np.linalg.norm(points - np.array([1.0, -2.0, 3.0]).reshape(3, 1, 1, 1), axis=0) - 20
    np.testing.assert_allclose(distance, exact, atol=1e-3)
    volume = (distance < 0).sum() * np.prod(spacing)
    assert volume == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.01)


def test_tilting_keeps_the_volume_and_swaps_the_axes_at_ninety_degrees() -> None:
    points, _ = grid_mm((50, 50), (50.0, 50.0))
    upright = ellipsoid(points, (3, 4), (8, 15)) < 0
    turned = tilted(points, (3, 4), (15, 8), axes=(0, 1), degrees=90.0) < 0
    assert (upright == turned).mean() > 0.999
    slanted = tilted(points, (3, 4), (15, 8), axes=(0, 1), degrees=37.0) < 0
    assert slanted.sum() == pytest.approx(upright.sum(), rel=0.03)


def test_a_smooth_field_has_unit_variance_and_the_correlation_it_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    fields = np.stack([smooth_field(rng, (48, 40), (2.0, 3.0), 8.0) for _ in range(300)])
    assert fields.std() == pytest.approx(1.0, abs=0.03)
    assert fields.mean() == pytest.approx(0.0, abs=0.03)
    # White noise smoothed by a Gaussian of width l correlates as exp(-d^2 / (4 l^2)).
    along = np.mean(fields[:, 0, :] * fields[:, 4, :])
    assert along == pytest.approx(np.exp(-((4 * 2.0) ** 2) / (4 * 8.0**2)), abs=0.05)


def test_readers_call_inside_as_often_as_their_law_says() -> None:
    rng = np.random.default_rng(1)
    offsets = reader_offsets_mm(rng, (40, 40), (2.0, 2.0), ambiguity=0.5, readers=600)
    for distance in (-3.0, 0.0, 2.0):
        called = (distance + offsets < 0).mean()
        exact = inside_probability(np.full(1, distance, np.float32), 0.5)[0]
        assert called == pytest.approx(exact, abs=0.02)
    assert offsets.std() == pytest.approx(0.5 * BOUNDARY_STD_MM, rel=0.03)
