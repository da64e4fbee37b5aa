"""The study's figures, each from the same lines as its table."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from penumbra.files import atomic

Line = dict[str, Any]
MARKERS = "os^Dv<>PX*"
PASTEL = 0.3
"""Opacity of grids and of the raw value beside the rescaled one."""


def label_curve(lines: Sequence[Line], path: Path) -> Path:
    """A metric against the share of labels, one line per arm with several, 95 % intervals."""
    arms = [a for a in _arms(lines) if len({x["fraction"] for x in lines if x["arm"] == a}) > 1]
    arms = arms or _arms(lines)
    ticks = sorted({100 * line["fraction"] for line in lines})

    def draw(axes: Axes) -> None:
        for k, arm in enumerate(arms):
            mine = sorted((x for x in lines if x["arm"] == arm), key=lambda x: x["fraction"])
            shift = 1 + 0.03 * (k - (len(arms) - 1) / 2)  # intervals side by side
            _bars(axes, [100 * x["fraction"] * shift for x in mine], mine, k, arm)
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("labelled training patients, %")
        axes.set_ylabel(lines[0]["metric"])
        axes.legend(fontsize=7, ncols=2)

    return _save(draw, path)


def attack_curve(lines: Sequence[Line], path: Path) -> Path:
    """A metric against the radius of an attack, one line per arm; radius 0 is the clean image."""
    arms = _arms(lines)

    def draw(axes: Axes) -> None:
        for k, arm in enumerate(arms):
            mine = sorted((x for x in lines if x["arm"] == arm), key=lambda x: x["level"])
            shift = 0.06 * (k - (len(arms) - 1) / 2)
            _bars(axes, [255 * x["level"] + shift for x in mine], mine, k, arm)
        axes.set_xlabel("radius of the attack, in 1/255 of the display range")
        axes.set_ylabel(lines[0]["metric"])
        axes.legend(fontsize=7, ncols=2)

    return _save(draw, path)


def dots(lines: Sequence[Line], path: Path, *, groups: str, xlabel: str) -> Path:
    """One row per value of ``groups``, one dot per arm with its interval."""
    names, arms = list(dict.fromkeys(x[groups] for x in lines)), _arms(lines)

    def draw(axes: Axes) -> None:
        for k, arm in enumerate(arms):
            mine = [x for x in lines if x["arm"] == arm]
            heights = [names.index(x[groups]) + 0.7 * ((k + 0.5) / len(arms) - 0.5) for x in mine]
            below, above = _spans(mine)
            axes.errorbar(
                [x["value"] for x in mine],
                heights,
                xerr=[below, above],
                marker=MARKERS[k % len(MARKERS)],
                markersize=4,
                linestyle="none",
                capsize=2,
                linewidth=1,
                label=arm,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel(xlabel)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))

    return _save(draw, path, height=1.6 + 0.09 * len(names) * (len(arms) + 2))


def verdict_forest(verdicts: Sequence[Line], path: Path) -> Path:
    """Effect and interval of every claim beside what it needs; undecided ones without a number."""

    def draw(axes: Axes) -> None:
        for k, claim in enumerate(verdicts):
            axes.plot([claim["threshold"]] * 2, [k - 0.3, k + 0.3], color="black", linewidth=2)
            if math.isnan(claim["effect"]):
                axes.annotate(
                    "not run",
                    (claim["threshold"], k),
                    xytext=(6, -3),
                    fontsize=8,
                    textcoords="offset points",
                )
                continue
            below, above = _spans([claim | {"value": claim["effect"]}])
            axes.errorbar([claim["effect"]], [k], xerr=[below, above], marker="o", capsize=3)
        names = [f"{claim['claim']}\n{claim['verdict']}" for claim in verdicts]
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.axvline(0, color="gray", linewidth=0.8)
        axes.set_xlabel("relative gain with its 95 % interval; black bar: what the claim needs")

    return _save(draw, path, height=3.2)


def _arms(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line["arm"] for line in lines))


def _bars(axes: Axes, places: list[float], mine: Sequence[Line], k: int, arm: str) -> None:
    axes.errorbar(
        places,
        [x["value"] for x in mine],
        yerr=_spans(mine),
        marker=MARKERS[k % len(MARKERS)],
        markersize=4,
        capsize=2,
        linewidth=1.2,
        label=arm,
    )


def _spans(mine: Sequence[Line]) -> tuple[list[float], list[float]]:
    """Lengths of the intervals below and above; none where none is known."""
    pairs = [(x["value"] - x["low"], x["high"] - x["value"]) for x in mine]
    known = [(max(0.0, a), max(0.0, b)) if not math.isnan(a + b) else (0.0, 0.0) for a, b in pairs]
    return [a for a, _ in known], [b for _, b in known]


def _save(draw: Callable[[Axes], None], path: Path, *, height: float = 4.0) -> Path:
    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(alpha=PASTEL)
        draw(axes)
        with atomic(path) as part:
            figure.savefig(part, format="svg", metadata={"Date": None})
    return path
