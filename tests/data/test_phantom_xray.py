import math

import numpy as np
import pytest

from penumbra.data.phantom_thorax import FINDINGS, thorax
from penumbra.data.phantom_xray import (
    SCANNERS,
    SHIFTED,
    XrayScanner,
    detect,
    display,
    transmission,
    xray_phantom,
)

SMALL = (48, 48)
HEALTHY = dict.fromkeys(FINDINGS, 0.0)


def thorax_with(**severities: float):
    named = {name.replace("_", " "): value for name, value in severities.items()}
    return thorax(
        np.random.default_rng(1),
        np.random.default_rng(2),
        HEALTHY | named,
        shape=(64, 64),
        magnification=1.0,
    )


def test_beer_lambert_by_hand() -> None:
    path = {"soft": np.array([0.0, 10.0, 10.0]), "bone": np.array([0.0, 0.0, 1.0])}
    soft, bone = 0.2048 * 1.06, 0.3148 * 1.92
    expected = [1.0, math.exp(-10 * soft), math.exp(-10 * soft - bone)]
    np.testing.assert_allclose(transmission(path, 60), expected, rtol=1e-9)


def test_a_harder_beam_passes_more_and_shows_less_bone() -> None:
    soft, bone = {"soft": np.array([15.0])}, {"bone": np.array([1.0])}
    assert transmission(soft, 80) > transmission(soft, 40)
    assert transmission(bone, 80) > transmission(bone, 40)


def test_detected_exposure_holds_the_scatter_fraction_and_poisson_noise() -> None:
    scanner = XrayScanner("x", 60, 1000.0, 0.5, 0.0, 1.0, "PA")
    beam = np.full((80, 80), 0.2)
    detected = detect(beam, np.random.default_rng(0), scanner=scanner)
    assert detected.mean() == pytest.approx(0.4, rel=0.01)  # as much scatter as primary
    assert detected.std() == pytest.approx(math.sqrt(0.4 / 1000), rel=0.05)


def test_dense_tissue_is_white_and_the_film_has_eight_bits() -> None:
    exposure = np.linspace(0.01, 0.5, 100).reshape(10, 10)
    film = display(exposure, gamma=1.0, photons=1e4)
    assert film.dtype == np.uint8
    assert film[0, 0] == 255
    assert film[-1, -1] == 0
    assert (np.diff(film.ravel().astype(int)) <= 0).all()


def test_pleural_fluid_lengthens_the_soft_path_and_free_air_shortens_it() -> None:
    healthy, _ = thorax_with()
    wet, regions = thorax_with(Pleural_Effusion=0.8)
    change = wet["soft"] - healthy["soft"]
    assert change[regions["pleural_effusion"]].mean() > 2
    assert np.abs(change[~regions["pleural_effusion"]]).max() < 0.6
    dry, regions = thorax_with(Pneumothorax=0.8)
    assert (dry["soft"] - healthy["soft"])[regions["pneumothorax"]].mean() < -0.3


def test_consolidation_is_denser_than_ground_glass() -> None:
    healthy, _ = thorax_with()
    added = {}
    for name, region in (
        ("Consolidation", "consolidation"),
        ("Lung_Opacity", "ground_glass_opacities"),
    ):
        path, regions = thorax_with(**{name: 0.9})
        added[name] = (path["soft"] - healthy["soft"])[regions[region]].max()
    assert added["Consolidation"] > added["Lung_Opacity"] > 0.5


def test_cardiomegaly_widens_the_heart_past_half_of_the_thorax() -> None:
    ratios = []
    for severity in (0.0, 1.0):
        _, regions = thorax_with(Cardiomegaly=severity)
        heart = regions["cardiomediastinum"]
        lungs = regions["left_lung"] | regions["right_lung"]
        width = [np.ptp(np.nonzero(m.any(axis=0))[0]) + 1 for m in (heart, lungs)]
        ratios.append(width[0] / width[1])
    assert ratios[0] < 0.5 < ratios[1]


def test_the_heart_points_left_and_the_image_left_is_the_patients_right() -> None:
    _, regions = thorax_with()
    columns = np.nonzero(regions["cardiomediastinum"])[1]
    assert columns.mean() > 31.5
    assert np.nonzero(regions["right_lung"])[1].mean() < 31.5


def test_no_region_of_a_finding_without_the_finding() -> None:
    _, regions = thorax_with()
    assert set(regions) == {"left_lung", "right_lung", "cardiomediastinum"}


def test_severity_above_the_threshold_is_present_when_nothing_is_ambiguous() -> None:
    for seed in range(6):
        case = xray_phantom(seed, shape=SMALL)
        present = (case.truth["severity"] >= 0.5).astype(float)
        np.testing.assert_array_equal(list(case.findings.values()), present)
        assert (case.finding_readers == present).all()
        assert list(case.finding_probability.values()) == present.tolist()


def test_ambiguous_readers_call_findings_as_often_as_their_probability_says() -> None:
    case = xray_phantom(1, shape=SMALL, ambiguity=1.0, readers=4000)
    np.testing.assert_allclose(
        case.finding_readers.mean(0), list(case.finding_probability.values()), atol=0.03
    )


def test_scanners_differ_in_contrast_and_share_the_anatomy() -> None:
    films = [xray_phantom(3, shape=SMALL, scanner=s) for s in (*SCANNERS, SHIFTED)]
    lung = films[0].regions["left_lung"]
    means = [float(f.images["xray"][lung].mean()) for f in films]
    assert min(abs(a - b) for i, a in enumerate(means) for b in means[:i]) > 1
    for film in films:
        assert film.findings == films[0].findings


def test_the_same_seed_gives_the_same_film_and_studies_share_a_body() -> None:
    a, b = (xray_phantom(5, shape=SMALL, body_seed=9) for _ in range(2))
    np.testing.assert_array_equal(a.images["xray"], b.images["xray"])
    other = xray_phantom(6, shape=SMALL, body_seed=9)
    assert not np.array_equal(a.images["xray"], other.images["xray"])
    np.testing.assert_array_equal(a.truth["bone_cm"], other.truth["bone_cm"])
