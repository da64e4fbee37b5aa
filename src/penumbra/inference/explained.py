"""Scans in, explanation maps out in each scan's own grid, with one page that shows them."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from penumbra import progress, trained
from penumbra.bayes import bank
from penumbra.data.preprocess import Prepared, prepare
from penumbra.files import write_text
from penumbra.inference.channels import case_of
from penumbra.inference.explain import Explainer, Explanation, explain_case
from penumbra.inference.explained_page import over_reference, write_explained
from penumbra.inference.files import write_map
from penumbra.trained import Trained


def explain_scan(
    run: Path,
    scan: Path,
    out: Path,
    *,
    methods: Sequence[Explainer],
    draws: int | None = None,
    level: int | None = None,
) -> list[Path]:
    """Explain one scan with several methods; returns the files written.

    Per method ``<case>_<method>``; once ``<case>_doubt`` (uncertainty of the attention as a share
    of its reference, cut at 1) and, where experts drew regions for the model's validation,
    ``<case>_relevance``: NIfTI for volumes, PNG for radiographs, one map for the segmentation's
    foreground and one per finding. ``<case>_explanation.json`` says what each map is;
    ``<case>_explanation.html`` shows them. Slice-wise networks scale post-hoc maps per slice.

    Args:
        level: whose features CAMs read (``inference.levels.levels_of``).

    Raises:
        DataError: no model in ``run``, or the scan does not fit it.
        ConfigError: the model has no gates, or no such level.
    """
    model = trained.load(run)
    prepared = prepare(case_of(scan, model.task), model.task, model.config.data)
    generator = torch.Generator().manual_seed(model.config.seed)
    count = draws or model.config.evaluate.fixed_draws
    posterior = bank(model.network, draws=count, generator=generator)
    with progress.bar("explain", 1) as advance:
        found = explain_case(model, posterior, prepared, methods=methods, level=level)
        advance(prepared.id)
    return write_explanation(found, prepared, model, out)


def write_explanation(found: Explanation, case: Prepared, model: Trained, out: Path) -> list[Path]:
    """Write maps, record and page of one case."""
    out.mkdir(parents=True, exist_ok=True)
    arrays = {str(method): maps.numpy() for method, maps in found.maps.items()}
    arrays["doubt"] = over_reference(found).clip(0, 1)
    if found.relevance is not None:
        arrays["relevance"] = found.relevance.numpy()
    files = {
        name: write_map(out, f"{case.id}_{name}", array, case.geometry)
        for name, array in arrays.items()
    }
    record = {
        "case": case.id,
        "model": model.config.name,
        "maps": list(found.names),
        "findings": dict(zip(model.task.findings, found.findings, strict=True)),
        "u_ref": dict(zip(found.names, found.u_ref, strict=True)),
        "kappa": model.config.attention.kappa,
        "level": found.level,
        "files": {name: [path.name for path in paths] for name, paths in files.items()},
    }
    listing = out / f"{case.id}_explanation.json"
    write_text(listing, json.dumps(record, indent=1))
    page = write_explained(out / f"{case.id}_explanation.html", record, found, case, model)
    return [*(path for paths in files.values() for path in paths), listing, page]
