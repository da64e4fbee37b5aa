"""The method on one screen: pre-train, train, calibrate, evaluate, report.

Every stage leaves its result in the run folder; a stage that is complete is skipped, one that was
interrupted continues.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

from penumbra import assess, checkpoint, progress, trained
from penumbra.augment import to_display
from penumbra.config import Config, load, resolve
from penumbra.data import split
from penumbra.data.patches import Patches
from penumbra.data.phantom import write_phantom
from penumbra.errors import DataError
from penumbra.ground import Ground, data_folder, device, prepare
from penumbra.model import Network
from penumbra.pretrain.monitor import probe_scores
from penumbra.pretrain.objective import SelfSupervised
from penumbra.pretrain.transfer import adapt
from penumbra.report import build as build_report
from penumbra.trained import Trained
from penumbra.training.loop import Schedule, fit
from penumbra.training.selfsupervised import Pretraining
from penumbra.training.supervised import Population, Supervised
from penumbra.types import Modality

PROBED = 128
"""Patches of each side that a probe of the pre-trained features looks at."""

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
    fit(
        stage,
        samples,
        schedule,
        folder=out / "pretrain",
        device=device(config),
        validate=lambda step: _probe(objective, samples, ground, config),
    )
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
        progress.console.print(f"{encoder}: {adapt(_without_prefix(tensors), network.encoder)}")
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
    ground = prepare(model.config, data_folder(run, data), run)
    return assess.assess(model, ground.store, ground.parts, out=run)


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


def _probe(
    objective: SelfSupervised, samples: Patches, ground: Ground, config: Config
) -> dict[str, float]:
    """What a probe reads from the frozen features: fitted on training, scored on validation."""
    held_out = Patches(ground.store, ground.parts["val"], settings=config.data, seed=config.seed)
    place = device(config)

    def batches(patches: Patches) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, PROBED, config.pretrain.batch):
            keys = range(start, start + config.pretrain.batch)
            batch = default_collate([patches[key] for key in keys])
            window = config.data.window_hu
            image = to_display(batch["image"], modality=config.modality, window_hu=window)
            yield batch | {"image": image.to(place)}

    classes = len(ground.store.task.classes)
    return probe_scores(objective.represent, batches(samples), batches(held_out), classes=classes)


def _without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}


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
