"""One picture and one short page of how a model holds out: accuracy against eps and severity."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from penumbra.files import atomic, write_text
from penumbra.pages import render
from penumbra.report.words import spell

Record = Mapping[str, Any]
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#8B4513")
"""Okabe and Ito 2008, told apart by color-blind readers too."""
MARKERS = "osD^vPX*h"
"""One more than colors, so that no two of many curves look alike."""


def write_robustness(folder: Path, record: Record) -> list[Path]:
    """Write ``robustness.svg``, ``robustness.png`` and ``robustness.html`` of a record."""
    figure = picture(record)
    with matplotlib.rc_context({"svg.hashsalt": "penumbra", "svg.fonttype": "none"}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    write_text(folder / "robustness.svg", svg)
    with atomic(folder / "robustness.png") as part:
        figure.savefig(part, format="png", dpi=150)
    first = record["rows"][0]
    context = {
        **record,
        "spell": spell,
        "number": lambda x: "-" if x is None else f"{x:.3f}",
        "picture": Markup(svg[svg.index("<svg") :]),
        "clean": f"{spell(first['metric'])} {first['value']:.3f}",
        "n": first["n"],
    }
    write_text(folder / "robustness.html", render("report", "robustness.html.j2", context))
    return [folder / f"robustness.{kind}" for kind in ("html", "svg", "png")]


def picture(record: Record) -> Figure:
    """The task's figure against eps, and against severity with seen and held-out families apart."""
    metric = record["rows"][0]["metric"]
    points = [p for p in record["series"] if p["metric"] == metric and p["value"] is not None]
    clean = next((p["value"] for p in points if p.get("family") == "clean"), None)
    attacks = [p for p in points if "attack" in p]
    shifts = [p for p in points if "family" in p and p["family"] != "clean"]
    panels = [(attacks, "attack"), (shifts, "family")]
    panels = [(found, key) for found, key in panels if found]
    figure = Figure(figsize=(5.2 * max(1, len(panels)), 4.6), layout="constrained")
    for place, (found, key) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        _curves(axes, found, key, clean)
        axes.set_ylabel(f"{spell(metric)}")
    return figure


def _curves(axes: Axes, points: Sequence[Record], key: str, clean: float | None) -> None:
    attack = key == "attack"
    names = list(dict.fromkeys(p[key] for p in points))
    for i, name in enumerate(names):
        mine = sorted((p["level"], p["value"]) for p in points if p[key] == name)
        if attack and clean is not None:
            mine = [(0.0, clean), *mine]
        new = not attack and not next(p["seen"] for p in points if p[key] == name)
        worst = name == "worst"
        axes.plot(
            *zip(*mine, strict=True),
            label=f"{spell(name)}{' (held out)' if new else ''}",
            color="#000000" if worst else COLORS[i % len(COLORS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=4.5,
            linewidth=2.4 if worst else 1.4,
            linestyle="--" if new else "-",
        )
    if clean is not None and not attack:
        axes.axhline(clean, color="#000000", linewidth=1, linestyle=":", label="clean")
    axes.set(
        title="Under attack" if attack else "Under acquisition shifts",
        xlabel="eps, in 255ths of the display range" if attack else "severity",
        ylim=(0, 1),
    )
    levels = sorted({0.0 if attack else min(p["level"] for p in points)} | _levels(points))
    axes.set_xticks(levels, [f"{255 * x:.3g}" if attack else f"{x:g}" for x in levels])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _levels(points: Iterable[Record]) -> set[float]:
    return {float(p["level"]) for p in points}
