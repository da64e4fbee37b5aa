"""MRI acquisition: what is known on paper about k-space."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penumbra.augment.kspace import (
    Ghosting,
    Gibbs,
    Motion,
    Rician,
    Spike,
    Undersampling,
    weight_lines,
)
from penumbra.augment.profile import profile_for

MRI = profile_for("mri")


def noise_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(
    space=st.lists(st.integers(1, 17), min_size=2, max_size=3),
    channels=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_acquired_lines_are_preserved_to_float_precision(
    space: list[int], channels: int, seed: int
) -> None:
    image = noise_image(2, channels, *space, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    params = Undersampling.sample(generator, image.shape, MRI)
    seen = torch.fft.fft(params.apply(image), dim=2 + params.axis).movedim(2 + params.axis, -1)
    true = torch.fft.fft(image, dim=2 + params.axis).movedim(2 + params.axis, -1)
    lines = params.acquired.view(2, *(1,) * (seen.ndim - 2), -1)
    assert (seen - true * lines).abs().max() < 1e-10


def test_acquired_lines_are_preserved_in_single_precision(generator: torch.Generator) -> None:
    image = noise_image(4, 1, 64, 64).float()
    params = Undersampling.sample(generator, image.shape, MRI)
    seen = torch.fft.fft(params.apply(image).double(), dim=2 + params.axis)
    true = torch.fft.fft(image.double(), dim=2 + params.axis)
    lines = params.acquired.view(4, 1, *((-1, 1) if params.axis == 0 else (1, -1)))
    assert ((seen - true * lines).abs().max() / true.abs().max()) < 1e-6


def test_full_sampling_is_the_identity(generator: torch.Generator) -> None:
    image = noise_image(3, 2, 31, 24)
    full = Undersampling.sample(generator, image.shape, MRI.at("undersampling", 0))
    assert full.acquired.min() == 1
    torch.testing.assert_close(full.apply(image), image)


@pytest.mark.parametrize("severity", [2, 3, 4, 5])
def test_the_share_of_acquired_lines_is_one_over_the_acceleration(severity: int) -> None:
    rows = MRI.at("undersampling", severity)
    params = Undersampling.sample(torch.Generator().manual_seed(1), (800, 1, 192, 192), rows)
    acceleration = rows.table["undersampling"].low
    assert abs(float(params.acquired.mean()) * acceleration - 1) < 0.12
    assert (params.acquired[:, 0] == 1).all(), "the centre of k-space is always acquired"


def test_line_weights_without_symmetry_equal_the_fourier_transform() -> None:
    image = noise_image(2, 3, 12, 9, 5)
    for axis in range(3):
        n = image.shape[2 + axis]
        weights = noise_image(2, n, seed=axis)
        spectrum = torch.fft.fft(image, dim=2 + axis).movedim(2 + axis, -1)
        spectrum = spectrum * weights.view(2, 1, 1, 1, n)
        expected = torch.fft.ifft(spectrum, dim=-1).movedim(-1, 2 + axis)
        torch.testing.assert_close(weight_lines(image, weights, axis), expected)


def test_a_wrong_number_of_line_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="5 line weights for an axis of 8 voxels"):
        weight_lines(noise_image(1, 1, 8, 8), torch.ones(1, 5), 0)


def test_truncation_overshoots_an_edge_by_the_gibbs_constant() -> None:
    n = 512
    step = torch.zeros(1, 1, n, 4, dtype=torch.float64)
    step[:, :, n // 4 : 3 * n // 4] = 1.0
    kept = (torch.fft.fftfreq(n, 1 / n).abs() <= n // 8).double()[None]
    ringing = Gibbs(kept, axis=0).apply(step)
    overshoot = 0.5 - torch.special.sinc(torch.linspace(0, 1, 10001, dtype=torch.float64)).mean()
    assert abs(float(ringing.max()) - 1 + float(overshoot)) < 0.01  # 8.9 % of the jump


def test_ghosting_is_a_periodic_weight_of_the_lines() -> None:
    image = noise_image(1, 1, 24, 10)
    ghosts = Ghosting(torch.tensor([0.2], dtype=torch.float64), replicas=3, axis=0).apply(image)
    k = torch.arange(24, dtype=torch.float64)
    weights = 1 + 0.2 * torch.cos(2 * math.pi * k * 8 / 24)[None]
    torch.testing.assert_close(ghosts, weight_lines(image, weights, 0).real)


def test_a_spike_is_one_pair_of_points_in_k_space(generator: torch.Generator) -> None:
    image = torch.zeros(1, 1, 16, 20, dtype=torch.float64)
    params = Spike.sample(generator, image.shape, MRI.at("spike", 3))
    spectrum = torch.fft.fftn(params.apply(image), dim=(2, 3)).abs()
    assert int((spectrum > 1e-3 * spectrum.max()).sum()) in (1, 2)
    assert float(params.apply(image).abs().max()) <= 0.08 + 1e-6


def test_rician_noise_has_the_rayleigh_mean_in_air_and_the_known_second_moment() -> None:
    sigma = torch.tensor([0.05], dtype=torch.float64)
    noise = Rician(sigma, seed=3)
    air = noise.apply(torch.zeros(1, 1, 700, 700, dtype=torch.float64))
    assert abs(float(air.mean()) / (0.05 * math.sqrt(math.pi / 2)) - 1) < 0.005
    tissue = noise.apply(torch.full((1, 1, 700, 700), 0.6, dtype=torch.float64))
    assert abs(float((tissue**2).mean()) - (0.6**2 + 2 * 0.05**2)) < 5e-4


@pytest.mark.parametrize("signal", [0.0, 0.1, 0.5])
def test_rician_noise_follows_the_rice_distribution(signal: float) -> None:
    seen = Rician(torch.tensor([0.05]), seed=1).apply(torch.full((1, 1, 150, 151), signal))
    law = stats.rice(signal / 0.05, scale=0.05)
    assert stats.kstest(seen.flatten().double().numpy(), law.cdf).statistic < 0.012
    assert abs(float(seen.var()) / law.var() - 1) < 0.03


def test_rician_noise_is_white() -> None:
    noise = Rician(torch.tensor([0.05]), seed=1).apply(torch.full((1, 1, 256, 256), 0.8)) - 0.8
    power = torch.fft.fft2(noise - noise.mean()).abs().square()[0, 0]
    low = power[:16, :16].mean() / power.mean()
    assert abs(float(low) - 1) < 0.2
    assert (power / power.mean()).max() < 20, "no single frequency stands out"


def test_no_motion_is_the_identity(generator: torch.Generator) -> None:
    image = noise_image(2, 1, 20, 24)
    still = Motion.sample(generator, image.shape, MRI.at("motion", 0))
    torch.testing.assert_close(still.apply(image), image, atol=1e-6, rtol=1e-5)


def test_motion_before_the_first_line_is_a_plain_shift() -> None:
    image = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    image[..., 6:9, 5:11] = 1.0
    moved = Motion(
        angle=torch.zeros(1, 2),
        shift_mm=torch.tensor([[[4.0, -2.0], [0.0, 0.0]]]),
        start=torch.ones(1),  # every line sees the first pose
        stop=torch.ones(1),
        axis=0,
        spacing_mm=(2.0, 1.0),
    ).apply(image)
    torch.testing.assert_close(moved, image.roll((-2, 2), (2, 3)), atol=1e-6, rtol=1e-6)


def test_motion_during_the_scan_leaves_the_centre_of_k_space(generator: torch.Generator) -> None:
    image = noise_image(1, 1, 32, 32)
    params = Motion.sample(generator, image.shape, MRI.at("motion", 4))
    moved = params.apply(image)
    assert float((moved - image).abs().mean()) > 0.01
    assert abs(float(moved.mean() / image.mean()) - 1) < 0.05
