import numpy as np
import pytest

from penumbra.bayes.mahalanobis import fit_density


@pytest.mark.parametrize(("n", "d"), [(12, 40), (60, 5)])
def test_the_shrunk_precision_is_that_of_scikit_learn(n: int, d: int) -> None:
    from sklearn.covariance import OAS

    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    theirs = OAS().fit(features)
    ours = fit_density(features)
    assert ours.shrinkage == pytest.approx(theirs.shrinkage_)
    np.testing.assert_allclose(ours.precision, theirs.precision_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        ours.distance(features) ** 2 * d, theirs.mahalanobis(features), rtol=1e-6
    )


def test_a_shifted_scan_lies_farther_than_any_training_scan() -> None:
    features = np.random.default_rng(1).normal(size=(30, 64))
    density = fit_density(features)
    assert density.distance(features[:1] + 3)[0] > density.distance(features).max()


def test_equal_scans_have_no_spread() -> None:
    with pytest.raises(ValueError, match="spread is zero"):
        fit_density(np.ones((4, 3)))
    with pytest.raises(ValueError, match="needs two"):
        fit_density(np.ones((1, 3)))
