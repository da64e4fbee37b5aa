"""The method on one screen: pre-train, train, calibrate, evaluate, report.

Every stage leaves its result in the run folder; a stage that is complete is skipped, one that was
interrupted continues.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate

from penumbra import assess, checkpoint, progress, trained
from penumbra.augment import to_display
from penumbra.bayes import laplace
from penumbra.config import Config, load, resolve
from penumbra.data import split
from penumbra.data.patches import Patches
from penumbra.data.phantom import write_phantom
from penumbra.errors import DataError
from penumbra.files import locked
from penumbra.ground import Ground, data_folder, device, prepare
from penumbra.model import Network
from penumbra.pretrain.objective import SelfSupervised
from penumbra.pretrain.probe import probe_scores
from penumbra.pretrain.transfer import adapt
from penumbra.report import build as build_report
from penumbra.trained import Trained
from penumbra.training import ranks
from penumbra.training.loop import Validate, fit
from penumbra.training.schedule import Schedule
from penumbra.training.selfsupervised import begin
from penumbra.training.start import standardize_decoder, standardize_findings
from penumbra.training.supervised import Population, Supervised
from penumbra.types import Modality, Part

PROBED = 128
"""Patches of each side that a probe of the features, the findings head or a Laplace fit sees."""

POSITIONS = 512
"""Patches whose positions set the edges of the region bins, so that all are equally full."""


def demo(out: Path, *, modality: Modality = "mri", seed: int = 0) -> Path:
    """The whole method on generated phantoms; returns the report."""
    config = resolve(f"phantom-{modality}", overrides={"seed": seed})
    phantoms = out / "phantoms"
    if not phantoms.exists():
        write_phantom(phantoms, modality=modality, cases=40, seed=seed)
    return run(config, phantoms, out)


def run(config: Config, data: Path, out: Path, *, deadline: float | None = None) -> Path:
    """Everything, from files to a report; run again to continue where it stopped.

    Args:
        deadline: ``time.monotonic()`` after which a training saves and raises ``Stopped``.
    """
    with _at_work(out):
        encoder = None
        if config.pretrain.steps:
            encoder = pretrain(config, data, out, deadline=deadline)
        train(config, data, out, encoder=encoder, deadline=deadline)
        if ranks.is_first():
            evaluate(out)
            build_report(out)
    return out / "report.html"


def pretrain(config: Config, data: Path, out: Path, *, deadline: float | None = None) -> Path:
    """Stage 1 on the training patients' images; returns the encoder's checkpoint."""
    with _at_work(out):
        return _pretrain(config, _ground(config, data, out), out, deadline)


def train(
    config: Config,
    data: Path,
    out: Path,
    *,
    encoder: Path | None = None,
    deadline: float | None = None,
) -> Path:
    """Stage 2 on the labelled training patients, then calibration; returns the model folder."""
    with _at_work(out):
        return _train(config, _ground(config, data, out), out, encoder, deadline)


def evaluate(run: Path, *, data: Path | None = None, parts: Sequence[Part] = assess.JUDGED) -> Path:
    """Judge a run's model on its held-out patients; returns ``metrics.json``.

    Those of the cohort ``data`` go to ``run/evaluations/<cohort>``, beside the run's own.
    """
    with locked(run):
        model = trained.load(run, device=device(load(run / "config.yaml")))
        ground = prepare(model.config, data_folder(run, data), run, visiting=data is not None)
        out = run if data is None else run / "evaluations" / ground.provenance["cohort"]
        return assess.assess(model, ground, out=out, parts=parts)


@contextmanager
def _at_work(out: Path) -> Iterator[None]:
    """Every process of the job in touch, and no other job in the folder."""
    with ranks.joined(), locked(out) if ranks.is_first() else nullcontext():
        yield


def _ground(config: Config, data: Path, out: Path) -> Ground:
    with ranks.first_alone():
        return prepare(config, data, out)


def _pretrain(config: Config, ground: Ground, out: Path, deadline: float | None) -> Path:
    settings = config.pretrain
    network = _network(config, ground)
    samples = Patches(ground.store, ground.parts["train"], settings=config.data, seed=config.seed)
    stage = begin(
        network.encoder,
        config,
        task=ground.store.task,
        protocols=len(ground.store.protocols),
        cuts=[samples[key] for key in range(POSITIONS)],
        spacing_mm=ground.spacing_mm,
    )
    schedule = replace(
        _schedule(config, deadline),
        steps=settings.steps,
        batch=settings.batch,
        lr=settings.lr,
        accumulate=1,  # a part would have fewer negatives
    )
    fit(
        stage,
        samples,
        schedule,
        folder=out / "pretrain",
        device=device(config),
        validate=_if_wanted(config, lambda step: _probe(stage.module, samples, ground, config)),
    )
    encoder = out / "pretrain" / "encoder.safetensors"
    if ranks.is_first():
        checkpoint.save(encoder, network.encoder, record={"steps": settings.steps})
    ranks.wait()
    return encoder


def _train(
    config: Config, ground: Ground, out: Path, encoder: Path | None, deadline: float | None
) -> Path:
    labelled = _labelled(ground, config)
    network = _network(config, ground)
    if encoder is None:
        config = _at_full_rate(config)
    else:
        tensors, _ = checkpoint.read(encoder)
        progress.console.print(f"{encoder}: {adapt(_without_prefix(tensors), network.encoder)}")
    network.encoder.requires_grad_(config.train.encoder_lr_factor > 0)
    population = Population(
        images=sum(ground.images(i) for i in labelled),
        voxels=int(np.prod(config.data.patch)),
        spacing_mm=ground.spacing_mm,
    )
    stage = Supervised(network, config, population)
    patches = Patches(ground.store, labelled, settings=config.data, seed=config.seed)
    standardize_decoder(network.to(device(config)), next(_images(patches, config)))
    standardize_findings(network, _images(patches, config))
    fit(
        stage,
        patches,
        _schedule(config, deadline),
        folder=out / "train",
        device=device(config),
        validate=_if_wanted(
            config,
            lambda step: assess.validate(network, ground.store, ground.parts["val"], config),
        ),
    )
    if not ranks.is_first():
        return out / "model"
    stage.prepare(config.train.steps)
    best = out / "train" / "best.safetensors"
    if config.train.keep != "last" and best.exists():
        tensors, record = checkpoint.read(best)
        checkpoint.load_module(stage.module, tensors, source=best)
        progress.console.print(f"train: the weights of step {record['step']} are kept")
    network.eval()
    if config.bayes.posterior == "laplace":
        laplace.fit(network, _images(patches, config))
    model = Trained(network, ground.store.task, config, provenance=ground.provenance)
    width, tempering = assess.temper(model, ground.store, ground.parts["val"])
    calibration = replace(
        assess.calibrate(model, ground.store, ground.parts["val"]),
        posterior_width=width,
        tempering=tempering,
    )
    familiarity = assess.familiarize(
        model, ground.store, ground.parts["train"], ground.parts["val"]
    )
    for warning in calibration.warnings:
        progress.console.print(f"train: {warning}")
    model = replace(model, calibration=calibration, familiarity=familiarity)
    assess.calibrate_attention(model, ground.store, ground.parts["val"]).save(out / "model")
    return out / "model"


def _images(patches: Patches, config: Config) -> Iterator[torch.Tensor]:
    """Some training patches in display units."""
    for start in range(0, PROBED, config.train.batch):
        keys = range(start, min(start + config.train.batch, PROBED))
        image = torch.stack([torch.as_tensor(patches[key]["image"]) for key in keys])
        shown = to_display(image, modality=config.modality, window_hu=config.data.window_hu)
        yield shown.to(device(config))


def _network(config: Config, ground: Ground) -> Network:
    """A fresh network that knows the training images' mean and spread, in display units."""
    network = trained.build(config, ground.store.task)
    mean, spread = ground.display_statistics(config)
    network.encoder.input_mean.copy_(mean)
    network.encoder.input_std.copy_(spread)
    if config.train.compile:
        network.encoder.compile()
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
    return probe_scores(
        objective.represent,
        batches(samples),
        batches(held_out),
        classes=classes,
        halves=objective.protocol.halves,
    )


def _at_full_rate(config: Config) -> Config:
    """``encoder_lr_factor`` spares what pre-training learned; a fresh encoder has all to learn."""
    train = config.train.model_copy(update={"encoder_lr_factor": 1.0})
    return config.model_copy(update={"train": train})


def _if_wanted(config: Config, validate: Validate) -> Validate | None:
    return validate if config.train.validate_every else None


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


def _schedule(config: Config, deadline: float | None) -> Schedule:
    return Schedule(
        steps=config.train.steps,
        batch=config.train.batch,
        lr=config.train.lr,
        warm_up=config.train.warm_up,
        clip_norm=config.train.clip_norm,
        seed=config.seed,
        workers=config.data.workers,
        checkpoint_every=config.train.checkpoint_every,
        validate_every=config.train.validate_every,
        accumulate=config.train.accumulate,
        shard=config.train.shard,
        deadline=deadline,
    )
