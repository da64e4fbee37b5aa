"""An explanation on one page: what was stated, where the evidence lies, how sure the map is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from penumbra.attend.scale import LEAST, color_range, flat
from penumbra.augment import slice_to_display
from penumbra.data.picture import aspect_of, axial, data_url
from penumbra.data.preprocess import Prepared
from penumbra.files import write_text
from penumbra.inference.explain import CAMS, Explanation
from penumbra.inference.levels import level_name
from penumbra.inference.overlay import ATTENTION, DOUBT, STEPS, overlay, swatch
from penumbra.inference.page import channel_name, shown_channel
from penumbra.pages import render
from penumbra.trained import Trained

TITLES = {
    "attention": "Attention",
    "modulated": "Attention, dimmed by its uncertainty",
    "grad_cam": "Grad-CAM",
    "grad_cam_pp": "Grad-CAM++",
    "integrated_gradients": "Integrated gradients",
    "smooth_grad": "SmoothGrad",
    "occlusion": "Occlusion",
    "centre_prior": "Center prior",
    "organ_prior": "Body prior",
}
NOTES = {
    "attention": "what the gates let through; hatched where it is uncertain",
    "modulated": "fainter where the posterior does not know",
    "centre_prior": "looks at no network",
    "organ_prior": "looks at no network",
}
TOP = 2.0
"""Uncertainty over its reference that gets full color; the same on every page."""

OPEN = 4
"""Structures that are shown at once, the most probable first; the others are to open."""

BARS_MM = (100, 50, 20, 10)
"""Lengths of the scale bar; the longest that takes at most 40 % of the picture."""


def write_explained(
    path: Path, record: Mapping[str, Any], found: Explanation, case: Prepared, model: Trained
) -> Path:
    """Write one self-contained page; nothing is fetched when it is opened."""
    context = {
        "record": record,
        "structures": sorted(
            (_structure(found, k, case, model) for k in range(len(found.names))),
            key=lambda each: -float(each["probability"] or 2),
        ),
        "open": OPEN,
        "channel": channel_name(model.task.channels, case),
        "swatches": [(share, data_url(swatch(share))) for share in STEPS],
        "least": f"{LEAST:g}",
        "threshold": f"{model.calibration.attention_threshold:.2f}",
        "attention": _css(ATTENTION),
        "doubt": _css(DOUBT),
    }
    write_text(path, render("inference", "explanation.html.j2", context))
    return path


def over_reference(found: Explanation) -> Float[np.ndarray, "m *space"]:
    """Uncertainty of the attention as a multiple of its reference."""
    reference = np.reshape(found.u_ref, (-1, *[1] * (found.uncertainty.ndim - 1)))
    return (found.uncertainty.numpy() / reference).astype(np.float32)


def _structure(found: Explanation, k: int, case: Prepared, model: Trained) -> dict[str, Any]:
    first = next(iter(found.maps.values()))[k].numpy()
    at = None if first.ndim == 2 else _telling(first, np.asarray(case.body))
    there = shown_channel(model.task.channels, case)
    settings, aspect = model.config, aspect_of(case.spacing_mm)
    gray = slice_to_display(
        axial(case.image[there], at),
        modality=settings.modality,
        window_hu=settings.data.window_hu,
    )
    doubt = axial(over_reference(found)[k], at)

    def panel(title: str, picture: UInt8[np.ndarray, "h w 3"], **more: str) -> dict[str, str]:
        return {"title": title, "note": "", "low": "", "high": "", "png": data_url(picture)} | more

    plain = np.zeros_like(gray)
    panels = [panel("Image", overlay(gray, plain, None, scale=(0.0, 1.0), aspect=aspect))]
    for method, maps in found.maps.items():
        shown, ours = maps[k].numpy(), method == "attention"
        scale = color_range([shown])
        picture = overlay(
            gray,
            axial(shown, at),
            doubt if ours else None,
            scale=scale,
            outline=model.calibration.attention_threshold if ours else None,
            aspect=aspect,
        )
        low, high = (f"{end:.2g}" for end in scale)
        cells = f"reads {level_name(model.network, found.level)}"
        note = flat(shown) or (cells if method in CAMS else NOTES.get(method, ""))
        panels.append(panel(TITLES[method], picture, note=note, low=low, high=high, color="a"))
        if ours:
            picture = overlay(gray, doubt, None, scale=(0.0, TOP), color=DOUBT, aspect=aspect)
            of = "the voxel's class" if found.rows[k] == 0 else "the map"
            note = f"variance of {of} between posterior draws"
            more = {"low": "0", "high": f"{TOP:g} references or more", "color": "d"}
            panels.append(panel("Epistemic uncertainty", picture, note=note, **more))
    if found.relevance is not None:
        shown = found.relevance[k].numpy()
        picture = overlay(gray, axial(shown, at), None, scale=(0.0, 1.0), aspect=aspect)
        note = "share of validation regions shown alike that experts had marked"
        note += f"; here at most {float(shown.max()):.2f}"
        more = {"note": note, "low": "0", "high": "1", "color": "a"}
        panels.insert(2, panel("How often this was right", picture, **more))
    stated = dict(zip(model.task.findings, found.findings, strict=True)).get(found.names[k])
    return {
        "name": found.names[k],
        "probability": None if stated is None else f"{stated:.2f}",
        "u_ref": f"{found.u_ref[k]:.2g}",
        "unsure": f"{100 * float((doubt >= STEPS[0]).mean()):.0f}",
        "slice": at,
        "bar": None if at is None else _bar(gray.shape[1] * case.spacing_mm[0]),
        "panels": panels,
    }


def _telling(shown: Float[np.ndarray, "x y z"], body: Bool[np.ndarray, "x y z"]) -> int:
    """The slice whose most striking two hundredths of the body stand out most."""
    inside = np.where(body, shown, shown.min())
    return int(np.quantile(inside, 0.98, axis=(0, 1)).argmax())


def _bar(width_mm: float) -> tuple[int, str] | None:
    """Length in mm of the scale bar and its share of the width in %."""
    fits = [mm for mm in BARS_MM if mm <= 0.4 * width_mm]
    return (fits[0], f"{100 * fits[0] / width_mm:.1f}") if fits else None


def _css(color: tuple[int, int, int]) -> str:
    return f"rgb{color}"
