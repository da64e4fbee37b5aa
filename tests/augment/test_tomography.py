"""CT acquisition: cupping, noise and metal as physics predicts them."""

import math

import pytest
import torch
from scipy.integrate import quad

from penumbra.augment import tomography
from penumbra.augment.metal import Metal
from penumbra.augment.profile import profile_for
from penumbra.augment.sinogram import parallel_scanner
from penumbra.augment.spectrum import (
    ENERGY_KEV,
    MASS_ATTENUATION,
    Spectrum,
    mass_attenuation,
    single_energy,
    tube_spectrum,
)
from penumbra.augment.tomography import (
    BeamHardening,
    Dose,
    Kernel,
    hardening,
    materials,
    scan,
)

RADIUS_MM = 100.0


def radii(n: int, spacing: float) -> torch.Tensor:
    axis = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * spacing
    return torch.hypot(axis[:, None], axis[None])


def water_cylinder(n: int, spacing: float) -> torch.Tensor:
    """HU of a cylinder of water in air."""
    inside = ((RADIUS_MM - radii(n, spacing)) / spacing + 0.5).clamp(0, 1)
    return (inside * 1000 - 1000)[None, None]


def water_hardening(spectrum: Spectrum, thickness_mm: float) -> float:
    areal = torch.tensor([thickness_mm / 10], dtype=torch.float64)
    return float(hardening({"water": areal}, spectrum))


def analytic_change_hu(spectrum: Spectrum, r: float) -> float:
    """Inverse Abel transform of the hardening h(t(s)) of a cylinder, t = 2 sqrt(R^2 - s^2).

    With s^2 = r^2 + (R^2 - r^2) sin^2 u the singularities cancel: 2/pi * integral of h'(t) du.
    """

    def slope(u: float) -> float:
        t = 2 * math.sqrt((RADIUS_MM**2 - r**2) * math.cos(u) ** 2)
        low, high = max(t - 0.5, 1e-9), t + 0.5
        rise = water_hardening(spectrum, high) - water_hardening(spectrum, low)
        return rise / (high - low)

    return 1000 * 2 / math.pi * quad(slope, 0, math.pi / 2, limit=40, epsabs=1e-7)[0]


@pytest.mark.parametrize(("n", "spacing"), [(128, 2.0), (129, 2.0)])
def test_a_water_cylinder_cups_by_the_analytic_amount(n: int, spacing: float) -> None:
    image = water_cylinder(n, spacing)
    change = BeamHardening(torch.ones(1), 120.0, (spacing, spacing)).apply(image) - image
    r = radii(n, spacing)
    seen = change[0, 0][r < 8].mean() - change[0, 0][(r - 80).abs() < 2].mean()
    spectrum = tube_spectrum(120.0)
    expected = analytic_change_hu(spectrum, 0.0) - analytic_change_hu(spectrum, 80.0)
    assert expected < -15, "120 kVp must cup visibly"
    assert abs(float(seen) / expected - 1) < 0.02


def test_a_single_energy_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = water_cylinder(96, 2.5)
    image[..., 40:48, 40:48] = 900.0  # bone as well
    monkeypatch.setattr(tomography, "tube_spectrum", lambda kvp: single_energy(65.0))
    change = BeamHardening(torch.ones(1), 120.0, (2.5, 2.5)).apply(image) - image
    assert change.abs().max() < 0.05  # HU


def test_bone_hardens_more_than_water() -> None:
    spectrum = tube_spectrum(120.0)
    water = torch.tensor([20.0], dtype=torch.float64)
    kev = torch.tensor([spectrum.reference_kev], dtype=torch.float64)
    bone = torch.tensor([5.0], dtype=torch.float64)
    same = bone * mass_attenuation("bone", kev) / mass_attenuation("water", kev)
    behind_bone = float(hardening({"water": water, "bone": bone}, spectrum))
    behind_water = float(hardening({"water": water + same}, spectrum))
    assert behind_bone < 2 * behind_water < 0


def test_materials_give_the_hounsfield_units_back() -> None:
    image = torch.linspace(-1000, 2000, 61, dtype=torch.float64).view(1, 1, 61, 1)
    spectrum = tube_spectrum(100.0)
    kev = torch.tensor([spectrum.reference_kev], dtype=torch.float64)
    parts = materials(image, spectrum.reference_kev)
    mu = sum(float(mass_attenuation(m, kev)) * density for m, density in parts.items())
    back = 1000 * (mu / float(mass_attenuation("water", kev)) - 1)
    torch.testing.assert_close(back, image)


def test_the_areal_density_of_a_water_cylinder_is_its_diameter() -> None:
    image = water_cylinder(101, 2.5)
    scanner = parallel_scanner((101, 101), (2.5, 2.5), angles=8)
    areal = scan(image, scanner, (2.5, 2.5), 65.0)
    centre = areal["water"][0, 0, :, scanner.detectors // 2]
    assert (centre / (2 * RADIUS_MM / 10) - 1).abs().max() < 0.01
    assert areal["bone"].max() == 0


def noise_sd(photons: float, repeats: int = 24) -> float:
    image = water_cylinder(64, 4.0).float().expand(repeats, 1, 64, 64)
    dose = Dose(torch.full((repeats,), photons), 120.0, (4.0, 4.0), seed=0)
    noise = (dose.apply(image) - image)[:, 0, 28:36, 28:36]
    return float(noise.std())


def test_photon_noise_variance_scales_as_one_over_dose() -> None:
    low, high = noise_sd(1e5), noise_sd(4e5)
    assert abs((low / high) ** 2 / 4 - 1) < 0.1


def test_photon_noise_has_the_level_that_filtered_back_projection_predicts() -> None:
    """Ram-Lak: var = pi^2 / (12 pitch^2 views) * var(ray) at the centre of a cylinder.

    Linear interpolation between detectors takes part of the high frequencies away.
    """
    spacing, photons, views = 4.0, 2e5, 1000
    kev = torch.tensor([tube_spectrum(120.0).reference_kev], dtype=torch.float64)
    mu = float(mass_attenuation("water", kev)) / 10
    counts = photons * spacing * math.exp(-mu * 2 * RADIUS_MM)  # per ray, at `views` views
    ray = 1 / counts / mu**2
    white = math.pi**2 / (12 * spacing**2 * views) * ray
    f = torch.linspace(0, 0.5, 20001, dtype=torch.float64)
    # weights (1-a, a) multiply the power by 1 - 2a(1-a)(1 - cos 2 pi f); the mean of a(1-a) is 1/6
    interpolated = f**2 * (1 - (1 - torch.cos(2 * math.pi * f)) / 3)
    kept = float(interpolated.sum() / (f**2).sum())
    assert abs(noise_sd(photons) / (1000 * math.sqrt(white * kept)) - 1) < 0.1


def test_metal_saturates_and_darkens_the_band_between_the_pins() -> None:
    image = water_cylinder(96, 2.5).float()
    pins = torch.tensor([[[0.0, -0.4], [0.0, 0.4]]])
    seen = Metal(torch.tensor([8.0]), pins, 120.0, (2.5, 2.5), seed=0).apply(image)
    for column in (28, 67):  # 48 mm to both sides
        assert seen[0, 0, 46:50, column].max() > 2500
    between = (seen - image)[0, 0, 46:50, 40:56].mean()
    across = (seen - image)[0, 0, 20:36, 40:56].mean()
    assert between < across - 20
    none = Metal(torch.zeros(1), pins, 120.0, (2.5, 2.5), seed=0)
    torch.testing.assert_close(none.apply(image), image)


def test_a_volume_is_scanned_slice_by_slice() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(2, 1, 20, 18, 3, generator=generator) * 300 - 100
    share = torch.tensor([0.5, 1.0])
    whole = BeamHardening(share, 120.0, (8.0, 8.0, 5.0)).apply(volume)
    for z in range(3):
        alone = BeamHardening(share, 120.0, (8.0, 8.0)).apply(volume[..., z])
        torch.testing.assert_close(whole[..., z], alone, atol=1e-3, rtol=1e-4)


def test_a_soft_kernel_lowers_noise_and_a_sharp_one_raises_it() -> None:
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 20
    soft = Kernel(torch.tensor([1.0]), (1.0, 1.0)).apply(noise)
    sharp = Kernel(torch.tensor([-1.0]), (1.0, 1.0)).apply(noise)
    assert soft.std() < noise.std() < sharp.std()
    torch.testing.assert_close((soft + sharp) / 2, noise)


def test_tabulated_energies_are_met_exactly() -> None:
    for material, table in MASS_ATTENUATION.items():
        energies = torch.tensor(ENERGY_KEV, dtype=torch.float64)
        got = mass_attenuation(material, energies)
        torch.testing.assert_close(got, torch.tensor(table, dtype=torch.float64))


def test_harder_tubes_have_harder_beams() -> None:
    spectra = [tube_spectrum(k) for k in (80.0, 100.0, 120.0, 140.0)]
    means = [s.mean_kev for s in spectra]
    assert means == sorted(means)
    assert 60 < spectra[2].mean_kev < 72
    for spectrum in spectra:
        assert abs(float(spectrum.share.sum()) - 1) < 1e-12
        assert spectrum.energy_kev.max() < 150


def test_the_half_value_layer_at_120_kvp_is_that_of_a_ct_tube() -> None:
    thickness = torch.linspace(1, 15, 1401, dtype=torch.float64)
    depth = tube_spectrum(120.0).line_integral({"aluminium": thickness / 10 * 2.699})
    half_value_mm = float(thickness[(depth - math.log(2)).abs().argmin()])
    assert 7.0 < half_value_mm < 9.5


def test_a_voltage_outside_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match=r"200\.0 kVp is outside"):
        tube_spectrum(200.0)


def test_no_dose_limit_is_the_identity(generator: torch.Generator) -> None:
    image = water_cylinder(32, 8.0)
    endless = Dose.sample(generator, image.shape, profile_for("ct", (8.0, 8.0)).at("dose", 0))
    torch.testing.assert_close(endless.apply(image), image)
