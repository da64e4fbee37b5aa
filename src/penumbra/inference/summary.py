"""One case's prediction in figures and words: the content of ``<case>.json``."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from penumbra.bayes.mahalanobis import Strangeness
from penumbra.data.preprocess import Prepared
from penumbra.evaluate.expected import from_record
from penumbra.evaluate.selective import aggregate
from penumbra.inference.decision import Signs, decide
from penumbra.inference.maps import CaseMaps
from penumbra.inference.promises import LEVEL, finding_set, volume_interval
from penumbra.inference.records import NOTE, SCHEMA
from penumbra.trained import Trained


def summarize(
    maps: CaseMaps,
    case: Prepared,
    model: Trained,
    labels: Integer[np.ndarray, "*space"] | None,
    strangeness: Strangeness | None = None,
) -> dict[str, Any]:
    """Volumes with credible intervals, findings, uncertainty and the decision, ready for JSON.

    ``labels`` is the published segmentation on the prepared grid. Nothing in it names the patient
    beyond the file name of the scan.
    """
    signs = replace(_signs(maps, case, model, labels), strangeness=strangeness)
    trust = _trust(signs, model)
    return {
        "schema": SCHEMA,
        "case": case.id,
        "decision": decide(signs, model.calibration).record(),
        **({"findings": _findings(maps, model)} if maps.findings is not None else {}),
        **(_segmentation(maps, signs, model) if labels is not None else {}),
        **trust,
        "trust": _words(trust),
        "missing_channels": list(case.missing),
        "notes": list(case.notes),
        "task": {
            "modality": model.task.modality,
            "channels": list(model.task.channels),
            "classes": list(model.task.classes),
            "regions": {name: list(members) for name, members in model.task.regions.items()},
            "findings": list(model.task.findings),
        },
        "model": {"name": model.config.name, **model.provenance},
        "note": NOTE,
    }


def credible(draws: Float[np.ndarray, " t"], *, level: float = LEVEL) -> dict[str, float]:
    """Mean of a quantity over posterior draws and its central ``level`` credible interval.

    With T draws the interval cannot resolve tails beyond 1/T; T stands beside it as ``draws``.

    Example:
        >>> credible(np.array([1.0, 2.0, 3.0]), level=0.5)
        {'mean': 2.0, 'low': 1.5, 'high': 2.5, 'level': 0.5, 'draws': 3}
    """
    tail = (1 - level) / 2
    return {
        "mean": float(draws.mean()),
        "low": float(np.quantile(draws, tail)),
        "high": float(np.quantile(draws, 1 - tail)),
        "level": level,
        "draws": len(draws),
    }


def _segmentation(maps: CaseMaps, signs: Signs, model: Trained) -> dict[str, Any]:
    return {
        "volumes_ml": {
            name: credible(draws) | _promised(draws, name, model)
            for name, draws in maps.draw_volumes_ml.items()
        },
        "uncertainty": signs.uncertainty,
        "disagreement_between_draws": maps.disagreement,
    }


def _trust(signs: Signs, model: Trained) -> dict[str, Any]:
    """Expected Dice and strangeness, each where the model folder can tell."""
    trust: dict[str, Any] = {}
    score, line = signs.score(model.calibration), from_record(model.calibration.expected_dice)
    if line is not None and score is not None:
        trust["expected_dice"] = line.of(score)
    if signs.strangeness is not None:
        p_value = signs.strangeness.p_value
        trust["out_of_distribution"] = {**asdict(signs.strangeness), "p_value": p_value}
    return trust


def _words(trust: Mapping[str, Any]) -> list[str]:
    words = []
    if "expected_dice" in trust:
        expected = trust["expected_dice"]
        words.append(
            f"expected Dice {expected['value']:.2f}, on average {expected['error']:.2f} off on "
            f"{expected['cases']} validation cases"
        )
    if "out_of_distribution" in trust:
        strange = trust["out_of_distribution"]
        words.append(
            f"farther from the training scans ({strange['distance']:.2f}) than "
            f"{strange['nearer']} of {strange['scans']} validation scans"
        )
    return words


def _promised(draws: Float[np.ndarray, " t"], region: str, model: Trained) -> dict[str, Any]:
    found = volume_interval(draws, region, model.calibration)
    if found is None:
        return {}
    return {"conformal": {"low": found[0], "high": found[1], "level": LEVEL}}


def _findings(maps: CaseMaps, model: Trained) -> Mapping[str, Any]:
    assert maps.findings is not None
    probability = maps.findings.probability
    return {
        name: {
            "probability": float(probability[k]),
            "present": bool(probability[k] >= model.calibration.thresholds.get(name, 0.5)),
            "epistemic": float(maps.findings.epistemic[k]),
            "aleatoric": float(maps.findings.aleatoric[k]),
            "not_excluded": finding_set(float(probability[k]), name, model.calibration),
        }
        for k, name in enumerate(model.task.findings)
    }


def _signs(
    maps: CaseMaps, case: Prepared, model: Trained, labels: Integer[np.ndarray, "*space"] | None
) -> Signs:
    uncertainty = None
    if maps.voxels is not None and labels is not None:
        uncertainty = aggregate(maps.voxels.epistemic.numpy(), labels, how="region")
    spreads = {}
    if maps.findings is not None:
        for k, name in enumerate(model.task.findings):
            spread = float(np.sqrt(max(float(maps.findings.epistemic[k]), 0.0)))
            spreads[name] = (float(maps.findings.probability[k]), spread)
    return Signs(
        uncertainty=uncertainty,
        disagreement=maps.disagreement,
        entropy=0.0 if maps.voxels is None else float(maps.voxels.entropy_nats.mean()),
        structure=maps.structure_entropy(model.task.regions),
        empty=labels is not None and not (labels > 0).any(),
        findings=spreads,
        missing=case.missing,
        channels=len(model.task.channels),
        notes=case.notes,
    )
