"""The figures of a report: plain numbers in, one inline SVG per pair of axes out."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from penumbra.report.drawing import INK, MARKERS, MUTED, PANEL, SERIES, draw
from penumbra.report.words import spell

Rows = Sequence[Mapping[str, Any]]
MOST_POINTS = 200


def reliability(curve: Mapping[str, Sequence[float]], *, title: str) -> Markup:
    """Accuracy against confidence per bin; marker area and the bars below follow the bin's count.

    The shaded gap to the diagonal, weighted by count, is the expected calibration error.
    """
    confidence, accuracy, count = (
        np.array(curve[name], float) for name in ("confidence", "accuracy", "count")
    )
    keep = (count > 0) & np.isfinite(confidence) & np.isfinite(accuracy)
    confidence, accuracy, count = confidence[keep], accuracy[keep], count[keep]
    share = count / count.sum() if count.size else count

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.fill_between(
            confidence, confidence, accuracy, color=SERIES[0], alpha=0.18, linewidth=0
        )
        axes.bar(confidence, 0.16 * share / max(share, default=1), 0.03, color=MUTED, alpha=0.35)
        axes.plot(confidence, accuracy, color=SERIES[0])
        axes.scatter(
            confidence, accuracy, 12 + 90 * np.sqrt(share), color=SERIES[0], edgecolor=PANEL
        )
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")

    return draw(title, paint)


def risk_coverage(
    curves: Mapping[str, Sequence[float]], *, target: float | None, accepted: float | None
) -> Markup:
    """Error of the cases that are kept, against the share kept, most certain first."""
    coverage = np.array(curves["coverage"], float)

    def paint(axes: Axes) -> None:
        lines = [
            ("risk", "by uncertainty", SERIES[0], "-"),
            ("oracle", "by true error (best possible)", SERIES[2], "--"),
            ("random", "at random", SERIES[1], ":"),
        ]
        for name, label, color, style in lines:
            if name in curves:
                axes.plot(coverage, curves[name], style, color=color, label=label)
        if target is not None:
            axes.axhline(target, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        if accepted is not None:
            axes.axvspan(accepted, 1, color=MUTED, alpha=0.14, linewidth=0)
            axes.text(
                (accepted + 1) / 2,
                0.05,
                "to review",
                ha="center",
                color=MUTED,
                transform=axes.get_xaxis_transform(),
            )
        axes.set(xlim=(0, 1), xlabel="coverage: share kept", ylabel="mean risk of the kept")
        axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
        axes.xaxis.set_major_formatter(PercentFormatter(1))

    return draw("Risk against coverage", paint)


def robustness(rows: Rows) -> list[Markup]:
    """One figure per kind of disturbance and metric: its value against the level."""

    def kind(row: Mapping[str, Any]) -> tuple[str, str]:
        return ("attack" if row.get("attack") else "family"), str(row["metric"])

    measured = [row for row in rows if row.get("value") is not None]
    clean = {str(row["metric"]): float(row["value"]) for row in measured if _is_clean(row)}
    disturbed = sorted((row for row in measured if not _is_clean(row)), key=kind)
    figures = []
    for (what, metric), group in groupby(disturbed, key=kind):
        title = f"{spell(metric)} under {'attack' if what == 'attack' else 'shift'}"
        figures.append(_families(list(group), what, title, clean.get(metric)))
    return figures


def _is_clean(row: Mapping[str, Any]) -> bool:
    return row.get("family") == "clean"


def _families(rows: Rows, what: str, title: str, clean: float | None) -> Markup:
    families = list(dict.fromkeys(str(row[what]) for row in rows))
    levels = sorted({float(row["level"]) for row in rows})

    def paint(axes: Axes) -> None:
        if clean is not None:
            axes.axhline(clean, color=INK, linewidth=1.1, linestyle=(0, (4, 3)), label="clean")
        for i, family in enumerate(families):
            points = sorted(
                (float(row["level"]), float(row["value"])) for row in rows if row[what] == family
            )
            (line,) = axes.plot(*zip(*points, strict=True), label=spell(family))
            line.set(color=SERIES[i % 8], marker=MARKERS[i % 8], markeredgecolor=PANEL)
            line.set_linestyle("-" if i < 8 else "--")
        axes.set(xlabel="radius in the display range" if what == "attack" else "severity")
        axes.set_xticks(levels, [_radius(x) if what == "attack" else f"{x:g}" for x in levels])
        if all(0 <= float(row["value"]) <= 1 for row in rows):
            axes.set_ylim(0, 1)

    return draw(title, paint)


def _radius(eps: float) -> str:
    """Attack radii are customarily counted in 255ths of the display range."""
    steps = 255 * eps
    return f"{steps:.0f}/255" if abs(steps - round(steps)) < 0.02 and steps else f"{eps:g}"


def training(log: Rows) -> list[Markup]:
    """Losses, what was watched beside them, gradient shares and validation scores, per stage."""
    figures = []
    for stage in dict.fromkeys(str(line.get("stage", "")) for line in log):
        lines = [line for line in log if str(line.get("stage", "")) == stage]
        panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        for key in sorted({key for line in lines for key in line}):
            panel, series = _panel(key), _series(lines, key) if _panel(key) else None
            if panel and series and series[0].size:
                panels.setdefault(panel, {})[key.partition("/")[2] or key] = series
        for panel in PANELS:
            if panel in panels:
                log_scale = panel == "losses"
                figures.append(_curves(panels[panel], f"{spell(stage)}: {panel}", log=log_scale))
    return figures


PANELS = (
    "losses",
    "accuracies",
    "representation",
    "probes",
    "shares of the gradient",
    "validation",
)


def _panel(key: str) -> str | None:
    """Where a logged scalar is drawn; the rest of the log stays in the log."""
    kind, _, name = key.partition("/")
    if kind == "val" and name.startswith(("knn/", "linear/", "chance/")):
        return "probes"  # balanced accuracies read from the frozen encoder
    if kind == "val":
        return None if name in ("score", "constant") or "/" in name else "validation"
    if kind == "share":
        return "shares of the gradient"
    if key == "total":
        return "losses"
    if kind != "loss":
        return None
    if name.endswith(("accuracy", "prior")):
        return "accuracies"
    return "representation" if name in MONITORS else "losses"


MONITORS = {"alignment", "uniformity", "effective_rank", "spread"}


def _series(lines: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    points = np.array(pairs, float).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > MOST_POINTS:  # means of equal stretches: the page stays small
        points = np.array([part.mean(axis=0) for part in np.array_split(points, MOST_POINTS)])
    return points[:, 0], points[:, 1]


def _curves(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str, *, log: bool
) -> Markup:
    positive = all((y > 0).all() for _, y in series.values())
    spread = max(y.max() for _, y in series.values()) / max(
        min(y.min() for _, y in series.values()), 1e-12
    )

    def paint(axes: Axes) -> None:
        for i, (name, (x, y)) in enumerate(series.items()):
            (line,) = axes.plot(x, y, label=spell(name))
            line.set(color=INK if name == "total" else SERIES[i % 8])
            line.set_marker(MARKERS[i % 8] if len(x) < 30 else "")
        if log and positive and spread > 30:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="step")

    return draw(title, paint)


def scores_by_group(groups: Mapping[str, Sequence[float]], *, metric: str, title: str) -> Markup:
    """Every case as a dot, per site; the bar is the median."""

    def paint(axes: Axes) -> None:
        for i, values in enumerate(groups.values()):
            offsets = ((np.arange(len(values)) * 0.618) % 1 - 0.5) * 0.5  # spread, without chance
            axes.scatter(values, i + offsets, 14, color=SERIES[0], alpha=0.75, edgecolor="none")
            axes.plot([np.median(values)] * 2, [i - 0.36, i + 0.36], color=INK, linewidth=2)
        axes.set_yticks(range(len(groups)), [f"{k} ({len(v)})" for k, v in groups.items()])
        axes.set(xlabel=spell(metric), ylim=(len(groups) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")

    return draw(title, paint, height=0.3 + 0.36 * len(groups), left=1.5)


def uncertainty_against_score(
    uncertainty: Sequence[float], score: Sequence[float], worst: Sequence[bool], *, metric: str
) -> Markup:
    """Each case's uncertainty against its score: useful uncertainty falls to the right."""
    x, y, flagged = np.array(score), np.array(uncertainty), np.array(worst, bool)

    def paint(axes: Axes) -> None:
        axes.scatter(x[~flagged], y[~flagged], 18, color=SERIES[0], label="case")
        axes.scatter(x[flagged], y[flagged], 26, color=SERIES[1], marker="D", label="worst cases")
        axes.set(xlabel=spell(metric), ylabel="case uncertainty", ylim=(0, 1.08 * y.max() or 1))

    return draw("Does uncertainty point to the failures?", paint, left=0.85)
