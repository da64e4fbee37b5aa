"""Counts of draws against the label maps that they stand for."""

import numpy as np
import pytest

from penumbra.bayes.counts import Counts


@pytest.mark.parametrize("shape", [(1, 5), (3, 7, 11), (1, 8, 4, 2), (1, 64)])
def test_counts_are_those_of_the_label_maps(shape: tuple[int, ...]) -> None:
    maps = np.random.default_rng(0).integers(0, 3, (6, *shape)).astype(np.uint8)
    counts = Counts(6, classes=4)
    for labels in maps:
        counts.add(labels)
    flat = maps.reshape(6, -1)
    wanted = [[int((labels == c).sum()) for c in range(4)] for labels in flat]
    assert counts.classes.tolist() == wanted
    foreground = (flat > 0).astype(int)
    assert counts.shared.tolist() == (foreground @ foreground.T).tolist()


def test_empty_draws_share_nothing() -> None:
    counts = Counts(2, classes=2)
    for _ in range(2):
        counts.add(np.zeros((4, 4), dtype=np.uint8))
    assert counts.shared.sum() == 0
    assert counts.classes.tolist() == [[16, 0], [16, 0]]
