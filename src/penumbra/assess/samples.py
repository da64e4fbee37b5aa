"""A few cases kept as pictures for the report: the worst, the median and the best."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from penumbra.augment import slice_to_display
from penumbra.data.picture import axial
from penumbra.data.preprocess import Prepared
from penumbra.evaluate.arrays import evenly
from penumbra.evaluate.overlap import label_map
from penumbra.files import atomic
from penumbra.inference.maps import CaseMaps
from penumbra.trained import Trained

KEPT = 6


@dataclass
class _Sample:
    quality: float
    case: str
    arrays: dict[str, np.ndarray]


class Samples:
    """Collects one slice per case and writes an even choice over the range of quality.

    Memory holds one slice per case, whatever the volumes' size.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "evaluation" / "samples"
        self.seen: list[_Sample] = []

    def consider(self, case: Prepared, maps: CaseMaps, model: Trained) -> None:
        """Keep the slice with most to see: the largest reference, prediction or attention."""
        predicted = None if maps.voxels is None else label_map(maps.voxels.probability.numpy())
        reference = None if case.segmentation is None else np.asarray(case.segmentation)
        labelled = [a > 0 for a in (reference, predicted) if a is not None]
        seen = (a for a in (*labelled, maps.attention[0].numpy()) if a.any())
        shown = next(seen, np.asarray(case.image)[0])
        at = int(shown.sum((0, 1), dtype=np.float64).argmax()) if shown.ndim == 3 else None

        def cut(array: np.ndarray) -> np.ndarray:
            return axial(array, at)

        settings = model.config
        image = slice_to_display(
            cut(np.asarray(case.image[0])),
            modality=settings.modality,
            window_hu=settings.data.window_hu,
        )
        arrays = {"image": image}
        quality = 0.0
        row, title = 0, case.id
        if maps.findings is not None:
            probability = maps.findings.probability.numpy()
            row = 1 + int(np.argmax(probability))
            stated = {
                name: {"probability": float(p), "epistemic": float(u), "reference": float(y)}
                for name, p, u, y in zip(
                    model.task.findings,
                    probability,
                    maps.findings.epistemic.numpy(),
                    np.asarray(case.findings),
                    strict=True,
                )
            }
            arrays["findings"] = np.array(json.dumps(stated))
            title = f"{case.id}: attention for {model.task.findings[row - 1]}"
            quality = float(maps.findings.epistemic.mean())
        if maps.voxels is not None:
            row = 0
            arrays["classes"] = np.array(model.task.classes)
            arrays["prediction"] = cut(predicted)  # type: ignore[arg-type]
            arrays["epistemic"] = cut(maps.voxels.epistemic.numpy())
            arrays["aleatoric"] = cut(maps.voxels.aleatoric.numpy())
            if reference is not None:
                arrays["reference"] = cut(reference)
                quality = _agreement(arrays["prediction"] > 0, arrays["reference"] > 0)
        arrays["attention"] = cut(maps.attention[row].numpy())
        arrays["title"] = np.array(title)
        self.seen.append(_Sample(quality, case.id, arrays))

    def write(self) -> None:
        """Write the chosen samples, worst first."""
        order = sorted(self.seen, key=lambda sample: (sample.quality, sample.case))
        for rank, place in enumerate(evenly(len(order), KEPT)):
            buffer = io.BytesIO()
            arrays: dict[str, Any] = order[place].arrays
            np.savez_compressed(buffer, **arrays)
            with atomic(self.folder / f"{rank:02d}.npz") as part:
                part.write_bytes(buffer.getvalue())


def _agreement(one: np.ndarray, other: np.ndarray) -> float:
    both = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / both if both else 1.0
