"""How many draws are enough: ``draws: auto``."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.bayes.bank import Bank, to_probabilities
from penumbra.bayes.uncertainty import Kind, entropy_of
from penumbra.types import Output

ENOUGH = 0.97
LEAST, STEP, MOST = 12, 4, 64
MARGIN = 2 / 3
GROUPS = 4
SPLITS = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
"""Every way to halve four groups of draws."""


def enough_draws(
    bank: Bank, windows: Sequence[Float[Tensor, "_ c *_"]], *, correlation: float = ENOUGH
) -> int:
    """Draws after which the maps no longer change much.

    Two halves of the draws give independent mutual-information maps; their correlation r gives the
    full map's correlation with that of endless draws as ``sqrt(2r / (1 + r))`` (Spearman-Brown).
    That is right on average and wrong for the one bank at hand, so the worst of the three ways to
    halve four groups must leave ``MARGIN`` of the allowed error, twice in a row (measured: 95 of
    100 banks then reach ``correlation``, docs/results/posterior-cost.md), or the bank is used up.
    One number serves a whole volume: pass a few windows that hold structures. Findings stand in
    without voxels.

    Raises:
        ValueError: there is no window, or ``correlation`` is outside (0, 1).
    """
    if not windows or not 0 < correlation < 1:
        raise ValueError(f"{len(windows)} windows, correlation={correlation}: need one, in (0, 1)")
    encoded = [bank.encode(window) for window in windows]
    groups = [[_Group() for _ in range(GROUPS)] for _ in windows]
    good, wanted = 0, 1 - MARGIN * (1 - correlation)
    for t in range(len(bank)):
        for features, each in zip(encoded, groups, strict=True):
            each[t % GROUPS].update(to_probabilities(bank.decode(features, t)))
        used = t + 1
        if used >= LEAST and used % STEP == 0:
            good = good + 1 if _full_map(groups) >= wanted else 0
            if good == 2:
                return used
    return len(bank)


def reliability(half: Float[Tensor, " n"], other: Float[Tensor, " n"]) -> float:
    """Expected correlation with the limit of a map whose two halves are given; 0 without signal."""
    r = float(torch.stack([half, other]).double().corrcoef()[0, 1])
    return (2 * r / (1 + r)) ** 0.5 if r > 0 else 0.0


class _Group:
    """Sums over some of the draws, from which the map of any union of groups follows."""

    def __init__(self) -> None:
        self.draws = 0
        self.probability: Tensor | None = None
        self.entropy: Tensor | None = None
        self.kind: Kind = "categorical"

    def update(self, output: Output) -> None:
        p = output.segmentation
        if p is None:
            p, self.kind = output.findings, "bernoulli"
        assert p is not None
        p = p.detach().float()
        entropy = entropy_of(p, self.kind)
        self.draws += 1
        self.probability = p if self.probability is None else self.probability + p
        self.entropy = entropy if self.entropy is None else self.entropy + entropy


def _full_map(groups: Sequence[Sequence[_Group]]) -> float:
    found = []
    for split in SPLITS:
        halves = [torch.cat([_information([g[i] for i in ids]) for g in groups]) for ids in split]
        found.append(reliability(*halves))
    return min(found)


def _information(groups: Sequence[_Group]) -> Tensor:
    """Mutual information of the draws of several groups, flat."""
    draws = sum(g.draws for g in groups)
    probability = sum(g.probability for g in groups if g.probability is not None) / draws
    expected = sum(g.entropy for g in groups if g.entropy is not None) / draws
    assert isinstance(probability, Tensor)
    return (entropy_of(probability, groups[0].kind) - expected).flatten()
