"""What is fitted on validation patients: temperature, thresholds, the uncertainty's reference."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from penumbra import progress
from penumbra.assess.conformal import Promised
from penumbra.assess.constant import REMEDY, Answers
from penumbra.bayes.temperature import fit_temperature
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.evaluate import localization
from penumbra.evaluate.expected import fit_expected
from penumbra.evaluate.overlap import confusion, dice, label_map
from penumbra.evaluate.protocol import mean_of_defined
from penumbra.evaluate.ranking import choose_threshold
from penumbra.evaluate.segmentation import region_of_interest
from penumbra.evaluate.selective import POOR_DICE, aggregate, aurc, review_budget
from penumbra.inference.maps import CaseMaps, map_case
from penumbra.trained import Calibration, RankedBy, Trained, posterior
from penumbra.types import IGNORE

VOXELS_PER_CASE = 20_000
U_QUANTILE = 0.95


def calibrate(model: Trained, store: Store, indices: list[int]) -> Calibration:
    """Fit every choice that a prediction makes, on validation patients alone.

    The temperature is fitted after averaging the draws, on voxels of the dilated union of
    prediction and reference, where the evaluation reports its calibration.
    """
    settings = model.config
    generator = torch.Generator().manual_seed(settings.seed)
    draws = posterior(model.network, settings.evaluate.draws, generator=generator)
    seen, promised, answers = _Seen(store.task.regions), Promised(), Answers()
    with progress.bar("calibrate", len(indices)) as advance:
        for index in indices:
            case = store[index]
            maps = map_case(model.network, draws, case, store.task, settings)
            seen.add(case, maps, settings.seed)
            promised.add(case, maps, store.task)
            answers.add(case, maps)
            advance()
    findings, volumes = store.task.findings, promised.volume_quantiles()
    return Calibration(
        temperature=seen.temperature(),
        finding_temperature=seen.finding_temperature(),
        thresholds={f: seen.threshold(k) for k, f in enumerate(findings)},
        attention_threshold=seen.attention_threshold(),
        u_ref=seen.reference(),
        **seen.review(settings.evaluate.error_target),
        volume_quantile={region: quantile for region, (quantile, _) in volumes.items()},
        volume_floor_ml={region: floor for region, (_, floor) in volumes.items()},
        finding_quantile=promised.finding_quantiles(),
        warnings=[f"{sentence} {REMEDY}" for sentence in answers.warnings("val")],
    )


@dataclass
class _Seen:
    """Samples of the validation cases, small enough to keep."""

    regions: Mapping[str, Sequence[int]]
    log_probability: list[Tensor] = field(default_factory=list)
    label: list[Tensor] = field(default_factory=list)
    epistemic: list[np.ndarray] = field(default_factory=list)
    finding_probability: list[np.ndarray] = field(default_factory=list)
    finding_label: list[np.ndarray] = field(default_factory=list)
    attention: list[np.ndarray] = field(default_factory=list)
    region: list[np.ndarray] = field(default_factory=list)
    case_uncertainty: list[float] = field(default_factory=list)
    disagreement: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    structure: list[float] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)

    def add(self, case: Prepared, maps: CaseMaps, seed: int) -> None:
        body = np.asarray(case.body)
        if maps.voxels is not None:
            inside = maps.voxels.epistemic.numpy()[body]
            self.epistemic.append(_thin(inside, seed))
        if maps.voxels is not None and case.segmentation is not None:
            self._add_voxels(case, maps, seed)
        if maps.findings is not None:
            self.finding_probability.append(maps.findings.probability.numpy())
            self.finding_label.append(np.asarray(case.findings))
            if maps.voxels is None:
                self.epistemic.append(maps.findings.epistemic.numpy())
        for row, target in expert_masks(case):
            if target.any():
                self.attention.append(maps.attention[row].numpy())
                self.region.append(target)

    def _add_voxels(self, case: Prepared, maps: CaseMaps, seed: int) -> None:
        assert maps.voxels is not None
        probability = maps.voxels.probability.numpy()
        reference, predicted = np.asarray(case.segmentation), label_map(probability)
        logs, labels = sample_voxels(probability, reference, case.spacing_mm, seed=seed)
        self.log_probability.append(logs)
        self.label.append(labels)
        epistemic = maps.voxels.epistemic.numpy()
        self.case_uncertainty.append(aggregate(epistemic, predicted, how="region"))
        counts = confusion(predicted, reference, classes=len(probability))
        self.disagreement.append(maps.disagreement)
        self.entropy.append(float(maps.voxels.entropy_nats.mean()))
        self.structure.append(maps.structure_entropy(self.regions))
        scores = [dice(counts, members) for members in self.regions.values()]
        self.dice.append(mean_of_defined(scores))

    def temperature(self) -> float:
        if not self.label:
            return 1.0
        return fit_temperature(torch.cat(self.log_probability), torch.cat(self.label))

    def finding_temperature(self) -> float:
        if not self.finding_label:
            return 1.0
        p = np.stack(self.finding_probability).ravel()
        y = np.stack(self.finding_label).ravel()
        known = (y == 0) | (y == 1)
        if len(np.unique(y[known])) < 2:
            return 1.0
        both = np.log(np.clip(np.stack([1 - p[known], p[known]], 1), 1e-12, 1))
        return fit_temperature(torch.from_numpy(both), torch.from_numpy(y[known].astype(np.int64)))

    def threshold(self, finding: int) -> float:
        p, y = np.stack(self.finding_probability), np.stack(self.finding_label)
        return choose_threshold(p[:, finding], y[:, finding])

    def attention_threshold(self) -> float:
        if not self.region:
            return 0.5
        return localization.tune_threshold(self.attention, self.region)

    def reference(self) -> float:
        if not self.epistemic:
            return 1.0
        return max(float(np.quantile(np.concatenate(self.epistemic), U_QUANTILE)), 1e-12)

    def review(self, target: float) -> dict[str, Any]:
        """The score that ranks validation cases best (AURC), its limit, and the expected Dice.

        Draws that never differ have no say. The first wins a tie.
        """
        if not self.dice:
            return {}
        scores: dict[RankedBy, list[float]] = {
            "disagreement": self.disagreement,
            "uncertainty": self.case_uncertainty,
            "entropy": self.entropy,
            "structure": self.structure,
        }
        able = [name for name, each in scores.items() if len(set(each)) > 1] or ["uncertainty"]
        risk = 1 - np.array(self.dice)
        chosen = min(able, key=lambda name: aurc(np.array(scores[name]), risk))
        score = np.array(scores[chosen])
        failed = np.array([each < POOR_DICE for each in self.dice])
        limit = review_budget(score, failed, target=target).threshold
        line = fit_expected(score, np.array(self.dice))
        return {
            "ranked_by": chosen,
            "review_above": float(limit) if np.isfinite(limit) else None,
            "expected_dice": {} if line is None else asdict(line),
        }


def sample_voxels(
    probability: Float[np.ndarray, "c *space"],
    reference: Integer[np.ndarray, "*space"],
    spacing_mm: Sequence[float],
    *,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [n, c] and labels [n] of up to 20,000 voxels where calibration is judged.

    That is the union of prediction and reference, widened as in ``evaluate.segmentation``.
    """
    chosen = judged_places(
        label_map(probability), reference, spacing_mm, most=VOXELS_PER_CASE, seed=seed
    )
    flat = probability.reshape(len(probability), -1)[:, chosen].T
    labels = torch.from_numpy(reference.ravel()[chosen].astype(np.int64))
    return torch.from_numpy(np.log(np.maximum(flat, 1e-12))), labels


def judged_places(
    predicted: Integer[np.ndarray, "*space"],
    reference: Integer[np.ndarray, "*space"],
    spacing_mm: Sequence[float],
    *,
    most: int,
    seed: int,
) -> Integer[np.ndarray, " n"]:
    """Flat indices of up to ``most`` voxels of the widened union of prediction and reference."""
    roi = region_of_interest(predicted > 0, reference > 0, spacing_mm=spacing_mm)
    return _thin(np.flatnonzero(roi & (reference != IGNORE)), seed, most)


def expert_masks(case: Prepared) -> list[tuple[int, np.ndarray]]:
    """Attention map index -> the region that it should show, where somebody drew one.

    Map 0 answers for the segmented foreground, map 1 + j for finding j.
    """
    pairs = [
        (row, np.asarray(mask) > 127) for row, mask in zip(case.mapped, case.masks, strict=True)
    ]
    if case.segmentation is not None and not any(row == 0 for row, _ in pairs):
        pairs.append((0, np.asarray(case.segmentation) > 0))
    return pairs


def _thin(values: np.ndarray, seed: int, most: int = VOXELS_PER_CASE) -> np.ndarray:
    if len(values) <= most:
        return values
    return np.random.default_rng(seed).choice(values, most, replace=False)
