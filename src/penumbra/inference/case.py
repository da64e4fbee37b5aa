"""A scan in, its prediction out: in memory, then as maps, summary and page."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from penumbra import trained
from penumbra.bayes.temperature import apply_temperature
from penumbra.config.schema import Draws
from penumbra.data.preprocess import prepare
from penumbra.evaluate.overlap import label_map
from penumbra.files import write_text
from penumbra.inference.channels import case_of
from penumbra.inference.features import scan_features
from penumbra.inference.files import write_map
from penumbra.inference.maps import CaseMaps, map_case
from penumbra.inference.page import case_page
from penumbra.inference.prediction import Prediction
from penumbra.inference.summary import summarize
from penumbra.trained import Trained, posterior
from penumbra.types import Case


def predict(model: Trained | Path, scan: Path | Case, *, draws: Draws | None = None) -> Prediction:
    """What the model says of one scan.

    Args:
        model: a loaded model, or a run folder to load one from.
        scan: an image, a DICOM series (folder or zip), or a case folder with one file per channel.
        draws: posterior draws, ``auto`` or ``propagate``; by default as in the run's evaluation.

    The same model, scan and number of draws give the same prediction.

    Raises:
        DataError: no model in the folder, or the scan does not fit it.
    """
    if isinstance(model, Path):
        model = trained.load(model)
    case = scan if isinstance(scan, Case) else case_of(scan, model.task)
    prepared = prepare(case, model.task, model.config.data)
    generator = torch.Generator().manual_seed(model.config.seed)
    config = model.config
    if draws is not None:
        wanted = config.evaluate.model_copy(update={"draws": draws})
        config = config.model_copy(update={"evaluate": wanted})
    bank = posterior(model.network, config.evaluate.draws, generator=generator)
    maps = map_case(model.network, bank, prepared, model.task, config)
    strangeness = None
    if model.familiarity is not None:
        strangeness = model.familiarity.judge(scan_features(model.network, prepared, config))
    arrays = _arrays(maps, model)
    record = summarize(maps, prepared, model, arrays.get("segmentation"), strangeness)
    return Prediction(record, arrays, prepared, model.config)


def write_prediction(prediction: Prediction, out: Path, *, origin: str | None = None) -> list[Path]:
    """Write segmentation, probability, uncertainty and attention maps, page and, last, summary.

    The first channel goes with them, as the network saw it, so that the maps can be looked at.
    ``origin`` is a digest of what the prediction followed from, which the summary keeps.
    """
    out.mkdir(parents=True, exist_ok=True)
    case = prediction.case
    shown = {"image": np.asarray(case.image[0], dtype=np.float32), **prediction.maps}
    files = {
        name: write_map(
            out, f"{case.id}_{name}", array, case.geometry, fill=prediction.outside(name)
        )
        for name, array in shown.items()
    }
    record = {
        **prediction.record,
        "files": {name: [path.name for path in paths] for name, paths in files.items()},
        "origin": origin,
    }
    page, summary = out / f"{case.id}.html", out / f"{case.id}.json"
    write_text(page, case_page(record, case, prediction.maps, prediction.config))
    write_text(summary, json.dumps(record, indent=1))
    return [*(path for paths in files.values() for path in paths), summary, page]


def _arrays(maps: CaseMaps, model: Trained) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    if maps.voxels is not None:
        scaled = _scaled(maps.voxels.probability, model.calibration.temperature)
        arrays["segmentation"] = label_map(scaled).astype(np.uint8)
        arrays["probability"] = scaled
        arrays["epistemic"] = maps.voxels.epistemic.numpy()
        arrays["aleatoric"] = maps.voxels.aleatoric.numpy()
        arrays["entropy_nats"] = maps.voxels.entropy_nats.numpy()
    arrays["attention"] = maps.attention.numpy()
    return arrays


def _scaled(probability: Tensor, temperature: float) -> np.ndarray:
    """The probabilities at the fitted temperature, row by row: a CT's take gigabytes."""
    scaled = np.empty(probability.shape, np.float32)
    for row in range(probability.shape[1]):
        scaled[:, row] = apply_temperature(probability[None, :, row], temperature)[0].numpy()
    return scaled
