"""The self-audit on uncertainties whose meaning is known."""

import numpy as np
import pytest

from penumbra.evaluate import audit

FRACTIONS = (0.1, 0.25, 0.5, 1.0)


def falling(noise: float, cases: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 50, cases)
    return base / np.sqrt(np.array(FRACTIONS))[:, None] * np.exp(rng.normal(0, noise, (4, cases)))


def test_an_uncertainty_that_falls_with_labels_passes_whatever_the_cases_level() -> None:
    trend = audit.trend(FRACTIONS, falling(0.05), direction="falls")
    assert trend.correlation.value == pytest.approx(-1, abs=0.05)
    assert trend.verdict == "supported"
    assert audit.trend(FRACTIONS, falling(0.05), direction="rises").verdict == "not supported"


def test_noise_decides_nothing() -> None:
    values = np.random.default_rng(1).random((4, 12))
    assert audit.trend(FRACTIONS, values, direction="falls").verdict == "undecided"


def test_an_uncertainty_that_never_moves_is_counted_as_undefined() -> None:
    trend = audit.trend(FRACTIONS, np.ones((4, 5)), direction="falls")
    assert trend.correlation.undefined == 5
    assert trend.verdict == "undecided"


def test_levels_must_match_the_values() -> None:
    with pytest.raises(ValueError, match="3 levels but 4 rows"):
        audit.trend((1, 2, 3), falling(0.1), direction="falls")
