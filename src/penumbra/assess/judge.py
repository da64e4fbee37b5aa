"""The evaluation of one trained model (METHOD section 5): files in, rows with intervals out."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penumbra import progress
from penumbra.assess.calibrate import expert_masks
from penumbra.assess.conformal import coverage
from penumbra.assess.constant import Answers
from penumbra.assess.curves import diagram, risk_coverage, table_line, table_text
from penumbra.assess.hardship import hardship
from penumbra.assess.samples import Samples
from penumbra.bayes import diagnostics
from penumbra.bayes.temperature import apply_temperature
from penumbra.data.preprocess import Prepared
from penumbra.data.store import Store
from penumbra.evaluate import calibration, localization
from penumbra.evaluate.expected import from_record
from penumbra.evaluate.findings import Findings, score_findings, score_uncertainty
from penumbra.evaluate.protocol import (
    ALL,
    MEAN,
    CaseScores,
    Row,
    summarise,
    summarise_review,
    summarise_selective,
    to_json,
)
from penumbra.evaluate.segmentation import (
    Rules,
    score_calibration,
    score_segmentation,
    tally_segmentation,
)
from penumbra.evaluate.selective import RANKED_BY
from penumbra.files import write_text
from penumbra.ground import Ground
from penumbra.inference.maps import CaseMaps, map_case
from penumbra.trained import Trained, environment, posterior
from penumbra.types import Case, Part, Uncertainty

JUDGED: tuple[Part, ...] = ("val", "test")
RANKED = {
    "disagreement": "uncertainty/disagreement",
    "uncertainty": "uncertainty/epistemic/region",
    "entropy": "uncertainty/entropy/volume",
    "structure": "uncertainty/structure",
}
"""What a calibration ranks cases by -> the case score."""

UNCERTAINTIES = {
    "epistemic": "epistemic",
    "aleatoric": "aleatoric",
    "entropy": "entropy_nats",
    "mutual_information": "mutual_information_nats",
}
"""Name in the results -> field of ``Uncertainty``."""

Tallies = dict[str, calibration.Tally]


def assess(model: Trained, ground: Ground, *, out: Path, parts: Sequence[Part] = JUDGED) -> Path:
    """Score validation and test patients; write metrics, cases, curves and samples."""
    rows: list[Row] = []
    table: list[dict[str, Any]] = []
    curves: dict[str, Any] = {}
    warnings = list(model.calibration.warnings)
    for part in parts:
        samples = Samples(out) if part == "test" else None
        judged = judge(model, ground.store, ground.parts[part], part, samples=samples)
        rows += judged.rows(model, part)
        table += judged.table(part)
        curves = judged.curves()
        warnings += judged.answers.warnings(part) if part == "test" else []
    harder = hardship(model, ground.store, ground.parts["test"])
    curves["robustness"] = harder.series
    write_text(out / "cases.csv", table_text(table))
    write_text(out / "evaluation" / "curves.json", json.dumps(curves))
    write_text(out / "evaluation" / "probes.json", json.dumps(harder.probes))
    record = {
        **model.config.model_dump(include={"name", "modality", "size", "seed"}),
        "split_hash": ground.provenance["split"],
        "environment": environment(),
        "warnings": warnings,
        "attack_gates": harder.gates,
        "posterior": _posterior(model),
    }
    write_text(out / "metrics.json", to_json(rows + harder.rows, record))
    return out / "metrics.json"


@dataclass
class Judged:
    """One part's cases, reduced to what rows and curves need."""

    cases: list[Case] = field(default_factory=list)
    scores: list[CaseScores] = field(default_factory=list)
    tallies: dict[str, list[Tallies]] = field(default_factory=lambda: {"raw": [], "scaled": []})
    answers: Answers = field(default_factory=Answers)
    found: list[Uncertainty] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    findings: tuple[str, ...] = ()

    def rows(self, model: Trained, part: Part) -> list[Row]:
        settings = model.config.evaluate
        seed = model.config.seed
        rows = summarise(self.scores, part=part, samples=settings.bootstrap, seed=seed)
        if model.task.classes:
            rows += summarise_selective(self.scores, part=part, samples=500, seed=seed)
            rows += summarise_review(self.scores, part=part, target=settings.error_target)
        if self.findings:
            thresholds = [model.calibration.thresholds[f] for f in self.findings]
            rows += score_findings(
                self._findings(),
                part=part,
                thresholds=thresholds,
                bins=settings.bins,
                samples=settings.bootstrap,
                seed=seed,
            )
            rows += score_uncertainty(
                self._findings(),
                {name: self._field(field) for name, field in UNCERTAINTIES.items()},
                part=part,
                thresholds=thresholds,
                samples=500,
                seed=seed,
            )
        return rows

    def _field(self, name: str) -> np.ndarray:
        return np.stack([getattr(each, name).numpy() for each in self.found])

    def _findings(self) -> Findings:
        return Findings(
            probability=self._field("probability"),
            labels=np.stack(self.labels),
            names=self.findings,
            patients=[case.patient for case in self.cases],
        )

    def table(self, part: Part) -> list[dict[str, Any]]:
        """One line per case for ``cases.csv``."""
        lines: list[dict[str, Any]] = []
        for case, scored in zip(self.cases, self.scores, strict=True):
            line = table_line(scored, part=part, site=case.site or "")
            if self.findings:
                place = len(lines)
                for f, name in enumerate(self.findings):
                    line[f"probability_{name}"] = float(self.found[place].probability[f])
                    line[f"label_{name}"] = float(self.labels[place][f])
            lines.append(line)
        return lines

    def curves(self) -> dict[str, Any]:
        """Reliability diagrams and the risk-coverage curve, as the report draws them."""
        curves: dict[str, Any] = {}
        tallies = {name: [t["roi"] for t in each] for name, each in self.tallies.items() if each}
        if self.findings:
            found = self._findings()
            tallies["findings"] = [calibration.bernoulli(found.probability, found.labels)]
        curves["reliability"] = {
            name: diagram(reduce(lambda a, b: a + b, each)) for name, each in tallies.items()
        }
        unsure = [
            next((s.scores[h, ALL] for h in RANKED_BY if (h, ALL) in s.scores), np.nan)
            for s in self.scores
        ]
        risk = [1 - s.scores.get(("dice", MEAN), np.nan) for s in self.scores]
        if not np.isnan(risk).all():
            curves["risk_coverage"] = risk_coverage(np.array(unsure), np.array(risk))
        return curves


@torch.inference_mode()
def judge(
    model: Trained,
    store: Store,
    indices: list[int],
    part: Part,
    *,
    samples: Samples | None = None,
) -> Judged:
    """Every case scored by itself; nothing is written."""
    settings = model.config
    generator = torch.Generator().manual_seed(settings.seed + 1)
    draws = posterior(model.network, settings.evaluate.draws, generator=generator)
    judged = Judged(findings=store.task.findings)
    with progress.bar(f"evaluate {part}", len(indices)) as advance:
        for index in indices:
            case = store[index]
            maps = map_case(model.network, draws, case, store.task, settings)
            judged.answers.add(case, maps)
            judged.cases.append(case.case)
            scores = _score(model, case, maps, judged)
            judged.scores.append(CaseScores(case.id, case.case.patient, scores))
            if maps.findings is not None:
                judged.found.append(maps.findings)
                judged.labels.append(np.asarray(case.findings))
            if samples is not None:
                samples.consider(case, maps, model)
            advance()
    if samples is not None:
        samples.write()
    return judged


def _score(
    model: Trained, case: Prepared, maps: CaseMaps, judged: Judged
) -> dict[tuple[str, str], float]:
    """Everything that one case scores by itself."""
    scores: dict[tuple[str, str], float] = {}
    if maps.voxels is not None and case.segmentation is not None:
        scores |= _score_voxels(model, case, maps, judged)
    elif maps.findings is not None:
        for name, field in UNCERTAINTIES.items():
            scores[f"uncertainty/{name}/mean", ALL] = float(getattr(maps.findings, field).mean())
    return scores | coverage(model, case, maps) | _score_attention(model, case, maps)


def _score_voxels(
    model: Trained, case: Prepared, maps: CaseMaps, judged: Judged
) -> dict[tuple[str, str], float]:
    assert maps.voxels is not None
    probability = maps.voxels.probability
    raw = probability.numpy()
    scaled = apply_temperature(probability[None], model.calibration.temperature)[0].numpy()
    reference = np.asarray(case.segmentation)
    uncertainty = {
        name: getattr(maps.voxels, field).numpy() for name, field in UNCERTAINTIES.items()
    }
    spacing, rules = case.spacing_mm, Rules(bins=model.config.evaluate.bins)
    regions = model.task.regions
    scores = score_segmentation(
        raw, reference, regions=regions, spacing_mm=spacing, uncertainty=uncertainty, rules=rules
    )
    again = score_calibration(scaled, reference, regions=regions, spacing_mm=spacing, rules=rules)
    scores |= {(f"{metric}_scaled", label): value for (metric, label), value in again.items()}
    if len(next(iter(maps.draw_volumes_ml.values()), ())) > 1:
        scores["uncertainty/disagreement", ALL] = maps.disagreement
    scores["uncertainty/structure", ALL] = maps.structure_entropy(regions)
    trust = scores.get((RANKED[model.calibration.ranked_by], ALL))
    if trust is not None:
        scores["uncertainty/trust", ALL] = trust
        line = from_record(model.calibration.expected_dice)
        if line is not None:
            scores["expected_dice_error", MEAN] = abs(line.at(trust) - scores["dice", MEAN])
    for name, p in (("raw", raw), ("scaled", scaled)):
        judged.tallies[name].append(
            tally_segmentation(p, reference, spacing_mm=spacing, rules=rules)
        )
    return scores


def _score_attention(
    model: Trained, case: Prepared, maps: CaseMaps
) -> dict[tuple[str, str], float]:
    """Localization of the composite map, on the patients nobody aligned it to; none ungated."""
    if not getattr(model.network, "gated", False):
        return {}
    names = ("segmentation" if model.task.classes else "anatomy", *model.task.findings)
    scores: dict[tuple[str, str], float] = {}
    for row, target in expert_masks(case):
        if not target.any():
            continue
        found = localization.score(
            maps.attention[row].numpy(),
            target,
            spacing_mm=case.spacing_mm,
            threshold=model.calibration.attention_threshold,
        )
        scores |= {(f"attention/{m}", names[row]): v for m, v in found.items()}
    return scores


def _posterior(model: Trained) -> dict[str, Any]:
    """Whether the posterior is more than decoration: per layer, and by its width."""
    return {
        "kind": model.config.bayes.posterior,
        "width": model.calibration.posterior_width,
        "tempering": model.calibration.tempering,
        "layers": [asdict(each) for each in diagnostics(model.network)],
    }
