"""What is asked of finished cells: a second head's cost, another cohort."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from penumbra import assess
from penumbra.config import Config
from penumbra.model import Network
from penumbra.study.borrowed import Borrowed, prepared
from penumbra.study.cell import Cell, model_of, told
from penumbra.study.job import Job
from penumbra.study.rows import columns, write_row
from penumbra.types import Task

TIMED = 15
"""Paired forward passes behind the cost of a second head."""


@dataclass(frozen=True)
class Transferred:
    """A cell's model on another institution's cohort, all of it unseen."""

    cell: Cell
    data: Path

    @property
    def name(self) -> str:
        return f"transfer-{self.cell.name}"

    @property
    def row(self) -> Path:
        return self.cell.out / "transfer" / self.data.name / f"{self.cell.name}.json"

    def needs(self) -> list[Job]:
        return [self.cell]

    def run(self) -> None:
        model = model_of(self.cell)
        store = prepared(self.data, model.config)
        borrowed = Borrowed(store, model.task, model.config.data.window_hu)
        known = replace(model, task=borrowed.task)
        judged = assess.judge(known, borrowed, list(range(len(borrowed))), "test")
        write_row(self.row, {**told(self.cell), "cases": columns(judged.table("test"))})


@dataclass(frozen=True)
class SecondHead:
    """What a second task's head adds to a cell's network: parameters, and time of a pass."""

    cell: Cell

    @property
    def name(self) -> str:
        return f"second-head-{self.cell.name}"

    @property
    def row(self) -> Path:
        return self.cell.out / "second-head" / f"{self.cell.name}.json"

    def needs(self) -> list[Job]:
        return [self.cell]

    def run(self) -> None:
        """Processor time of passes taken in turns, the faster of three each."""
        model = model_of(self.cell)
        single, double = (_sized(model.config, model.task, both=both) for both in (False, True))
        image = torch.zeros(1, len(model.task.channels), *model.config.data.patch)
        with torch.inference_mode():
            ratios = [_seconds(double, image) / _seconds(single, image) - 1 for _ in range(TIMED)]
        counts = [sum(p.numel() for p in network.parameters()) for network in (single, double)]
        measured = {"parameters": counts[1] / counts[0] - 1, "seconds": ratios}
        write_row(self.row, {**told(self.cell), **measured})


def _sized(config: Config, task: Task, *, both: bool) -> Network:
    classes, findings = len(task.classes), len(task.findings)
    if both:
        classes, findings = classes or 2, findings or 1
    elif classes and findings:
        findings = 0
    return Network(
        channels=len(task.channels),
        classes=classes,
        findings=findings,
        dim=config.data.dim,
        widths=config.model.widths,
        neck=config.model.neck,
        gates=config.attention.gates,
        seed=config.seed,
    ).eval()


def _seconds(network: Network, image: torch.Tensor) -> float:
    spent = []
    for _ in range(3):
        start = time.process_time()
        network(image)
        spent.append(time.process_time() - start)
    return min(spent)
