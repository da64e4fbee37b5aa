"""The only training loop: every stage is a ``Stage`` whose loss it minimises.

Chance is keyed, never stored: sample ``i`` of step ``s`` is drawn from ``(seed, s * batch + i)``,
everything random inside step ``s`` from ``(seed, s)``. A killed job therefore continues bit for bit
from its last checkpoint without saving any generator's state.
"""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from penumbra import checkpoint, progress
from penumbra.errors import TrainingError
from penumbra.files import write_text

Batch = dict[str, Tensor]


@runtime_checkable
class Stage(Protocol):
    """What the loop needs to know of an objective."""

    name: str

    @property
    def module(self) -> nn.Module:
        """All that is trained, in one state dict."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer; ``scale`` multiplies the scheduled learning rate."""

    def prepare(self, step: int) -> bool:
        """Change the module before ``step`` (warm start over); True: the parameters are new."""

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The parts of the loss; ``total`` is minimised, all are logged."""

    def after_step(self, step: int) -> None:
        """Bookkeeping after the optimizer's step (a momentum encoder)."""


@dataclass(frozen=True)
class Schedule:
    """Length, pace and housekeeping of one training."""

    steps: int
    batch: int
    lr: float
    warm_up: float = 0.05
    clip_norm: float = 5.0
    seed: int = 0
    workers: int = 0
    checkpoint_every: int = 100
    validate_every: int = 200

    def lr_at(self, step: int) -> float:
        """Linear warm-up, then cosine decay to zero (proposal 2.4.1)."""
        rising = max(1, round(self.warm_up * self.steps))
        if step < rising:
            return self.lr * (step + 1) / rising
        share = (step - rising) / max(1, self.steps - rising)
        return self.lr * 0.5 * (1 + math.cos(math.pi * share))


def step_generator(seed: int, step: int, *, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of everything random inside one step."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**63
    return torch.Generator(device=device).manual_seed(mixed)


def rank_and_world() -> tuple[int, int]:
    """This process's place in a ``torchrun`` job; ``(0, 1)`` outside one."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def fit(
    stage: Stage,
    samples: Dataset[Batch],
    schedule: Schedule,
    *,
    folder: Path,
    device: torch.device,
    validate: Callable[[int], Mapping[str, float]] | None = None,
) -> Path:
    """Train ``stage`` to the end of its schedule, resuming from ``folder`` when it can.

    Returns the path of the final checkpoint. ``last`` is the newest state, complete when its record
    says ``step == steps``; ``best`` is the state with the highest ``score`` that ``validate`` gave
    since the parameters last changed kind.

    Raises:
        TrainingError: a loss is not finite; the batch's keys are named and ``last`` is kept.
    """
    last = folder / "last.safetensors"
    rank, _ = rank_and_world()
    step, best = _resume(stage, schedule, last)
    optimizer = _optimizer(stage, last if step else None)
    stage.module.to(device).train()
    log = _Log(folder / "log.jsonl", stage.name, step, write=rank == 0)
    with progress.bar(stage.name, schedule.steps, done=step) as advance, _interrupts() as stopping:
        for batch in _batches(samples, schedule, step):
            if stage.prepare(step):
                optimizer, best = _optimizer(stage, None), -math.inf
            torch.manual_seed(schedule.seed * 1_000_003 + step)  # libraries that know no generator
            parts = _step(stage, optimizer, _to(batch, device), schedule, step)
            step += 1
            advance(f"loss {parts['total']:.3f}")
            at_end = step == schedule.steps
            if validate and rank == 0 and (step % schedule.validate_every == 0 or at_end):
                stage.module.eval()
                scores = validate(step)
                stage.module.train()
                parts |= {f"val/{k}": v for k, v in scores.items()}
                if scores["score"] > best:
                    best = scores["score"]
                    checkpoint.save(
                        folder / "best.safetensors", stage.module, record={"step": step}
                    )
            log.write(step, parts)
            if rank == 0 and (step % schedule.checkpoint_every == 0 or at_end or stopping()):
                record = {"step": step, "best": best if math.isfinite(best) else None}
                checkpoint.save(last, stage.module, optimizer=optimizer, record=record)
            if stopping():
                raise KeyboardInterrupt
    return last


def _resume(stage: Stage, schedule: Schedule, last: Path) -> tuple[int, float]:
    if not last.exists():
        stage.prepare(0)
        return 0, -math.inf
    tensors, record = checkpoint.read(last)
    step = int(record["step"])
    stage.prepare(max(0, step - 1))  # `last` was written after step - 1 had run
    checkpoint.load_module(stage.module, tensors, source=last)
    best = record.get("best")
    return min(step, schedule.steps), -math.inf if best is None else float(best)


def _optimizer(stage: Stage, resume_from: Path | None) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(stage.parameter_groups(), lr=0.0)
    if resume_from is not None:
        checkpoint.load_optimizer(optimizer, checkpoint.read(resume_from)[0])
    return optimizer


def _batches(samples: Dataset[Batch], schedule: Schedule, start: int) -> Iterator[Batch]:
    rank, world = rank_and_world()
    share = range(rank, schedule.batch, world)
    keys = ([s * schedule.batch + i for i in share] for s in range(start, schedule.steps))
    return iter(
        DataLoader(
            samples,
            batch_sampler=keys,
            num_workers=schedule.workers,
            generator=torch.Generator(),  # else the loader draws from the global one
            persistent_workers=False,
        )
    )


def _step(
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    schedule: Schedule,
    step: int,
) -> dict[str, float]:
    rank, world = rank_and_world()
    generator = step_generator(schedule.seed, step * world + rank)
    parts = stage.loss(batch, step, generator)
    total = parts["total"]
    if not torch.isfinite(total):
        bad = ", ".join(k for k, v in parts.items() if not torch.isfinite(v).all())
        raise TrainingError(
            f"{stage.name}: the loss is not finite at step {step} ({bad}), cases "
            f"{batch['case'].tolist()}; look at these cases, or lower --train.lr"
        )
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    _average_gradients(stage.module, world)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
    for group in optimizer.param_groups:
        group["lr"] = schedule.lr_at(step) * group.get("scale", 1.0)
    optimizer.step()
    stage.after_step(step)
    return {k: float(v.detach()) for k, v in parts.items()} | {"gradient_norm": float(norm)}


def _average_gradients(module: nn.Module, world: int) -> None:
    if world == 1:
        return
    for parameter in module.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= world


def _to(batch: Batch, device: torch.device) -> Batch:
    return {key: value.to(device, non_blocking=True) for key, value in batch.items()}


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM let the running step finish and be saved."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Log:
    """Appends one JSON line per step; a resumed stage drops the lines it will write again."""

    def __init__(self, path: Path, stage: str, step: int, *, write: bool) -> None:
        self.path, self.stage, self.begun, self.enabled = path, stage, time.monotonic(), write
        if write and path.exists():
            kept = [line for line in path.read_text().splitlines() if _keep(line, stage, step)]
            write_text(path, "".join(line + "\n" for line in kept))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        if not self.enabled:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = {
            "stage": self.stage,
            "step": step,
            "time_s": round(time.monotonic() - self.begun, 3),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line | {k: round(v, 6) for k, v in scalars.items()}) + "\n")


def _keep(line: str, stage: str, step: int) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:  # the line that a kill cut short
        return False
    return entry.get("stage") != stage or entry["step"] <= step
