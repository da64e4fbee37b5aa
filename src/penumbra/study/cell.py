"""One cell of the matrix: train or combine, evaluate, and leave one sealed row."""

import csv
import json
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
from penumbra.study.arms import ARMS
from penumbra.study.job import Job
from penumbra.study.rows import columns, short, write_row
from penumbra.trained import Calibration, Trained

FITTED = "calibration.json"
"""What was fitted on validation patients, beside ``metrics.json`` in a cell's folder."""


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
        if self.fraction < 1:  # the claims about attacks and shifts are made of all labels
            settings["evaluate.attack_cases"] = 0
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

    def needs(self) -> list[Job]:
        before: list[Job] = [*members(self)]
        return [*before, self.pretraining] if self.pretraining else before

    def run(self) -> None:
        """Run to the row; a stage that is complete in the cell's folder is not repeated."""
        start = time.monotonic()
        config = self.config
        if ARMS[self.arm].members is not None:
            _combine(self, config)
        else:
            wanted = self.pretraining
            encoder = wanted.encoder if wanted else None
            pipeline.train(config, self.data, self.folder, encoder=encoder)
            pipeline.evaluate(self.folder, parts=("test",))
            _keep_fitted(self, trained.load(self.folder).calibration)
        write_row(self.row, _row(self, config, time.monotonic() - start))


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

    def needs(self) -> list[Job]:
        return []

    def run(self) -> None:
        arm = ARMS.get(self.views)
        own = {k: v for k, v in (arm.settings if arm else {}).items() if k.startswith("pretrain.")}
        config = resolve(self.base, overrides={**own, "seed": self.seed})
        pipeline.pretrain(config, self.data, self.folder)


def told(cell: Cell) -> dict[str, Any]:
    """What every row says of its cell."""
    return {"arm": cell.arm, "fraction": cell.fraction, "seed": cell.seed}


def members(cell: Cell) -> list[Cell]:
    """The cells that a combined cell needs; its own ``seed`` is how many seeds there are."""
    arm = ARMS[cell.arm].members
    return [replace(cell, arm=arm, seed=s) for s in range(cell.seed)] if arm else []


def model_of(cell: Cell) -> Trained:
    """A finished cell's model; a combined cell's is its members' ensemble."""
    config = cell.config
    if ARMS[cell.arm].members is None:
        return trained.load(cell.folder, device=device(config))
    models = [trained.load(member.folder, device=device(config)) for member in members(cell)]
    ensemble = Ensemble([model.network for model in models])
    for name in ("classes", "findings"):
        setattr(ensemble, name, getattr(models[0].network, name))
    ensemble.beta = torch.stack([model.network.beta.detach() for model in models]).mean(0)
    # ``Trained`` asks of a network what the bank and ``map_case`` ask of it, and no more.
    model = replace(models[0], network=ensemble.eval(), config=config)  # type: ignore[arg-type]
    fitted = cell.folder / FITTED
    if not fitted.exists():
        return model
    return replace(model, calibration=Calibration(**json.loads(fitted.read_text())))


def _combine(cell: Cell, config: Config) -> None:
    ground = prepare(config, cell.data, cell.folder)
    model = model_of(cell)
    calibration = assess.calibrate(model, ground.store, ground.parts["val"])
    model = replace(model, calibration=calibration)
    assess.assess(model, ground, out=cell.folder, parts=("test",))
    _keep_fitted(cell, calibration)


def _keep_fitted(cell: Cell, calibration: Calibration) -> None:
    write_text(cell.folder / FITTED, json.dumps(asdict(calibration)))


def _row(cell: Cell, config: Config, seconds: float) -> dict[str, Any]:
    metrics = json.loads((cell.folder / "metrics.json").read_text())
    with (cell.folder / "cases.csv").open() as file:
        cases = [line for line in csv.DictReader(file) if line["part"] == "test"]
    return {
        **told(cell),
        "config": config.model_dump(mode="json"),
        "split_hash": metrics["split_hash"],
        "environment": metrics["environment"],
        "attack_gates": metrics["attack_gates"],
        "parameters": _parameters(cell),
        "seconds": round(seconds, 3),
        "calibration": json.loads((cell.folder / FITTED).read_text()),
        "cases": columns([{key: _value(key, text) for key, text in x.items()} for x in cases]),
        "probes": short(json.loads((cell.folder / "evaluation" / "probes.json").read_text())),
    }


def _parameters(cell: Cell) -> int:
    return sum(p.numel() for p in model_of(cell).network.parameters())


def _value(column: str, text: str) -> Any:
    if column in {"case", "patient", "site", "part"}:
        return text
    return float(text) if text else None
