import numpy as np
import pytest
import torch

from penumbra.bayes.mahalanobis import Strangeness, fit_familiarity, shrunk_gaussian


@pytest.mark.parametrize(("n", "d"), [(12, 40), (60, 5)])
def test_the_shrunk_precision_is_that_of_scikit_learn(n: int, d: int) -> None:
    from sklearn.covariance import OAS

    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    theirs = OAS().fit(features)
    _, precision, shrinkage = shrunk_gaussian(features)
    assert shrinkage == pytest.approx(theirs.shrinkage_)
    np.testing.assert_allclose(precision, theirs.precision_, rtol=1e-6, atol=1e-9)
    known = fit_familiarity(torch.from_numpy(features), torch.from_numpy(features))
    squared = known(torch.from_numpy(features)).numpy() ** 2 * d
    np.testing.assert_allclose(squared, theirs.mahalanobis(features), rtol=1e-6)


def test_a_shifted_scan_lies_farther_than_every_validation_scan() -> None:
    features = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    known = fit_familiarity(features[:30], features[30:])
    strange = known.judge(features[0] + 3)
    assert strange.nearer == strange.scans == 10
    assert strange.p_value == pytest.approx(1 / 11)


def test_the_p_value_of_the_least_strange_scan_is_one() -> None:
    assert Strangeness(0.1, 0, 9).p_value == 1


def test_equal_scans_have_no_spread() -> None:
    with pytest.raises(ValueError, match="spread is zero"):
        shrunk_gaussian(np.ones((4, 3)))
    with pytest.raises(ValueError, match="needs two"):
        shrunk_gaussian(np.ones((1, 3)))
