"""Guards and monitors: by hand, and the refusal to train a dead representation."""

import math

import pytest
import torch

from penumbra.errors import TrainingError
from penumbra.pretrain.collapse import (
    CollapseWatch,
    alignment,
    effective_rank,
    monitors,
    spread,
    uniformity,
    variance_guard,
)


def test_collapsed_embeddings_have_no_rank_no_spread_and_the_full_guard() -> None:
    z = torch.ones(6, 4)
    assert float(effective_rank(z)) == 0
    assert float(spread(z).max()) < 1e-3
    assert float(variance_guard(z)) == pytest.approx(1, abs=1e-3)
    assert float(uniformity(z)) == pytest.approx(0, abs=1e-5)


def test_opposite_points_on_every_axis_are_healthy() -> None:
    z = torch.cat([torch.eye(4), -torch.eye(4)])
    assert float(effective_rank(z)) == pytest.approx(4, rel=1e-4)
    torch.testing.assert_close(spread(z), torch.ones(4))
    assert float(variance_guard(z)) == pytest.approx(0, abs=1e-6)


def test_embeddings_on_a_line_have_rank_one(generator: torch.Generator) -> None:
    z = torch.tensor([[1.0, 0, 0], [-1, 0, 0]]).repeat(5, 1)
    assert float(effective_rank(z)) == pytest.approx(1, rel=1e-4)


def test_the_rank_of_random_embeddings_is_close_to_the_dimension(
    generator: torch.Generator,
) -> None:
    assert 7.8 < float(effective_rank(torch.randn(2000, 8, generator=generator))) <= 8


def test_alignment_and_uniformity_by_hand() -> None:
    a, b = torch.tensor([[2.0, 0], [0, 1]]), torch.tensor([[1.0, 0], [0, -3]])
    assert float(alignment(a, b)) == pytest.approx((0 + 4) / 2)
    assert float(uniformity(a)) == pytest.approx(math.log(math.exp(-2 * 2)), rel=1e-5)


def test_the_guard_pulls_a_collapsed_batch_apart(generator: torch.Generator) -> None:
    z = torch.ones(16, 8) + 1e-2 * torch.randn(16, 8, generator=generator)
    z.requires_grad_()
    optimizer = torch.optim.SGD([z], lr=5.0)
    before = float(spread(z.detach()).mean())
    for _ in range(30):
        optimizer.zero_grad()
        variance_guard(z).backward()
        optimizer.step()
    assert float(spread(z.detach()).mean()) > 10 * before


def test_a_collapse_that_lasts_is_refused_with_a_remedy() -> None:
    watch, dead = CollapseWatch(patience=3), monitors(torch.ones(8, 4))
    for _ in range(2):
        watch.update(dead, ceiling=4)
    with pytest.raises(TrainingError, match=r"collapsed: for 3 steps .* Raise pretrain.variance_g"):
        watch.update(dead, ceiling=4)


def test_a_passing_weakness_is_forgiven(generator: torch.Generator) -> None:
    watch, dead = CollapseWatch(patience=3), monitors(torch.ones(8, 4))
    alive = monitors(torch.randn(8, 4, generator=generator))
    for seen in (dead, dead, alive, dead, dead):
        watch.update(seen, ceiling=4)
    assert int(watch.bad_steps) == 2


def test_embeddings_that_are_not_finite_are_refused() -> None:
    z = torch.ones(4, 3)
    z[0, 0] = torch.nan
    with pytest.raises(TrainingError, match="embeddings are not finite"):
        CollapseWatch().update(monitors(z), ceiling=3)
