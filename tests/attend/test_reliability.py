"""Calibration of attention."""

import math

import pytest
import torch

from penumbra.attend.reliability import (
    Edges,
    calibrated,
    calibration_error,
    merge,
    shares,
    table,
    tally,
)

EDGES = Edges(attention=(0.25, 0.5, 0.75), uncertainty=(0.1,))


def body_of(x: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(x[:, 0], dtype=torch.bool)


def test_a_map_that_says_how_often_it_is_right_has_no_error(generator: torch.Generator) -> None:
    attention = torch.rand((8, 1, 64, 64), generator=generator)
    expert = (torch.rand(attention.shape, generator=generator) < attention).float()
    counts = tally(attention, 0 * attention, expert, body_of(attention), edges=Edges(), block=1)
    assert calibration_error(counts) < 0.01
    over = tally(
        attention.sqrt(), 0 * attention, expert, body_of(attention), edges=Edges(), block=1
    )
    assert calibration_error(over) > 0.1


def test_the_table_by_hand() -> None:
    attention = torch.tensor([[[0.1, 0.9, 0.9, 0.9]]])
    uncertainty = torch.tensor([[[0.0, 0.0, 0.5, 0.5]]])
    expert = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    counts = tally(attention, uncertainty, expert, body_of(attention), edges=EDGES, block=1)
    found = [
        (c.attention_bin, c.uncertainty_bin, c.regions, round(c.attention, 6), c.relevance)
        for c in table(counts)
    ]
    assert found == [(0, 0, 1, 0.1, 0.0), (3, 0, 1, 0.9, 1.0), (3, 1, 2, 0.9, 0.5)]
    assert calibration_error(counts) == pytest.approx((0.1 + 0.1 + 2 * 0.4) / 4)


def test_blocks_outside_the_body_do_not_count() -> None:
    attention = torch.rand(1, 1, 16, 16)
    body = torch.zeros((1, 16, 16), dtype=torch.bool)
    body[:, :8] = True
    counts = tally(attention, attention, attention, body, edges=EDGES, block=8)
    assert float(counts.regions.sum()) == 2


def test_cases_add_up(generator: torch.Generator) -> None:
    a, u, e = (torch.rand((3, 2, 8, 8, 8), generator=generator) for _ in range(3))
    whole = tally(a, u, e, body_of(a), edges=EDGES, block=4)
    parts = [
        tally(a[i : i + 1], u[i : i + 1], e[i : i + 1], body_of(a)[i : i + 1], edges=EDGES, block=4)
        for i in range(3)
    ]
    torch.testing.assert_close(merge(parts).relevance, whole.relevance)
    torch.testing.assert_close(merge(parts).regions, whole.regions)


def test_the_calibrated_map_shows_the_share_that_mattered(generator: torch.Generator) -> None:
    attention = torch.rand((4, 1, 64, 64), generator=generator)
    expert = (torch.rand(attention.shape, generator=generator) < attention.square()).float()
    u = torch.rand(attention.shape, generator=generator) * 0.2
    counts = tally(attention, u, expert, body_of(attention), edges=EDGES, block=1)
    shown = calibrated(attention, u, shares(counts), edges=EDGES)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
    after = tally(shown, u, expert, body_of(attention), edges=EDGES, block=1)
    assert calibration_error(after) < 0.02 < calibration_error(counts)


def test_nothing_counted_is_not_a_number() -> None:
    x = torch.rand(1, 1, 8, 8)
    counts = tally(x, x, x, torch.zeros((1, 8, 8), dtype=torch.bool), edges=EDGES)
    assert math.isnan(calibration_error(counts))
    assert table(counts) == []
    with pytest.raises(ValueError, match="no case"):
        merge([])


def test_a_table_of_other_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        calibrated(torch.ones(2), torch.ones(2), torch.ones(3, 3), edges=EDGES)
