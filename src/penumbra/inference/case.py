"""A prepared case in, its maps out in the scan's own grid, with a summary and a page."""

import json
from pathlib import Path

import numpy as np
import torch

from penumbra.bayes.mahalanobis import Strangeness
from penumbra.bayes.temperature import apply_temperature
from penumbra.config.schema import Draws
from penumbra.data.preprocess import Prepared, prepare
from penumbra.evaluate.overlap import label_map
from penumbra.files import write_text
from penumbra.inference.features import scan_features
from penumbra.inference.files import write_map
from penumbra.inference.maps import CaseMaps, map_case
from penumbra.inference.page import write_page
from penumbra.inference.summary import summarize
from penumbra.trained import Trained, posterior
from penumbra.types import Case


def predict_case(
    model: Trained, case: Case, out: Path, *, draws: Draws | None = None, origin: str | None = None
) -> list[Path]:
    """Predict one case and write its maps, page and, last of all, its summary.

    The same model, scan and number of draws give the same files; ``origin`` is a digest of these,
    which the summary keeps.
    """
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
    return write_maps(maps, prepared, model, out, strangeness=strangeness, origin=origin)


def write_maps(
    maps: CaseMaps,
    case: Prepared,
    model: Trained,
    out: Path,
    *,
    strangeness: Strangeness | None = None,
    origin: str | None = None,
) -> list[Path]:
    """Write segmentation, probability, uncertainty and attention maps, summary and page.

    The first channel goes with them, as the network saw it, so that the maps can be looked at.
    """
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    if maps.voxels is not None:
        arrays["probability"] = _scaled(maps.voxels.probability, model.calibration.temperature)
        arrays["segmentation"] = label_map(arrays["probability"]).astype(np.uint8)
        arrays["epistemic"] = maps.voxels.epistemic.numpy()
        arrays["aleatoric"] = maps.voxels.aleatoric.numpy()
        arrays["entropy_nats"] = maps.voxels.entropy_nats.numpy()
    arrays["attention"] = maps.attention.numpy()
    shown = {"image": np.asarray(case.image[0], dtype=np.float32), **arrays}
    # What was cropped away is air: darkest, and background for certain.
    fills: dict[str, float | list[float]] = {
        "image": float(shown["image"].min()),
        "probability": [1.0] + [0.0] * (len(model.task.classes) - 1),
    }
    files = {
        name: write_map(out, f"{case.id}_{name}", array, case.geometry, fill=fills.get(name, 0.0))
        for name, array in shown.items()
    }
    record = summarize(maps, case, model, arrays.get("segmentation"), strangeness)
    record["files"] = {name: [path.name for path in paths] for name, paths in files.items()}
    record["origin"] = origin
    page = write_page(out / f"{case.id}.html", record, case, arrays, model.config)
    summary = out / f"{case.id}.json"
    write_text(summary, json.dumps(record, indent=1))
    return [*(path for paths in files.values() for path in paths), summary, page]


def _scaled(probability: torch.Tensor, temperature: float) -> np.ndarray:
    """The probabilities at the fitted temperature, row by row: a CT's take gigabytes."""
    scaled = np.empty(probability.shape, np.float32)
    for row in range(probability.shape[1]):
        scaled[:, row] = apply_temperature(probability[None, :, row], temperature)[0].numpy()
    return scaled
