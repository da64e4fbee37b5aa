"""Scans in, explanation maps out in each scan's own grid, with one page that shows them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penumbra import progress, trained
from penumbra.augment import to_display
from penumbra.bayes import bank
from penumbra.data.preprocess import Prepared, prepare
from penumbra.files import write_text
from penumbra.inference.channels import case_of
from penumbra.inference.explain import Explainer, Explanation, explain_case
from penumbra.inference.files import write_map
from penumbra.inference.overlay import STEPS, data_url, overlay, ramp, swatch
from penumbra.inference.page import render
from penumbra.trained import Trained

TITLES: dict[Explainer, str] = {
    "attention": "attention: what the gates let through",
    "modulated": "attention, dimmed by its uncertainty",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "integrated_gradients": "integrated gradients",
    "smooth_grad": "SmoothGrad",
    "occlusion": "occlusion",
    "centre_prior": "center prior: looks at no network",
    "organ_prior": "body prior: looks at no network",
}


def explain_scan(
    run: Path,
    scan: Path,
    out: Path,
    *,
    methods: Sequence[Explainer],
    draws: int | None = None,
) -> list[Path]:
    """Explain one scan with several methods; returns the files written.

    Per method ``<case>_<method>`` and once ``<case>_doubt`` (uncertainty of the attention as a
    share of its reference, cut at 1): NIfTI for volumes, PNG for radiographs, one map for the
    segmentation's foreground and one per finding. ``<case>_explanation.json`` says what each map
    is; ``<case>_explanation.html`` shows them. Slice-wise networks scale post-hoc maps per slice.

    Raises:
        DataError: no model in ``run``, or the scan does not fit it.
        ConfigError: the model has no gates.
    """
    model = trained.load(run)
    prepared = prepare(case_of(scan, model.task), model.task, model.config.data)
    generator = torch.Generator().manual_seed(model.config.seed)
    count = draws or model.config.evaluate.fixed_draws
    posterior = bank(model.network, draws=count, generator=generator)
    with progress.bar("explain", 1) as advance:
        found = explain_case(model, posterior, prepared, methods=methods)
        advance(prepared.id)
    return write_explanation(found, prepared, model, out)


def write_explanation(found: Explanation, case: Prepared, model: Trained, out: Path) -> list[Path]:
    """Write maps, record and page of one case."""
    out.mkdir(parents=True, exist_ok=True)
    doubt = _over_reference(found).clip(0, 1)
    arrays = {str(method): maps.numpy() for method, maps in found.maps.items()} | {"doubt": doubt}
    files = {
        name: write_map(out, f"{case.id}_{name}", array, case.geometry)
        for name, array in arrays.items()
    }
    record = {
        "case": case.id,
        "model": model.config.name,
        "maps": list(found.names),
        "u_ref": dict(zip(found.names, found.u_ref, strict=True)),
        "kappa": model.config.attention.kappa,
        "files": {name: [path.name for path in paths] for name, paths in files.items()},
    }
    listing, page = out / f"{case.id}_explanation.json", out / f"{case.id}_explanation.html"
    write_text(listing, json.dumps(record, indent=1))
    context = {
        "record": record,
        "structures": [_structure(found, k, case, model) for k in range(len(found.names))],
        "ramp": data_url(ramp()),
        "swatches": [(share, data_url(swatch(share))) for share in STEPS],
    }
    write_text(page, render("explanation.html.j2", context))
    return [*(path for paths in files.values() for path in paths), listing, page]


def _structure(found: Explanation, k: int, case: Prepared, model: Trained) -> dict[str, Any]:
    """One structure's pictures: the image alone, then every method at its own scale."""
    doubt = _over_reference(found)[k]
    first = next(iter(found.maps.values()))[k].numpy()
    at = None if first.ndim == 2 else int(np.argmax(first.sum((0, 1))))
    image = torch.from_numpy(np.array(_cut(case.image[0], at), np.float32))[None, None]
    settings = model.config
    display = to_display(image, modality=settings.modality, window_hu=settings.data.window_hu)
    gray, unsure = display[0, 0].numpy(), _cut(doubt, at)
    spacing = case.spacing_mm
    aspect = spacing[1] / spacing[0] if len(spacing) == 3 else spacing[0] / spacing[1]
    plain = overlay(gray, np.zeros_like(gray), None, scale=(0.0, 1.0), aspect=aspect)
    panels = [{"title": "image", "png": data_url(plain), "low": "", "high": ""}]
    for method, maps in found.maps.items():
        shown = _cut(maps[k].numpy(), at)
        low, high = float(shown.min()), float(shown.max())
        hatched = unsure if method == "attention" else None
        picture = overlay(gray, shown, hatched, scale=(low, high), aspect=aspect)
        panel = {"title": TITLES[method], "png": data_url(picture)}
        panels.append(panel | {"low": f"{low:.3g}", "high": f"{high:.3g}"})
    return {
        "name": found.names[k],
        "u_ref": f"{found.u_ref[k]:.2g}",
        "unsure": f"{100 * float((unsure >= STEPS[0]).mean()):.0f}",
        "slice": at,
        "panels": panels,
    }


def _over_reference(found: Explanation) -> np.ndarray:
    reference = np.reshape(found.u_ref, (-1, *[1] * (found.uncertainty.ndim - 1)))
    return (found.uncertainty.numpy() / reference).astype(np.float32)


def _cut(array: np.ndarray, at: int | None) -> np.ndarray:
    """Anterior up, the patient's right on the left."""
    return np.asarray(array) if at is None else np.asarray(array[::-1, ::-1, at]).T
