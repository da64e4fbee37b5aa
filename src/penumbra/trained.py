"""A trained model as a folder: everything that a prediction needs, and nothing to unpickle."""

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from torch import nn

from penumbra import __version__, bayes, checkpoint, config
from penumbra.bayes import Bank, dropout, laplace
from penumbra.bayes.mahalanobis import Familiarity
from penumbra.bayes.propagate import Propagation
from penumbra.bayes.stopping import MOST
from penumbra.config import Config
from penumbra.config.schema import Draws
from penumbra.decoders import Decoders
from penumbra.errors import ConfigError, DataError
from penumbra.files import write_text
from penumbra.model import Network
from penumbra.reference import Reference
from penumbra.types import Task

WEIGHTS, RECORD, FAMILIARITY = "model.safetensors", "model.json", "familiarity.safetensors"

FORMAT = 2
"""Of the weights: raised whenever a network would compute something else from the same ones."""

SEED_STEP = 100_003
"""Between the seeds of decoders: no run's second one starts as another run's first."""

RankedBy = Literal["disagreement", "uncertainty", "entropy", "structure"]
"""Disagreement between draws; mean epistemic variance around the predicted foreground; mean
predictive entropy of the whole scan, or within the predicted structures."""


@dataclass(frozen=True)
class Calibration:
    """What is fitted on validation patients, never on test patients.

    Attributes:
        temperature: divides the log of the averaged probabilities of voxels.
        finding_temperature: the same for findings.
        thresholds: finding -> probability above which it is reported as present.
        attention_threshold: of the composite map, for localization.
        u_ref: 95 % quantile of the epistemic variance inside validation bodies.
        attention_u_ref: 95 % quantile of the variance of findings' maps between draws.
        relevance: how much of the regions shown alike experts marked, per attention bin and
            uncertainty bin (``attend.reliability.shares``); none without expert masks.
        ranked_by: the score that ranks cases, the one that ranked validation cases best.
        review_above: that score, from which a case goes to review.
        expected_dice: line from that score to the mean Dice (``evaluate.expected``); empty where
            too few cases were seen.
        volume_quantile, volume_floor_ml: region -> of the conformal volume interval; a region is
            absent where too few patients were seen to promise anything.
        finding_quantile: finding -> of its conformal set; absent likewise.
        posterior_width: factor by which the trained posterior's deviations were scaled.
        tempering: what each width scored (``assess.temper``).
        warnings: what makes the model useless, in sentences (``assess.constant``).
    """

    temperature: float = 1.0
    finding_temperature: float = 1.0
    thresholds: dict[str, float] = field(default_factory=dict)
    attention_threshold: float = 0.5
    u_ref: float = 1.0
    attention_u_ref: float = 1.0
    relevance: list[list[float]] | None = None
    ranked_by: RankedBy = "uncertainty"
    review_above: float | None = None
    expected_dice: dict[str, float] = field(default_factory=dict)
    volume_quantile: dict[str, float] = field(default_factory=dict)
    volume_floor_ml: dict[str, float] = field(default_factory=dict)
    finding_quantile: dict[str, float] = field(default_factory=dict)
    posterior_width: float = 1.0
    tempering: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """A network with the task, settings and calibration that it was trained with."""

    network: Network
    task: Task
    config: Config
    calibration: Calibration = Calibration()
    provenance: dict[str, Any] = field(default_factory=dict)
    familiarity: Familiarity | None = None

    def save(self, folder: Path) -> None:
        """Write the folder; each file appears whole."""
        checkpoint.save(folder / WEIGHTS, self.network)
        if self.familiarity is not None:
            checkpoint.save(folder / FAMILIARITY, self.familiarity)
        record = {
            "format": FORMAT,
            "task": asdict(self.task),
            "config": self.config.model_dump(mode="json"),
            "calibration": asdict(self.calibration),
            "provenance": {**self.provenance, **environment()},
        }
        write_text(folder / RECORD, json.dumps(record, indent=1))


def build(config: Config, task: Task) -> Network:
    """The network that a configuration and a task ask for, with seeded initial weights."""
    if config.model.architecture != "penumbra":
        return Reference(
            config.model.architecture,
            channels=len(task.channels),
            classes=len(task.classes),
            findings=len(task.findings),
            dim=config.data.dim,
            widths=config.model.widths,
            seed=config.seed,
        )
    networks = [
        Network(
            channels=len(task.channels),
            classes=len(task.classes),
            findings=len(task.findings),
            dim=config.data.dim,
            widths=config.model.widths,
            neck=config.model.neck,
            gates=config.attention.gates,
            spread_rank=config.bayes.spread_rank,
            seed=config.seed + SEED_STEP * k,
        )
        for k in range(config.bayes.decoders)
    ]
    return networks[0] if len(networks) == 1 else Decoders(networks)


def convert(network: Network, config: Config) -> None:
    """Give decoder and heads the posterior that the configuration names."""
    settings = config.bayes
    match settings.posterior:
        case "variational":
            bayes.convert(network, sigma0=settings.sigma0, scope=settings.scope)
        case "dropout":
            dropout.convert(network, rate=settings.dropout, scope=settings.scope)
        case "laplace":
            laplace.convert(network)
        case "none":
            pass


@torch.inference_mode()
def posterior(network: nn.Module, draws: Draws, *, generator: torch.Generator) -> Bank:
    """The draws by which a network predicts; with ``auto`` as many as may be needed.

    For inference alone: no gradient passes through them, and kernels are laid out for it.

    Raises:
        ConfigError: ``propagate`` asks for a variational network of one decoder.
    """
    match draws:
        case "auto":
            return bayes.bank(network, draws=MOST, generator=generator)
        case "propagate":
            try:
                return Propagation(network)
            except ValueError as error:
                raise ConfigError(f"draws: propagate: {error}; choose a number") from error
        case _:
            return bayes.bank(network, draws=draws, generator=generator)


def load(folder: Path, *, device: torch.device | str = "cpu") -> Trained:
    """Read a model folder (or a run folder that holds one).

    Raises:
        DataError: a file is missing, damaged, or does not describe a model.
    """
    folder = _model_folder(folder)
    path = folder / RECORD
    try:
        record = json.loads(path.read_text())
        written = record.get("format", 1)
        if written != FORMAT:
            raise DataError(
                f"{path}: a model of format {written}, and this version computes format {FORMAT}: "
                "its predictions would be wrong; train it again with `penumbra run`"
            )
        task = TypeAdapter(Task).validate_python(record["task"])
        settings = config.validate(record["config"], source=str(path))
        calibration = TypeAdapter(Calibration).validate_python(record["calibration"])
        provenance = dict(record.get("provenance", {}))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no trained model here; train one with `penumbra run`") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: not a model description ({reason})") from error
    try:
        network = build(settings, task)
        convert(network, settings)
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise DataError(f"{path}: describes a network that cannot be built ({error})") from error
    tensors, _ = checkpoint.read(folder / WEIGHTS)
    checkpoint.load_module(network, tensors, source=folder / WEIGHTS)
    network.to(device).eval()
    return Trained(network, task, settings, calibration, provenance, _familiarity(folder))


def warnings(folder: Path) -> list[str]:
    """What the model in a folder warns of; its network is not built. None where no model is."""
    path = _model_folder(folder) / RECORD
    if not path.exists():
        return []
    return list(json.loads(path.read_text()).get("calibration", {}).get("warnings", []))


def fingerprint(folder: Path) -> str:
    """Hash of a model folder (or of a run's), by which a prediction knows its model."""
    folder, digest = _model_folder(folder), hashlib.sha256()
    for name in (WEIGHTS, RECORD, FAMILIARITY):
        if (folder / name).exists():
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _model_folder(folder: Path) -> Path:
    return folder / "model" if (folder / "model" / RECORD).exists() else folder


def _familiarity(folder: Path) -> Familiarity | None:
    path = folder / FAMILIARITY
    if not path.exists():
        return None
    tensors, _ = checkpoint.read(path)
    try:
        return Familiarity(*(tensors[f"model/{n}"] for n in ("mean", "precision", "validation")))
    except KeyError as error:
        raise DataError(f"{path}: lacks {error}; delete it to predict without it") from error


def environment() -> dict[str, str]:
    """Versions that a result depends on."""
    packages = ("torch", "monai", "numpy")
    machine = f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"
    versions = {"penumbra": __version__, **{p: version(p) for p in packages}}
    return {**versions, "python": platform.python_version(), "on": machine}
