"""From a map's values to its colors: what hardly varies must not look structured."""

from collections.abc import Iterable

import matplotlib
import numpy as np
from jaxtyping import Float

COLORMAPS = {"epistemic": "magma", "aleatoric": "viridis", "attention": "cividis"}
"""One perceptually even, color-blind-safe map per meaning."""

EXPLAINED = {
    "epistemic": "what more training data could settle",
    "aleatoric": "what the scan itself leaves open",
    "attention": "where the gates let features through",
}

STRUCTURES = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
"""Of outlines; Okabe and Ito 2008, told apart by color-blind readers too, those first that stand
out on gray. More classes than colors are numbered as well."""

LEAST = 0.1
"""Smallest range that the colors of a map in [0, 1] may span; a map that varies less is flat."""

Range = tuple[float, float]


def color_range(maps: Iterable[Float[np.ndarray, "*_"]], *, robust: float = 0.0) -> Range:
    """The values of no and of full color: the maps' own extremes, at least ``LEAST`` apart.

    A range that is too small grows upward, so that a flat map stays nearly without color.

    Args:
        robust: percent of the values at either end that may lie beyond the range; NaN do not count.

    Raises:
        ValueError: there are no maps.

    Example:
        >>> color_range([np.array([0.48, 0.52])])
        (0.48, 0.58)
    """
    ends = [np.nanpercentile(each, [robust, 100 - robust]) for each in maps]
    if not ends:
        raise ValueError("no maps: there are no colors to choose")
    low, high = min(float(e[0]) for e in ends), max(float(e[1]) for e in ends)
    low = min(low, 1 - LEAST) if high <= 1 else low
    return low, max(high, round(low + LEAST, 9))


def gradient(name: str) -> str:
    """The color map of ``name`` as the stops of a CSS gradient, no color first."""
    stops = matplotlib.colormaps[COLORMAPS[name]](np.linspace(0, 1, 9))
    return ", ".join(matplotlib.colors.to_hex(stop) for stop in stops)


def flat(values: Float[np.ndarray, "*_"]) -> str:
    """What a legend says of a map that varies by less than ``LEAST``; nothing of any other.

    Example:
        >>> flat(np.array([0.48, 0.52])), flat(np.array([0.0, 1.0]))
        ('nearly flat, 0.48 to 0.52: points nowhere', '')
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if high - low >= LEAST:
        return ""
    return f"nearly flat, {low:.2f} to {high:.2f}: points nowhere"
