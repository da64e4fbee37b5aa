"""Colors of a map: structure is shown, noise around a constant is not."""

import numpy as np
import pytest

from penumbra.attend.scale import LEAST, color_range, flat


def test_a_map_with_structure_spans_all_colors_between_its_extremes() -> None:
    assert color_range([np.array([0.1, 0.4, 0.9])]) == (0.1, 0.9)
    assert flat(np.array([0.1, 0.4, 0.9])) == ""


def test_a_nearly_constant_map_gets_little_color_and_says_so() -> None:
    values = np.array([0.48, 0.5, 0.52])
    low, high = color_range([values])
    assert high - low == pytest.approx(LEAST)
    assert ((values - low) / (high - low)).max() < 0.5
    assert "points nowhere" in flat(values)


def test_a_flat_map_of_ones_stays_within_the_range_of_a_gate() -> None:
    assert color_range([np.ones(3)]) == (1 - LEAST, 1.0)


def test_maps_that_are_compared_share_one_range_and_missing_values_do_not_count() -> None:
    assert color_range([np.array([0.2, np.nan]), np.array([0.7, 0.3])]) == (0.2, 0.7)


def test_no_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="no maps"):
        color_range([])
