"""One cell of the matrix: train or combine, evaluate, and leave one sealed row."""

import csv
import json
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penumbra import assess, pipeline, trained
from penumbra.bayes.ensemble import Ensemble
from penumbra.config import Config, resolve
from penumbra.files import write_text
from penumbra.ground import device, prepare
from penumbra.model import Network
from penumbra.study.arms import ARMS
from penumbra.study.rows import write_row
from penumbra.trained import Calibration
from penumbra.types import Task

FITTED = "calibration.json"
"""What was fitted on validation patients, beside ``metrics.json`` in a cell's folder."""

TIMED = 15
"""Paired forward passes behind the cost of a second head."""


@dataclass(frozen=True)
class Cell:
    """One arm at one label fraction and one seed; ``base`` is the study's resolved preset."""

    arm: str
    fraction: float
    seed: int
    base: str
    data: Path
    out: Path

    @property
    def name(self) -> str:
        return f"{self.arm}@{self.fraction:g}-s{self.seed}"

    @property
    def folder(self) -> Path:
        return self.out / "cells" / self.name

    @property
    def row(self) -> Path:
        return self.out / "rows" / f"{self.name}.json"

    @property
    def config(self) -> Config:
        settings = {**ARMS[self.arm].settings, "data.fraction": self.fraction, "seed": self.seed}
        return resolve(self.base, overrides=settings)

    @property
    def pretraining(self) -> "Pretraining | None":
        """What must be pre-trained first; cells of one seed share it."""
        if not ARMS[self.arm].pretrained or not self.config.pretrain.steps:
            return None
        special = [k for k in ARMS[self.arm].settings if k.startswith("pretrain.")]
        return Pretraining(
            self.arm if special else "shared", self.seed, self.base, self.data, self.out
        )


@dataclass(frozen=True)
class Pretraining:
    """An encoder that is learned once per seed from all training images, labelled or not."""

    views: str
    seed: int
    base: str
    data: Path
    out: Path

    @property
    def name(self) -> str:
        return f"pretrain-{self.views}-s{self.seed}"

    @property
    def folder(self) -> Path:
        return self.out / "pretrain" / f"{self.views}-s{self.seed}"

    @property
    def encoder(self) -> Path:
        return self.folder / "pretrain" / "encoder.safetensors"

    @property
    def row(self) -> Path:
        return self.encoder

    def run(self) -> None:
        arm = ARMS.get(self.views)
        own = {k: v for k, v in (arm.settings if arm else {}).items() if k.startswith("pretrain.")}
        config = resolve(self.base, overrides={**own, "seed": self.seed})
        pipeline.pretrain(config, self.data, self.folder)


def run_cell(cell: Cell) -> None:
    """Run one cell to its row; a stage that is complete in its folder is not repeated."""
    start = time.monotonic()
    arm, config = ARMS[cell.arm], cell.config
    if arm.members is not None:
        _combine(cell, config)
    else:
        wanted = cell.pretraining
        encoder = wanted.encoder if wanted else None
        pipeline.train(config, cell.data, cell.folder, encoder=encoder)
        pipeline.evaluate(cell.folder)
        _keep_fitted(cell, trained.load(cell.folder).calibration)
    write_row(cell.row, _row(cell, config, time.monotonic() - start))


def members(cell: Cell) -> list[Cell]:
    """The cells that a combined cell needs; its own ``seed`` is how many seeds there are."""
    arm = ARMS[cell.arm].members
    return [replace(cell, arm=arm, seed=s) for s in range(cell.seed)] if arm else []


def _combine(cell: Cell, config: Config) -> None:
    models = [trained.load(member.folder, device=device(config)) for member in members(cell)]
    ensemble = Ensemble([model.network for model in models])
    for name in ("classes", "findings"):
        setattr(ensemble, name, getattr(models[0].network, name))
    ground = prepare(config, cell.data, cell.folder)
    # ``Trained`` asks of a network what the bank and ``map_case`` ask of it, and no more.
    model = replace(models[0], network=ensemble.eval(), config=config)  # type: ignore[arg-type]
    calibration = assess.calibrate(model, ground.store, ground.parts["val"])
    model = replace(model, calibration=calibration)
    assess.assess(model, ground.store, ground.parts, out=cell.folder)
    _keep_fitted(cell, calibration)


def _keep_fitted(cell: Cell, calibration: Calibration) -> None:
    write_text(cell.folder / FITTED, json.dumps(asdict(calibration)))


def _row(cell: Cell, config: Config, seconds: float) -> dict[str, Any]:
    metrics = json.loads((cell.folder / "metrics.json").read_text())
    with (cell.folder / "cases.csv").open() as file:
        cases = [line for line in csv.DictReader(file) if line["part"] == "test"]
    split = json.loads((cell.folder / "split.json").read_text())
    return {
        "arm": cell.arm,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "config": config.model_dump(mode="json"),
        "split_hash": metrics["split_hash"],
        "split": split,
        "environment": metrics["environment"],
        "attack_gates": metrics["attack_gates"],
        "seconds": round(seconds, 3),
        "metrics": metrics["rows"],
        "finding_temperature": json.loads((cell.folder / FITTED).read_text())[
            "finding_temperature"
        ],
        "cases": [{key: _value(key, text) for key, text in line.items()} for line in cases],
        "probes": json.loads((cell.folder / "evaluation" / "probes.json").read_text()),
        "second_head": _second_head(cell, config) if cell.arm == "ours" else None,
    }


def _value(column: str, text: str) -> Any:
    if column in {"case", "patient", "site", "part"}:
        return text
    return float(text) if text else None


def _second_head(cell: Cell, config: Config) -> dict[str, Any]:
    """Parameters and forward time with and without a second task's head, timed in turns."""
    task = trained.load(cell.folder).task
    single, double = _sized(config, task, both=False), _sized(config, task, both=True)
    image = torch.zeros(1, len(task.channels), *config.data.patch)
    with torch.inference_mode():
        ratios = [_seconds(double, image) / _seconds(single, image) - 1 for _ in range(TIMED)]
    counts = [sum(p.numel() for p in network.parameters()) for network in (single, double)]
    return {"parameters": counts[1] / counts[0] - 1, "seconds": ratios}


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
        start = time.perf_counter()
        network(image)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)
