"""The only training loop: every stage is a ``Stage`` whose loss it minimises.

Chance is keyed, never stored: sample ``i`` of step ``s`` is drawn from ``(seed, s * batch + i)``,
everything random inside a part of step ``s`` from ``(seed, s, part)``. A killed job therefore
continues bit for bit from its last checkpoint without saving any generator's state, and on another
number of processes as long as the parts (``Schedule.accumulate``) stay the same.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from penumbra import checkpoint, progress
from penumbra.errors import TrainingError
from penumbra.files import atomic
from penumbra.memory import keep_freed
from penumbra.pretrain.gather import world
from penumbra.training import ranks, shards
from penumbra.training.loader import Batch, Samples, load
from penumbra.training.log import Log
from penumbra.training.schedule import Schedule, step_generator
from penumbra.training.shards import Layout
from penumbra.training.stop import agreed, stopped, wishes

Validate = Callable[[int], Mapping[str, float]]
CONSTANT = "at step {} no validation case is told from another: nothing found, or base rates alone"


@runtime_checkable
class Stage(Protocol):
    """What the loop needs to know of an objective."""

    name: str

    @property
    def module(self) -> nn.Module:
        """All that is trained, in one state dict."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimizer; ``scale`` multiplies the scheduled learning rate, unless the
        group has a ``rate`` of its own, which maps a step to a learning rate."""

    def prepare(self, step: int) -> bool:
        """Change the module before ``step`` (warm start over); True: the parameters are new."""

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The parts of the loss; ``total`` is minimised, all are logged."""

    def after_step(self, step: int) -> None:
        """Bookkeeping after the optimizer's step (a momentum encoder)."""


def fit(
    stage: Stage,
    samples: Samples,
    schedule: Schedule,
    *,
    folder: Path,
    device: torch.device,
    validate: Validate | None = None,
) -> Path:
    """Train ``stage`` to the end of its schedule, resuming from ``folder`` when it can.

    Returns the path of the final checkpoint. ``last`` is the newest state, complete when its record
    says ``step == steps``; ``best`` is the state with the highest ``score`` that ``validate`` gave
    since the parameters last changed kind. If it gives a ``constant`` other than 0 in the second
    half, the console says that the network answers the same whoever is asked.

    Raises:
        TrainingError: a loss is not finite (its cases are named, its batch is saved beside
            ``last``), or the memory does not suffice.
        DataError: a sample cannot be read, or the folder cannot be written.
        Stopped: SIGINT, SIGTERM or the deadline came; ``last`` is saved.
    """
    keep_freed()
    last = folder / "last.safetensors"
    step, best = _resume(stage, schedule, last)
    stage.module.to(device).train()
    layout, optimizer = _begin(stage, schedule, last if step else None)  # on the device
    trainer = _Trainer(stage, schedule, samples, folder, device)
    batches = trainer.batches(step)
    with (
        closing(Log(folder / "log.jsonl", stage.name, step, write=ranks.is_first())) as log,
        progress.bar(stage.name, schedule.steps, done=step) as advance,
        wishes(schedule.deadline) as wished,
    ):
        while step < schedule.steps:
            if stage.prepare(step):
                layout.release()
                layout, optimizer = _begin(stage, schedule, None)
                best = -math.inf
            parts, code = trainer.step(layout, optimizer, batches, step, wished.code())
            step += 1
            advance(f"loss {parts['total']:.3f}")
            at_end = step == schedule.steps
            if validate and ranks.is_first() and (step % schedule.validate_every == 0 or at_end):
                scores = _validated(stage, validate, step)
                parts |= {f"val/{k}": v for k, v in scores.items()}
                if scores.get("constant") and 2 * step >= schedule.steps:
                    progress.console.print(f"{stage.name}: {CONSTANT.format(step)}")
                if scores["score"] > best:
                    best = scores["score"]
                    path = folder / "best.safetensors"
                    checkpoint.save(path, stage.module, record={"step": step})
            log.write(step, parts)
            due = step % schedule.checkpoint_every == 0 or at_end or code
            slots = layout.slots(optimizer) if due and (layout.sliced or ranks.is_first()) else {}
            if due and ranks.is_first():
                record = {"step": step, "best": best if math.isfinite(best) else None}
                checkpoint.save(last, stage.module, optimizer=slots, record=record)
            if code and not at_end:
                raise stopped(stage.name, step, schedule.steps, code)
    layout.release()
    ranks.wait()
    return last


class _Trainer:
    """One optimizer step, of however many parts and processes."""

    def __init__(
        self,
        stage: Stage,
        schedule: Schedule,
        samples: Samples,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.stage, self.schedule, self.samples = stage, schedule, samples
        self.folder, self.device = folder, device
        rank, size = world()
        self.parts = schedule.parts(size)
        self.mine = range(rank, self.parts, size)

    def batches(self, start: int) -> Iterator[Batch]:
        """This process's parts of every batch from step ``start`` on."""
        steps = range(start, self.schedule.steps)
        keys = (self.schedule.keys(s, part, self.parts) for s in steps for part in self.mine)
        pinned = self.device.type == "cuda"
        return load(self.samples, keys, workers=self.schedule.workers, pinned=pinned)

    def step(
        self,
        layout: Layout,
        optimizer: torch.optim.Optimizer,
        batches: Iterator[Batch],
        step: int,
        code: int,
    ) -> tuple[dict[str, float], int]:
        """What to log, and the exit code that any process was asked for (0: go on)."""
        optimizer.zero_grad(set_to_none=True)
        logged = [self._backward(layout, next(batches), step, part) for part in self.mine]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        totals = torch.stack([scalars["total"] for scalars in logged]).sum() / self.parts
        flag = torch.tensor(float(code), device=totals.device)
        total, flag = layout.sum_gradients(torch.stack([totals.float(), flag]))
        norm = layout.whole(nn.utils.clip_grad_norm_(parameters, self.schedule.clip_norm))
        for group in optimizer.param_groups:
            rate = group.get("rate", self.schedule.lr_at)
            group["lr"] = rate(step) * group.get("scale", 1.0)
        optimizer.step()
        layout.gather()
        self.stage.after_step(step)
        means = _means(logged) | {"total": total, "gradient_norm": norm}
        numbers = torch.stack([*(v.float() for v in means.values()), flag]).tolist()
        asked = agreed(code, round(numbers.pop()))
        return dict(zip(means, numbers, strict=True)), asked

    def _backward(self, layout: Layout, batch: Batch, step: int, part: int) -> dict[str, Tensor]:
        key = step * self.parts + part
        torch.manual_seed(self.schedule.seed * 1_000_003 + key)  # libraries without generators
        generator = step_generator(self.schedule.seed, key)
        try:
            batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
            scalars = layout.run(partial(self.stage.loss, batch, step, generator))
            if not torch.isfinite(scalars["total"]):
                raise self._not_finite(scalars, batch, step, part)
            (scalars["total"] / self.parts).backward()
        except (RuntimeError, MemoryError) as error:
            if not _lacks_memory(error):
                raise
            each = self.schedule.batch // self.parts
            raise TrainingError(
                f"{self.stage.name}: out of memory at step {step} with {each} image(s) at a time; "
                "raise --train.accumulate, or lower the batch, --data.patch or --model.widths"
            ) from error
        return {name: value.detach() for name, value in scalars.items()}

    def _not_finite(
        self, scalars: Mapping[str, Tensor], batch: Batch, step: int, part: int
    ) -> TrainingError:
        bad = ", ".join(k for k, v in scalars.items() if not torch.isfinite(v).all())
        keys = self.schedule.keys(step, part, self.parts)
        cases = ", ".join(dict.fromkeys(self.samples.case_of(key) for key in keys))
        path = self.folder / "not-finite.safetensors"
        with atomic(path) as whole:
            save_file({k: v.cpu().contiguous() for k, v in batch.items()}, whole)
        return TrainingError(
            f"{self.stage.name}: the loss is not finite at step {step} ({bad}), cases {cases}; "
            f"the batch is kept in {path}: look at these cases, or lower --train.lr"
        )


def _lacks_memory(error: BaseException) -> bool:
    signs = ("out of memory", "not enough memory", "alloc_cpu", "DefaultCPUAllocator")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def _means(logged: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every scalar over those parts of this process that have it."""
    names = dict.fromkeys(name for scalars in logged for name in scalars)
    return {n: torch.stack([s[n].float() for s in logged if n in s]).mean() for n in names}


def _validated(stage: Stage, validate: Validate, step: int) -> Mapping[str, float]:
    stage.module.eval()
    try:
        return validate(step)
    finally:
        stage.module.train()


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


def _begin(
    stage: Stage, schedule: Schedule, resume_from: Path | None
) -> tuple[Layout, torch.optim.Optimizer]:
    """The parameters laid out over the processes, and gathered; an optimizer of what is its own."""
    layout = shards.hold(stage.module, schedule.shard)
    optimizer = torch.optim.Adam(stage.parameter_groups(), lr=0.0)
    if resume_from is not None:
        checkpoint.load_optimizer(optimizer, checkpoint.read(resume_from)[0])
        layout.adopt(optimizer)
    layout.gather()
    return layout, optimizer
