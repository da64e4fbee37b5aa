"""Attention made comparable between scans: what its uncertainty is measured by, how often it helps.

Validation patients set the reference and the reliability table; test patients judge the table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from penumbra import progress
from penumbra.assess.calibrate import U_QUANTILE, expert_masks
from penumbra.attend.reliability import Edges, Tally, calibrated, merge, shares, tally
from penumbra.bayes import bank
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.inference.explain import explain_case, reference
from penumbra.trained import Trained

CASES = 12
"""Validation cases looked at, annotated ones first."""

LEAST_VARIANCE = 1e-6
"""Of a map between draws: a deviation of a thousandth is no doubt, whatever is usual."""


@dataclass(frozen=True)
class _Seen:
    """One case's maps [m, *space] with their rows; ``masks`` by row, where an expert drew one."""

    patient: str
    rows: tuple[int, ...]
    attention: Tensor
    uncertainty: Tensor
    masks: dict[int, np.ndarray]
    body: Tensor


def calibrate_attention(model: Trained, store: Store, indices: Sequence[int]) -> Trained:
    """The model with ``attention_u_ref`` and, where experts drew regions, ``relevance``."""
    if not model.network.gated:
        return model
    chosen = sorted(indices, key=lambda i: not _annotated(model, store[i]))[:CASES]
    seen = list(_look(model, store, chosen, name="calibrate attention"))
    spread = [
        case.uncertainty[k][case.body].numpy()
        for case in seen
        for k, row in enumerate(case.rows)
        if row > 0
    ]
    calibration = model.calibration
    if spread:
        u_ref = max(float(np.quantile(np.concatenate(spread), U_QUANTILE)), LEAST_VARIANCE)
        calibration = replace(calibration, attention_u_ref=u_ref)
    model = replace(model, calibration=calibration)
    counts = [one for case in seen for one in _count(model, case)]
    if counts:
        relevance = shares(merge(counts)).tolist()
        model = replace(model, calibration=replace(calibration, relevance=relevance))
    return model


def count_attention(
    model: Trained, store: Store, indices: Sequence[int]
) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """Patient -> regions by how they were shown, for ``reliability.table`` and its error.

    First with the attention, then with the calibrated share in its place (the same attention,
    where the model has no table of ``relevance``).
    """
    raw: dict[str, list[Tally]] = {}
    corrected: dict[str, list[Tally]] = {}
    annotated = [i for i in indices if _annotated(model, store[i])]
    for case in _look(model, store, annotated, name="reliability of attention"):
        raw.setdefault(case.patient, []).extend(_count(model, case))
        corrected.setdefault(case.patient, []).extend(_count(model, case, corrected=True))
    first, second = ({p: merge(each) for p, each in c.items()} for c in (raw, corrected))
    return first, second


def _annotated(model: Trained, case: Prepared) -> bool:
    return any(row in _rows(model) and mask.any() for row, mask in expert_masks(case))


def _rows(model: Trained) -> tuple[int, ...]:
    return tuple(range(0 if model.task.classes else 1, 1 + len(model.task.findings)))


def _look(model: Trained, store: Store, indices: Sequence[int], *, name: str) -> Iterator[_Seen]:
    chance = torch.Generator().manual_seed(model.config.seed)
    posterior = bank(model.network, draws=model.config.evaluate.fixed_draws, generator=chance)
    with progress.bar(name, len(indices)) as advance:
        for index in indices:
            case = store[index]
            found = explain_case(model, posterior, case, methods=("attention",))
            masks = {row: mask for row, mask in expert_masks(case) if row in found.rows}
            body = torch.from_numpy(np.array(case.body))
            attention = found.maps["attention"]
            yield _Seen(case.case.patient, found.rows, attention, found.uncertainty, masks, body)
            advance(case.id)


def _count(model: Trained, case: _Seen, *, corrected: bool = False) -> list[Tally]:
    counts, edges = [], Edges()
    for k, row in enumerate(case.rows):
        if row not in case.masks or not case.masks[row].any():
            continue
        shown = case.attention[k][None, None]
        doubt = case.uncertainty[k][None, None] / reference(model, row)
        if corrected and model.calibration.relevance is not None:
            table = torch.tensor(model.calibration.relevance)
            shown = calibrated(shown, doubt, table, edges=edges)
        real = torch.from_numpy(case.masks[row]).float()[None, None]
        counts.append(tally(shown, doubt, real, case.body[None], edges=edges))
    return counts
