"""The method on one screen: pre-train, train, calibrate, evaluate, report.

Every stage leaves its result in the run folder; a stage that is complete is skipped, one that was
interrupted continues.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penumbra import assess, checkpoint, progress, trained
from penumbra.augment import to_display
from penumbra.config import Config, load, resolve
from penumbra.data import split
from penumbra.data.cohort import read_cohort
from penumbra.data.patches import Patches
from penumbra.data.phantom import write_phantom
from penumbra.data.store import Store, build
from penumbra.errors import ConfigError, DataError
from penumbra.files import cache_folder, write_text
from penumbra.model import Network
from penumbra.pretrain.objective import SelfSupervised
from penumbra.report.page import build as build_report
from penumbra.trained import Trained
from penumbra.training.loop import Schedule, fit
from penumbra.training.selfsupervised import Pretraining
from penumbra.training.supervised import Population, Supervised
from penumbra.types import Modality, Part

Parts = dict[Part, list[int]]

POSITIONS = 512
"""Patches whose positions set the edges of the region bins, so that all are equally full."""


def demo(out: Path, *, modality: Modality = "mri", seed: int = 0) -> Path:
    """The whole method on generated phantoms; returns the report."""
    config = resolve(f"phantom-{modality}", overrides={"seed": seed})
    phantoms = out / "phantoms"
    if not phantoms.exists():
        write_phantom(phantoms, modality=modality, cases=40, seed=seed)
    return run(config, phantoms, out)


def run(config: Config, data: Path, out: Path) -> Path:
    """Everything, from files to a report; run again to continue where it stopped."""
    encoder = pretrain(config, data, out) if config.pretrain.steps else None
    train(config, data, out, encoder=encoder)
    evaluate(out, data=data)
    return build_report(out)


def pretrain(config: Config, data: Path, out: Path) -> Path:
    """Stage 1 on the training patients' images; returns the encoder's checkpoint."""
    ground = prepare(config, data, out)
    settings = config.pretrain
    network = _network(config, ground)
    samples = Patches(ground.store, ground.parts["train"], settings=config.data, seed=config.seed)
    positions = torch.stack([torch.as_tensor(samples[key]["position"]) for key in range(POSITIONS)])
    objective = SelfSupervised(
        network.encoder,
        features=config.model.widths[-1],
        settings=settings,
        protocols=len(ground.store.protocols),
        dim=positions.shape[1],
        seed=config.seed,
    )
    objective.balance_regions(positions)
    stage = Pretraining(objective, config, spacing_mm=ground.spacing_mm)
    schedule = _schedule(config, settings.steps, settings.batch, settings.lr)
    fit(stage, samples, schedule, folder=out / "pretrain", device=device(config))
    encoder = out / "pretrain" / "encoder.safetensors"
    checkpoint.save(encoder, network.encoder, record={"steps": settings.steps})
    return encoder


def train(config: Config, data: Path, out: Path, *, encoder: Path | None = None) -> Path:
    """Stage 2 on the labelled training patients, then calibration; returns the model folder."""
    ground = prepare(config, data, out)
    labelled = _labelled(ground, config)
    network = _network(config, ground)
    if encoder is not None:
        tensors, _ = checkpoint.read(encoder)
        checkpoint.load_module(network.encoder, tensors, source=encoder)
    population = Population(
        images=sum(ground.images(i) for i in labelled),
        voxels=int(np.prod(config.data.patch)),
        spacing_mm=ground.spacing_mm,
    )
    stage = Supervised(network, config, population)
    schedule = _schedule(config, config.train.steps, config.train.batch, config.train.lr)
    fit(
        stage,
        Patches(ground.store, labelled, settings=config.data, seed=config.seed),
        schedule,
        folder=out / "train",
        device=device(config),
        validate=lambda step: assess.validate(network, ground.store, ground.parts["val"], config),
    )
    stage.prepare(schedule.steps)
    model = Trained(network.eval(), ground.store.task, config, provenance=ground.provenance)
    calibration = assess.calibrate(model, ground.store, ground.parts["val"])
    replace(model, calibration=calibration).save(out / "model")
    return out / "model"


def evaluate(run: Path, *, data: Path | None = None) -> Path:
    """Judge a run's model on its held-out patients; returns ``metrics.json``."""
    model = trained.load(run, device=device(load(run / "config.yaml")))
    ground = prepare(model.config, _data_folder(run, data), run)
    return assess.assess(model, ground.store, ground.parts, out=run)


@dataclass(frozen=True)
class Ground:
    """The prepared cohort of a run, and who belongs to which part."""

    store: Store
    parts: Parts
    spacing_mm: tuple[float, ...]
    provenance: dict[str, Any]

    def images(self, index: int) -> int:
        """Training images in a case: its slices, or one."""
        image = self.store[index].image
        return image.shape[-1] if self.slicewise and image.ndim == 4 else 1

    @property
    def slicewise(self) -> bool:
        return len(self.spacing_mm) == 2


def prepare(config: Config, data: Path, out: Path) -> Ground:
    """Read, split and preprocess a cohort; everything is found again when it is already there."""
    _settle_config(config, out)
    cohort = split.draw(read_cohort(data, modality=config.modality), seed=config.seed)
    split.write(cohort, out / "split.json")
    write_text(out / "data.json", json.dumps({"folder": str(data.resolve())}))
    with progress.bar("prepare", len(cohort.cases)) as advance:
        store = build(
            cohort,
            config.data,
            cache_folder() / "store",
            progress=lambda done, total, case: advance(case),
        )
    parts: Parts = {p: [] for p in ("train", "val", "test")}
    for index, case in enumerate(store.cases):
        if case.part:
            parts[case.part].append(index)
    for part, members in parts.items():
        if not members:
            raise DataError(f"{data}: no readable case in the {part} part; see split.json in {out}")
    spacings = np.array([store[i].geometry.spacing_mm for i in parts["train"]])
    spacing = tuple(float(s) for s in np.median(spacings, axis=0)[: config.data.dim])
    provenance = {"cohort": cohort.name, "split": split.digest(cohort)}
    return Ground(store, parts, spacing, provenance)


def device(config: Config) -> torch.device:
    """The device that the configuration asks for; ``auto`` takes a GPU when there is one."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda was asked for, but torch sees no GPU; use --device auto")
    return torch.device(config.device)


def _settle_config(config: Config, out: Path) -> None:
    """Write the configuration, or refuse to continue a run that has another one."""
    path = out / "config.yaml"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be created ({error.strerror}); choose another --out"
        ) from error
    if not path.exists():
        write_text(path, config.yaml())
        return
    before, now = load(path).model_dump(), config.model_dump()
    changed = [
        f"{section}.{key}: {before[section][key]} -> {value}"
        for section, values in now.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if before[section][key] != value
    ]
    changed += [
        f"{key}: {before[key]} -> {value}"
        for key, value in now.items()
        if not isinstance(value, dict) and before[key] != value
    ]
    if changed:
        raise ConfigError(
            f"{path}: this run was begun with other settings ({'; '.join(changed)}); "
            "choose another --out, or delete the folder to begin again"
        )


def _network(config: Config, ground: Ground) -> Network:
    """A fresh network that knows the training images' mean and spread, in display units."""
    network = trained.build(config, ground.store.task)
    sums = torch.zeros(3, len(ground.store.task.channels), dtype=torch.float64)
    for index in ground.parts["train"]:
        case = ground.store[index]
        image = torch.from_numpy(np.array(case.image, dtype=np.float32))
        image = to_display(image[None], modality=config.modality, window_hu=config.data.window_hu)[
            0
        ].double()
        inside = image[:, torch.from_numpy(np.array(case.body))]
        sums += torch.stack(
            [torch.ones(len(inside)) * inside.shape[1], inside.sum(1), (inside**2).sum(1)]
        )
    mean = sums[1] / sums[0]
    network.encoder.input_mean.copy_(mean)
    network.encoder.input_std.copy_((sums[2] / sums[0] - mean**2).clamp(min=1e-6).sqrt())
    return network


def _labelled(ground: Ground, config: Config) -> list[int]:
    """Training cases with any label, thinned to the configured fraction of patients."""
    cases = ground.store.cases
    labelled = [i for i in ground.parts["train"] if cases[i].segmentation or cases[i].findings]
    if not labelled:
        raise DataError("no training case carries a label; only `penumbra pretrain` can use it")
    kept = split.fraction(
        [cases[i].id for i in labelled],
        [cases[i].patient for i in labelled],
        config.data.fraction,
        config.seed,
    )
    return [i for i in labelled if cases[i].id in set(kept)]


def _schedule(config: Config, steps: int, batch: int, lr: float) -> Schedule:
    return Schedule(
        steps=steps,
        batch=batch,
        lr=lr,
        warm_up=config.train.warm_up,
        clip_norm=config.train.clip_norm,
        seed=config.seed,
        workers=config.data.workers,
        checkpoint_every=config.train.checkpoint_every,
        validate_every=config.train.validate_every,
    )


def _data_folder(run: Path, data: Path | None) -> Path:
    if data is not None:
        return data
    try:
        return Path(json.loads((run / "data.json").read_text())["folder"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{run}: does not say where its data are; give --data") from error
