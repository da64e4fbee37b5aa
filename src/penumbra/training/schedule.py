"""Length, pace and housekeeping of a training, and the keys from which all its chance is drawn."""

import math
from dataclasses import dataclass

import torch

from penumbra.errors import ConfigError
from penumbra.training.shards import Shard


@dataclass(frozen=True)
class Schedule:
    """Length, pace and housekeeping of one training.

    Attributes:
        batch: images per step, over all processes.
        accumulate: parts of a batch that are computed one after the other. The part is the unit of
            loss and of chance, so the result does not depend on which process computes it.
        shard: whether every process holds all parameters or, if there are several, a slice.
        deadline: ``time.monotonic()`` after which the training saves and stops.
    """

    steps: int
    batch: int
    lr: float
    warm_up: float = 0.05
    clip_norm: float = 5.0
    seed: int = 0
    workers: int = 0
    checkpoint_every: int = 100
    validate_every: int = 200
    accumulate: int = 1
    deadline: float | None = None
    shard: Shard = "none"

    def lr_at(self, step: int) -> float:
        """Linear warm-up, then cosine decay to zero (proposal 2.4.1)."""
        rising = max(1, round(self.warm_up * self.steps))
        if step < rising:
            return self.lr * (step + 1) / rising
        share = (step - rising) / max(1, self.steps - rising)
        return self.lr * 0.5 * (1 + math.cos(math.pi * share))

    def parts(self, world: int) -> int:
        """Into how many parts a batch is cut when ``world`` processes share it.

        Raises:
            ConfigError: the batch cannot be cut so that every process has equal work.
        """
        parts = max(self.accumulate, world)
        if parts % world or self.batch % parts:
            raise ConfigError(
                f"a batch of {self.batch} in {parts} parts cannot be shared by {world} "
                "process(es); let the processes divide train.accumulate, and that the batch"
            )
        return parts

    def keys(self, step: int, part: int, parts: int) -> list[int]:
        """The samples of one part of a step's batch."""
        return [step * self.batch + i for i in range(part, self.batch, parts)]


@dataclass(frozen=True)
class Ramp:
    """When a term enters, in shares of the run: 0 before ``start``, then linearly to 1."""

    start: float
    length: float = 0.1

    def at(self, progress: float) -> float:
        return min(1.0, max(0.0, (progress - self.start) / self.length))


def step_generator(seed: int, step: int, *, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of everything random inside one step, or one part of a step."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**63
    return torch.Generator(device=device).manual_seed(mixed)
