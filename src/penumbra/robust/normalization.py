"""Clean and attacked batches have different statistics: two batch norms instead of one.

Only for networks with batch statistics (a DenseNet baseline); Penumbra's own network normalises
per image and needs none of this.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SplitBatchNorm(nn.Module):
    """A batch norm for clean batches and another for attacked ones, equal when fresh.

    Xie et al. 2020 (AdvProp); Han et al. 2021 found that it closes the clean-AUC gap of
    adversarially trained chest X-ray models.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.clean = norm
        self.attacked = copy.deepcopy(norm)
        self.under_attack = False

    def forward(self, x: Tensor) -> Tensor:
        norm = self.attacked if self.under_attack else self.clean
        return norm(x)


def split_batch_norms(network: nn.Module) -> int:
    """Replace, in place, every batch norm below ``network``; returns how many there were.

    Build the optimizer afterwards. Predictions do not change.
    """
    replaced = 0
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            setattr(network, name, SplitBatchNorm(child))
            replaced += 1
        elif not isinstance(child, SplitBatchNorm):
            replaced += split_batch_norms(child)
    return replaced


@contextmanager
def attacked_path(network: nn.Module) -> Iterator[None]:
    """Inside, the network uses the norms of attacked batches; outside, those of clean ones."""
    splits = [m for m in network.modules() if isinstance(m, SplitBatchNorm)]
    before = [m.under_attack for m in splits]
    for m in splits:
        m.under_attack = True
    try:
        yield
    finally:
        for m, was in zip(splits, before, strict=True):
            m.under_attack = was


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, batch norms use their running statistics and do not update them.

    For making attacks while training: images of a batch then do not influence each other, and the
    attack's passes leave no trace. Dropout and everything else stay as they are.
    """
    training = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
    for m in training:
        m.eval()
    try:
        yield
    finally:
        for m in training:
            m.train()
