"""Images with an expert's mask, as a network sees them, and what it states about them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penumbra.assess.calibrate import expert_masks
from penumbra.augment import to_display
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.errors import DataError
from penumbra.inference.explain import logits_of, map_names
from penumbra.trained import Trained


@dataclass(frozen=True)
class Picture:
    """What the network sees at once, with one structure's mask: a radiograph, slice or volume.

    Attributes:
        name: of the structure.
        row: of the structure among the network's maps.
        organ: the organ outlined in this case, else the body.
    """

    case: str
    patient: str
    name: str
    row: int
    image: Tensor
    organ: Tensor
    mask: np.ndarray
    spacing_mm: tuple[float, ...]


def pictures(model: Trained, store: Store, indices: Sequence[int]) -> list[Picture]:
    """Every annotated structure of these cases that the model has a map for.

    Of a volume that is read slice by slice, the slice with most of the structure.

    Raises:
        DataError: there is none.
    """
    found = [p for i in indices for p in _of_case(model, store[i])]
    if not found:
        raise DataError("no case has an expert's mask: explanations cannot be judged")
    return found


@torch.no_grad()
def stated(model: Trained, image: Tensor, row: int) -> Tensor:
    """Probability of the finding [b], or of the foreground [b, *space], with the mean weights."""
    logits = logits_of(model.network, row)(image)
    return logits.softmax(1)[:, 1] if row == 0 else logits.sigmoid()[:, row - 1]


def _of_case(model: Trained, case: Prepared) -> list[Picture]:
    settings, named = model.config, map_names(model.task)
    image = torch.from_numpy(np.array(case.image, dtype=np.float32))[None]
    display = to_display(image, modality=settings.modality, window_hu=settings.data.window_hu)
    masks = dict(expert_masks(case))
    outlined = masks.get(0) if not model.task.classes else None
    organ = torch.from_numpy(np.array(case.body) if outlined is None else outlined)[None]
    found = []
    for row, mask in masks.items():
        if row not in named or not mask.any():
            continue
        sliced = mask.ndim == 3 and settings.data.dim == 2
        at = (..., int(np.argmax(mask.sum((0, 1))))) if sliced else (...,)
        found.append(
            Picture(
                case=case.id,
                patient=case.case.patient,
                name=named[row],
                row=row,
                image=display[at],
                organ=organ[at],
                mask=np.asarray(mask[at]),
                spacing_mm=case.spacing_mm[: mask.ndim - sliced],
            )
        )
    return found
