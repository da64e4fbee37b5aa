"""The severity suite."""

from typing import get_args

import pytest
import torch

from penumbra.augment import families, shift
from penumbra.robust.shift import Shift, degradation, suite
from penumbra.types import Modality


def test_every_family_meets_every_severity_and_seen_ones_are_marked() -> None:
    cells = suite(["blur", "bias"], seen=["bias"])
    assert len(cells) == 10
    assert {c.family for c in cells if c.seen} == {"bias"}


def test_a_misspelt_seen_family_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\['bais'\] are no shift families"):
        suite(["blur", "bias"], seen=["bais"])


def test_degradation_by_hand() -> None:
    cells = {Shift("blur", 1, False): 0.8, Shift("blur", 5, False): 0.4}
    result = degradation(0.8, cells)
    assert result.mean == pytest.approx(0.2)
    assert result.relative == pytest.approx(0.75)
    assert (result.worst, result.where) == (0.4, Shift("blur", 5, False))


@pytest.mark.parametrize(
    ("clean", "cells", "message"),
    [(0.5, {}, "no shifted score"), (float("nan"), {Shift("a", 1, False): 0.1}, "finite")],
)
def test_nothing_to_summarise_is_an_error(clean, cells, message) -> None:
    with pytest.raises(ValueError, match=message):
        degradation(clean, cells)


@pytest.mark.parametrize("modality", get_args(Modality))
def test_every_family_of_a_modality_changes_the_image_and_keeps_its_shape(
    modality: Modality, generator: torch.Generator
) -> None:
    image = torch.rand((1, 1, 32, 32), generator=generator)
    stored = image * 400 - 160 if modality == "ct" else image
    for cell in suite(families(modality), seen=[], severities=[1, 5]):
        changed = shift(
            stored,
            family=cell.family,
            severity=cell.severity,
            modality=modality,
            generator=generator,
        )
        assert changed.shape == stored.shape
        assert bool(torch.isfinite(changed).all()), cell
        assert not torch.equal(changed, stored), cell
