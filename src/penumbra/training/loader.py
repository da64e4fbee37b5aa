"""Batches from worker processes, whose failures name the case instead of the worker."""

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from penumbra.errors import DataError, PenumbraError, TrainingError

Batch = dict[str, Tensor]


@runtime_checkable
class Samples(Protocol):
    """A sample is a function of its key alone, whichever process asks."""

    def __getitem__(self, key: int, /) -> Batch: ...

    def case_of(self, key: int) -> str:
        """The case that the key's sample is cut from, as the user knows it."""


def load(
    samples: Samples, keys: Iterable[list[int]], *, workers: int, pinned: bool
) -> Iterator[Batch]:
    """One batch for each list of keys, in order.

    Raises:
        DataError: a sample cannot be read; the case is named.
        TrainingError: a worker process was killed.
    """
    loader = DataLoader(
        _Guarded(samples),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=pinned,
        generator=torch.Generator(),  # else the loader draws from the global one
    )
    try:
        for batch in loader:
            if isinstance(batch, _Failure):
                raise DataError(f"case {samples.case_of(batch.key)}: {batch.reason}") from (
                    RuntimeError(batch.trace)
                )
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"a loader process died ({str(error).splitlines()[0]}); this is mostly a lack of "
            "memory: lower --data.workers, then run the same command again"
        ) from error


@dataclass(frozen=True)
class _Failure:
    key: int
    reason: str
    trace: str


class _Guarded(Dataset[Batch | _Failure]):
    """Hands a sample's failure over as a value: an exception would lose its type on the way."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def __getitem__(self, key: int) -> Batch | _Failure:
        try:
            return self.samples[key]
        except Exception as error:
            known = isinstance(error, PenumbraError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            return _Failure(key, reason, traceback.format_exc())


def _collate(items: list[Batch | _Failure]) -> Batch | _Failure:
    for item in items:
        if isinstance(item, _Failure):
            return item
    return default_collate(items)
