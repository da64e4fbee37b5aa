"""Separate batch norms for clean and attacked batches."""

import pytest
import torch
from torch import nn

from penumbra.robust.normalization import attacked_path, frozen_statistics, split_batch_norms


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)),
    )


def test_splitting_changes_no_prediction(generator: torch.Generator) -> None:
    model = network().eval()
    x = torch.rand((4, 1, 6, 6), generator=generator)
    before = model(x)
    assert split_batch_norms(model) == 2
    torch.testing.assert_close(model(x), before)
    with attacked_path(model):
        torch.testing.assert_close(model(x), before)


def test_each_path_keeps_its_own_statistics(generator: torch.Generator) -> None:
    model = network()
    split_batch_norms(model)
    x = torch.rand((4, 1, 6, 6), generator=generator)
    clean = model[1].clean.running_mean.clone()
    with attacked_path(model):
        model(x + 5)
    torch.testing.assert_close(model[1].clean.running_mean, clean)
    assert not torch.equal(model[1].attacked.running_mean, clean)
    model(x)
    assert not torch.equal(model[1].clean.running_mean, clean)


def test_splitting_twice_splits_once() -> None:
    model = network()
    assert split_batch_norms(model) == 2
    assert split_batch_norms(model) == 0


def test_the_clean_path_returns_after_an_error() -> None:
    model = network()
    split_batch_norms(model)
    with pytest.raises(RuntimeError, match="inside"), attacked_path(model):
        raise RuntimeError("inside")
    assert not model[1].under_attack


def test_an_attack_leaves_no_trace_in_the_statistics(generator: torch.Generator) -> None:
    model = network().train()
    before = model[1].running_mean.clone()
    with frozen_statistics(model):
        model(torch.rand((4, 1, 6, 6), generator=generator))
        assert model.training
    torch.testing.assert_close(model[1].running_mean, before)
    assert model[1].training
