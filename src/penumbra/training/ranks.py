"""One process or many: who am I, who writes, and sums over all (``torchrun`` sets the scene)."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from penumbra.pretrain.gather import world

PATIENCE = timedelta(days=1)
"""The others wait while the first prepares scans or validates; ``torchrun`` notices who is lost."""


def is_first() -> bool:
    """Whether this process writes files and prints."""
    return world()[0] == 0


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that ``torchrun`` started know each other; alone, nothing happens."""
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpu = torch.cuda.is_available() and local < torch.cuda.device_count()
    if gpu:
        torch.cuda.set_device(local)
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps its store over restarts, and with it the addresses of dead workers.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=PrefixStore(f"attempt-{attempt}", store),
        rank=rank,
        world_size=size,
        timeout=PATIENCE,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait() -> None:
    """Until every process is here."""
    if dist.is_initialized():
        dist.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process runs the block, then all others do: they find its files."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def mean(value: Tensor) -> Tensor:
    """The mean over processes."""
    return total(value) / world()[1]


def total(value: Tensor) -> Tensor:
    """The sum over processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def sum_gradients(parameters: Sequence[nn.Parameter], scalars: Tensor) -> Tensor:
    """Sum gradients in place, and ``scalars``, over processes in one message; returns the scalars.

    A parameter without gradient in every process stays without, so that the optimizer leaves it
    alone, as it does in a single process.
    """
    if world()[1] == 1:
        return scalars
    touched = torch.tensor([float(p.grad is not None) for p in parameters], device=scalars.device)
    flat = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters]
    message = torch.cat([scalars.float(), touched, *flat])
    dist.all_reduce(message)
    scalars, touched, rest = message.split(
        [len(scalars), len(touched), len(message) - len(scalars) - len(touched)]
    )
    gradients = rest.split([p.numel() for p in parameters])
    for parameter, gradient, count in zip(parameters, gradients, touched.tolist(), strict=True):
        parameter.grad = gradient.view_as(parameter) if count else None
    return scalars
