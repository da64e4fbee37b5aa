"""Projection radiography and grey values: noise, scatter, blur and shutters with known effect."""

import math

import pytest
import torch

from penumbra.augment.intensity import BiasField, Exposure, Gain, Gamma, Window
from penumbra.augment.profile import profile_for
from penumbra.augment.radiograph import (
    LOG_RANGE,
    Blur,
    Collimation,
    PhotonNoise,
    Scatter,
    gaussian,
)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_photon_noise_has_the_poisson_spread_on_the_log_scale(level: float) -> None:
    image = torch.full((1, 1, 400, 400), level)
    photons = 2000.0
    seen = PhotonNoise(torch.tensor([photons]), seed=1).apply(image)
    counts = photons * math.exp(-LOG_RANGE * level)
    assert abs(float(seen.std()) * LOG_RANGE * math.sqrt(counts) - 1) < 0.02


def test_photon_noise_variance_is_one_over_dose() -> None:
    image = torch.full((2, 1, 300, 300), 0.4)
    seen = PhotonNoise(torch.tensor([500.0, 2000.0]), seed=1).apply(image)
    assert abs(float(seen[0].var() / seen[1].var()) / 4 - 1) < 0.05


def test_scatter_lowers_contrast_behind_dense_tissue_most() -> None:
    plain = torch.full((1, 1, 64, 64), 0.1)
    plain[..., :32] = 0.8
    image = plain.clone()
    image[..., 10:14, 10:14] += 0.1
    image[..., 10:14, 50:54] += 0.1
    scatter = Scatter(torch.tensor([0.5]))
    seen = scatter.apply(image) - scatter.apply(plain)
    assert 0 < float(seen[..., 12, 12]) < float(seen[..., 12, 52]) < 0.1
    uniform = torch.full((1, 1, 40, 40), 0.3)
    torch.testing.assert_close(Scatter(torch.tensor([0.5])).apply(uniform), uniform)


def test_a_point_blurs_into_a_gaussian_of_the_stated_sigma() -> None:
    image = torch.zeros(1, 1, 61, 41, dtype=torch.float64)
    image[..., 30, 20] = 1.0
    seen = Blur(torch.tensor([2.0])).apply(image)[0, 0]
    assert abs(float(seen.sum()) - 1) < 1e-6
    rows = (torch.arange(61) - 30.0).double() ** 2
    assert abs(float((seen.sum(1) * rows).sum()) - 4.0) < 0.01


def test_a_constant_survives_any_blur() -> None:
    image = torch.full((2, 3, 9, 14, 5), 0.7)
    sigma = torch.tensor([0.0, 30.0])
    torch.testing.assert_close(gaussian(image, [sigma] * 3), image)


def test_shutters_blacken_the_stated_share_and_nothing_inside() -> None:
    image = torch.ones(1, 1, 100, 80)
    low, high = torch.tensor([[0.1, 0.2]]), torch.tensor([[0.9, 1.0]])
    seen = Collimation(low, high).apply(image)
    assert abs(float(seen.mean()) - 0.8 * 0.8) < 0.02
    assert seen[..., 15:85, 20:75].min() == 1
    assert seen[..., :8, :].max() == 0


def test_exposure_shifts_and_gamma_bends_while_the_ends_stay() -> None:
    image = torch.linspace(0, 1, 11).view(1, 1, 1, 11)
    torch.testing.assert_close(Exposure(torch.tensor([0.1])).apply(image), image + 0.1)
    bent = Gamma(torch.tensor([math.log(2.0)])).apply(image)
    torch.testing.assert_close(bent, image**2)


def test_a_window_jitter_of_15_hu_moves_40_hu_by_15() -> None:
    image = torch.full((1, 1, 2, 2), 40.0)
    seen = Window(torch.tensor([15.0]), torch.tensor([1.05])).apply(image)
    torch.testing.assert_close(seen, image + 15)


def test_gain_is_one_factor_per_image() -> None:
    image = torch.ones(2, 1, 3, 3)
    seen = Gain(torch.tensor([0.5, 2.0])).apply(image)
    assert seen[0].unique().tolist() == [0.5]
    assert seen[1].unique().tolist() == [2.0]


@pytest.mark.parametrize("shape", [(4, 2, 40, 50), (4, 1, 20, 12, 16)])
def test_the_bias_field_is_smooth_shared_by_channels_and_of_the_stated_strength(
    shape: tuple[int, ...],
) -> None:
    rows = profile_for("mri").at("bias_field", 4)
    field = BiasField.sample(torch.Generator().manual_seed(0), shape, rows)
    seen = field.apply(torch.ones(shape)).log()
    assert torch.equal(seen[:, 0], seen[:, -1])
    peak = seen.flatten(1).abs().amax(1)
    assert ((peak > 0.3) & (peak < 0.42)).all(), peak
    jump = seen.diff(dim=2).abs().max()
    assert jump < 0.15
