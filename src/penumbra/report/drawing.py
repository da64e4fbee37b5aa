"""How every figure looks: vector, readable on a phone, and right in a light and in a dark page.

Figures are drawn once with stand-in colors; in the page each becomes a CSS variable, so that one
drawing serves both themes.
"""

import io
import re
from collections.abc import Callable

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID, PANEL = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0a000{i}" for i in range(1, 9))
MARKERS = "osD^vPX*"
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PANEL: "panel"} | {
    color: f"s{i}" for i, color in enumerate(SERIES, start=1)
}
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


WIDTH = 4.4  # inches; about as wide as a phone, so that text keeps its size there


def draw(
    title: str, paint: Callable[[Axes], None], *, height: float = 2.1, left: float = 0.62
) -> Markup:
    """An inline ``<svg>`` of one pair of axes; the same call gives the same text.

    Args:
        paint: draws into the axes; what it labels goes into a legend below them.
        height: of the axes alone, in inches.
        left: room for the labels of the y axis, in inches.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure()
        axes = figure.add_subplot()
        axes.set_title(title[:1].upper() + title[1:])
        paint(axes)
        named = len(axes.get_legend_handles_labels()[1])
        top, bottom = 0.32, 0.48 + 0.2 * ((named + 1) // 2)
        total = top + height + bottom
        figure.set_size_inches(WIDTH, total)
        axes.set_position((left / WIDTH, bottom / total, 1 - (left + 0.22) / WIDTH, height / total))
        if named:
            axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.4 / height), ncols=2)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    for color, name in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{name})")
    label = str(Markup.escape(title))
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))
