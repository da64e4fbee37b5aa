"""Graded acquisition shifts: what five severities of each family cost, seen and held out."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Shift:
    """One cell of the suite. ``seen``: this family was part of the training augmentation."""

    family: str
    severity: int
    seen: bool


def suite(
    families: Sequence[str], *, seen: Collection[str], severities: Sequence[int] = (1, 2, 3, 4, 5)
) -> list[Shift]:
    """Every family (``augment.families(modality)``) at every severity.

    Families used while training are marked, never mixed with the held-out ones (MedMNIST-C: a
    corruption used as augmentation does not count as held out).

    Raises:
        ValueError: a seen family is not one of the families.

    Example:
        >>> [cell.seen for cell in suite(["blur", "bias"], seen=["bias"], severities=[3])]
        [False, True]
    """
    unknown = sorted(set(seen) - set(families))
    if unknown:
        raise ValueError(f"{unknown} are no shift families; known: {sorted(families)}")
    return [Shift(family, s, family in seen) for family in families for s in severities]


class Degradation(NamedTuple):
    """What the suite costs, in the unit of the score.

    Attributes:
        mean: mean over cells of clean minus shifted.
        relative: mean shifted score over the clean one (1: nothing lost).
        worst: the lowest shifted score, and ``where`` it happened.
    """

    mean: float
    relative: float
    worst: float
    where: Shift


def degradation(clean: float, scores: Mapping[Shift, float]) -> Degradation:
    """Summarise one score (higher is better) over cells of the suite.

    Raises:
        ValueError: there is no cell, or a score is not finite.

    Example:
        >>> blur = {Shift("blur", 1, False): 0.75, Shift("blur", 5, False): 0.25}
        >>> degradation(1.0, blur).mean
        0.5
    """
    if not scores:
        raise ValueError("no shifted score to summarise")
    if not all(math.isfinite(v) for v in (clean, *scores.values())):
        raise ValueError(f"scores must be finite, got clean {clean} and {scores}")
    average = sum(scores.values()) / len(scores)
    where = min(scores, key=lambda cell: scores[cell])
    relative = average / clean if clean else math.nan
    return Degradation(clean - average, relative, scores[where], where)
