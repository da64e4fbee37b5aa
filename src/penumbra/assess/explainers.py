"""Every explainer of one run on its annotated test patients: ``evaluation/explanations.json``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penumbra import trained
from penumbra.assess.attention import count_attention
from penumbra.assess.explanations import choose_levels, compare
from penumbra.assess.pictures import pictures
from penumbra.assess.sanity import STAGES, randomization
from penumbra.attend.reliability import calibration_error, merge, table
from penumbra.evaluate.protocol import SCHEMA, plain, summarise
from penumbra.files import write_text
from penumbra.ground import data_folder, prepare
from penumbra.inference.explain import CAMS, Explainer

RANDOMIZED = 4
"""Pictures on which weights are randomized: their maps are drawn once per stage."""


def judge_explainers(
    run: Path,
    methods: Sequence[Explainer],
    *,
    data: Path | None = None,
    level: int | None = None,
) -> Path:
    """Localization, faithfulness, randomization and reliability; thresholds are from validation.

    Args:
        level: that CAMs read; by default the one that finds validation masks best.

    Raises:
        DataError: no model in ``run``, or no validation or test case with an expert's mask.
    """
    model = trained.load(run)
    ground = prepare(model.config, data_folder(run, data), run)
    test, val = ground.parts["test"], ground.parts["val"]
    if level is None:
        levels = choose_levels(model, pictures(model, ground.store, val), methods)
    else:
        levels = {method: level for method in methods if method in CAMS}
    scores = compare(model, ground.store, test, methods, tuning=val, levels=levels)
    settings = model.config.evaluate
    rows = summarise(scores, part="test", samples=settings.bootstrap, seed=model.config.seed)
    record: dict[str, Any] = {"schema": SCHEMA, "rows": plain(rows)}
    judged = pictures(model, ground.store, test)[:RANDOMIZED]
    record["levels"] = levels
    alike = randomization(model, judged, methods, levels)
    record["randomized"] = {"stages": STAGES, "ssim": alike}
    record["reliability"] = {}
    shown = count_attention(model, ground.store, test)
    for name, by_patient in zip(("attention", "relevance"), shown, strict=True):
        counts = merge(by_patient.values())
        cells = [asdict(cell) for cell in table(counts)]
        record["reliability"][name] = {"error": calibration_error(counts), "cells": cells}
    path = run / "evaluation" / "explanations.json"
    write_text(path, json.dumps(record, indent=1))
    return path
