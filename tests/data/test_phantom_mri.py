import math

import numpy as np
import pytest

from penumbra.data.phantom_mri import INDEX, LABELS, mri_phantom
from penumbra.data.phantom_signal import (
    SCANNERS,
    SHIFTED,
    TISSUES,
    acquire,
    gradient_echo,
    inversion_recovery,
    spin_echo,
    tissue_signals,
    with_gadolinium,
)

SMALL = (32, 32, 12)


def test_spin_echo_by_hand() -> None:
    t1, t2 = 1000.0, 100.0
    # TR = T1 and TE = T2: (1 - 1/e) / e
    assert spin_echo(1.0, t1, t2, tr=1000.0, te=100.0) == pytest.approx(0.2325, abs=1e-4)
    assert spin_echo(1.0, t1, t2, tr=1e9, te=0.0) == 1.0


def test_flair_nulls_csf_at_its_inversion_time() -> None:
    t1, t2, tr = 4300.0, 2000.0, 9000.0
    null = t1 * math.log(2 / (1 + math.exp(-tr / t1)))
    signal = inversion_recovery(1.0, t1, t2, tr=tr, te=120.0, ti=null)
    assert signal == pytest.approx(0.0, abs=1e-12)
    by_hand = abs(1 - 2 * math.exp(-0.5) + math.exp(-2.0)) * math.exp(-0.1)
    signal = inversion_recovery(1.0, 1000.0, 1000.0, tr=2000.0, te=100.0, ti=500.0)
    assert signal == pytest.approx(by_hand)


def test_a_right_angle_gradient_echo_is_a_saturation_recovery() -> None:
    signal = gradient_echo(1.0, 1000.0, tr=1000.0, flip_degrees=90.0)
    assert signal == pytest.approx(1 - math.exp(-1), rel=1e-6)


def test_gadolinium_adds_relaxation_rates() -> None:
    t1, t2 = with_gadolinium(1000.0, 100.0, 1.0)
    assert t1 == pytest.approx(1000 / (1 + 4.3), rel=1e-6)
    assert t2 == pytest.approx(1000 / (10 + 5.2), rel=1e-6)


def test_t1_at_the_tabulated_fields_is_the_table() -> None:
    for tissue in TISSUES.values():
        assert tissue.t1(1.5) == pytest.approx(tissue.t1_15)
        assert tissue.t1(3.0) == pytest.approx(tissue.t1_30)


@pytest.mark.parametrize("scanner", [*SCANNERS, SHIFTED], ids=lambda s: s.name)
def test_every_scanner_shows_the_radiological_signs(scanner) -> None:
    s = {name: tissue_signals(scanner, tissue) for name, tissue in TISSUES.items()}
    assert s["oedema"]["flair"] > s["white"]["flair"] > s["csf"]["flair"]
    assert s["csf"]["t2"] > s["oedema"]["t2"] > s["white"]["t2"]
    assert s["white"]["t1"] > s["grey"]["t1"] > s["csf"]["t1"]
    assert s["enhancing"]["t1ce"] > 1.2 * max(s["white"]["t1ce"], s["necrosis"]["t1ce"])
    assert s["enhancing"]["t1ce"] > 1.3 * s["enhancing"]["t1"]


def test_noise_is_rician() -> None:
    rng = np.random.default_rng(0)
    nothing = acquire(np.zeros((64, 64, 8)), rng, noise=0.1, resolution=1.0)
    assert nothing.mean() == pytest.approx(0.1 * math.sqrt(math.pi / 2), rel=0.02)
    bright = acquire(np.full((64, 64, 8), 2.0), rng, noise=0.1, resolution=1.0)
    assert bright.mean() == pytest.approx(2 + 0.1**2 / 4, abs=0.005)
    assert bright.std() == pytest.approx(0.1, rel=0.02)


def test_labels_match_tissue_when_nothing_is_ambiguous() -> None:
    case = mri_phantom(3, shape=SMALL)
    tissue = case.truth["tissue"]
    for name, label in {"necrosis": 1, "oedema": 2, "enhancing": 4}.items():
        np.testing.assert_array_equal(case.segmentation == label, tissue == INDEX[name])
    assert {1, 2, 4} <= set(np.unique(case.segmentation).tolist()) <= {0, 1, 2, 4}
    assert all((reader == case.segmentation).all() for reader in case.readers)
    assert set(np.unique(case.probability)) == {0.0, 1.0}


def test_the_background_is_exactly_zero_as_after_skull_stripping() -> None:
    case = mri_phantom(3, shape=SMALL)
    for image in case.images.values():
        assert (image[~case.truth["brain"]] == 0).all()
        assert np.isfinite(image).all()
        assert (image >= 0).all()


def test_one_seed_is_one_person_on_every_scanner_and_contrast_differs() -> None:
    cases = [mri_phantom(5, shape=SMALL, scanner=s) for s in (*SCANNERS, SHIFTED)]
    ratios = []
    for case in cases:
        np.testing.assert_array_equal(case.segmentation, cases[0].segmentation)
        grey, white = (case.truth["tissue"] == INDEX[t] for t in ("grey", "white"))
        t1 = case.images["t1"]
        ratios.append(t1[grey].mean() / t1[white].mean())
    assert min(abs(a - b) for i, a in enumerate(ratios) for b in ratios[:i]) > 0.003


def test_the_same_seed_gives_the_same_scan_and_another_does_not() -> None:
    a, b, c = (mri_phantom(s, shape=SMALL, ambiguity=0.5) for s in (7, 7, 8))
    np.testing.assert_array_equal(a.images["flair"], b.images["flair"])
    np.testing.assert_array_equal(a.readers, b.readers)
    assert not np.array_equal(a.images["flair"], c.images["flair"])


def test_ambiguous_readers_disagree_as_their_probability_says() -> None:
    case = mri_phantom(2, shape=SMALL, ambiguity=1.0, readers=60)
    np.testing.assert_allclose(case.probability.sum(0), 1, atol=1e-5)
    for value, chance in zip(LABELS, case.probability, strict=True):
        frequency = (case.readers == value).mean(0)
        assert np.abs(frequency - chance).mean() < 0.02
        some = (chance > 0.3) & (chance < 0.7)
        if some.sum() > 50:
            assert frequency[some].mean() == pytest.approx(chance[some].mean(), abs=0.08)


def test_ambiguity_changes_the_labels_and_not_the_image() -> None:
    sure, unsure = (mri_phantom(4, shape=SMALL, ambiguity=a) for a in (0.0, 1.0))
    np.testing.assert_array_equal(sure.images["t2"], unsure.images["t2"])
    assert not np.array_equal(sure.segmentation, unsure.segmentation)
    assert not np.array_equal(unsure.readers[0], unsure.readers[1])


def test_every_tumour_has_oedema_and_an_enhancing_rim() -> None:
    for seed in range(12):
        counts = np.bincount(mri_phantom(seed).segmentation.ravel(), minlength=5)
        assert counts[2] > 100, seed
        assert counts[4] > 40, seed
