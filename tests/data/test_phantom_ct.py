import numpy as np
import pytest

from penumbra.data.phantom_ct import (
    INDEX,
    NATIVE_HU,
    ORGANS,
    SCANNERS,
    SHIFTED,
    CtScanner,
    ct_phantom,
    material_hu,
    reconstruct,
)

SMALL = (48, 40, 12)


def test_enhancement_by_hand() -> None:
    liver_100 = CtScanner("x", 100, "medium", 9.0)
    assert material_hu(liver_100, "liver") == pytest.approx(57 + 55 * 1.24)
    assert material_hu(liver_100, "fat") == -100
    assert material_hu(SHIFTED, "aorta") == pytest.approx(42 + 260 * 1.64)
    assert material_hu(SHIFTED, "cortical bone") == pytest.approx(700 * 1.35)


def test_labels_match_material_when_nothing_is_ambiguous() -> None:
    case = ct_phantom(1, shape=SMALL)
    for name, value in ORGANS.items():
        np.testing.assert_array_equal(
            case.segmentation == value, case.truth["material"] == INDEX[name]
        )
        assert (case.segmentation == value).any(), name
    assert all((reader == case.segmentation).all() for reader in case.readers)


def test_measured_organs_have_their_hounsfield_units() -> None:
    case = ct_phantom(0)
    hu, label = case.images["ct"], case.segmentation
    liver = hu[label == ORGANS["liver"]]
    assert np.median(liver) == pytest.approx(material_hu(SCANNERS[0], "liver"), abs=6)
    assert np.median(hu[case.truth["material"] == INDEX["air"]]) == pytest.approx(-1000, abs=15)
    assert hu.min() >= -1024


def test_the_right_kidney_and_the_liver_lie_on_the_right() -> None:
    case = ct_phantom(2, shape=SMALL)  # RAS+: the first axis runs to the patient's right
    middle = (SMALL[0] - 1) / 2
    for name in ("liver", "right kidney", "inferior vena cava"):
        assert np.nonzero(case.segmentation == ORGANS[name])[0].mean() > middle, name
    for name in ("spleen", "left kidney", "stomach", "aorta"):
        assert np.nonzero(case.segmentation == ORGANS[name])[0].mean() < middle, name


def test_noise_has_the_level_asked_for_and_sharp_kernels_are_noisier() -> None:
    water = np.zeros((64, 64, 16))
    levels = {}
    for kernel in ("soft", "medium", "sharp"):
        scanner = CtScanner("x", 120, kernel, 10.0)
        noise = reconstruct(
            water, np.random.default_rng(0), scanner=scanner, spacing_mm=(3.0, 3.0, 5.0)
        )
        levels[kernel] = noise.std()
        assert abs(noise.mean()) < 0.5
    assert levels["medium"] == pytest.approx(10, rel=0.02)
    assert levels["soft"] < levels["medium"] < levels["sharp"]


def test_scanners_differ_in_contrast_and_share_the_anatomy() -> None:
    cases = [ct_phantom(3, shape=SMALL, scanner=s) for s in (*SCANNERS, SHIFTED)]
    kidney = cases[0].segmentation == ORGANS["right kidney"]
    means = [float(c.images["ct"][kidney].mean()) for c in cases]
    assert min(abs(a - b) for i, a in enumerate(means) for b in means[:i]) > 3
    for case in cases:
        np.testing.assert_array_equal(case.segmentation, cases[0].segmentation)


def test_the_same_seed_gives_the_same_scan_and_another_does_not() -> None:
    a, b, c = (ct_phantom(s, shape=SMALL, ambiguity=0.5) for s in (7, 7, 8))
    np.testing.assert_array_equal(a.images["ct"], b.images["ct"])
    np.testing.assert_array_equal(a.readers, b.readers)
    assert not np.array_equal(a.images["ct"], c.images["ct"])


def test_ambiguous_readers_disagree_as_their_probability_says() -> None:
    case = ct_phantom(2, shape=SMALL, ambiguity=1.0, readers=40)
    np.testing.assert_allclose(case.probability.sum(0), 1, atol=1e-5)
    background = (case.readers == 0).mean(0)
    assert np.abs(background - case.probability[0]).mean() < 0.02
    assert not np.array_equal(case.readers[0], case.readers[1])


def test_every_enhancing_material_is_a_known_material() -> None:
    from penumbra.data.phantom_ct import ENHANCEMENT_HU

    for table in ENHANCEMENT_HU.values():
        assert set(table) <= set(NATIVE_HU)
