"""Is the posterior more than decoration? What its widths scored, and how wide its layers are."""

from dataclasses import dataclass
from typing import Any

from penumbra.report.read import Tree
from penumbra.report.tables import number, show


@dataclass(frozen=True, slots=True)
class Sheet:
    """A plain table: a head and its rows."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Posterior:
    """What the page says of it: a sentence and two tables, either of which may be absent."""

    sentence: str
    widths: Sheet | None
    layers: Sheet | None


def posterior(metrics: Tree) -> Posterior | None:
    """The posterior of ``metrics.json``; none for a network without one."""
    found = metrics.get("posterior") or {}
    tempering, layers = found.get("tempering") or [], found.get("layers") or []
    if not tempering and not layers:
        return None
    return Posterior(_sentence(found, tempering), _widths(tempering), _layers(layers))


def _sentence(found: Tree, tempering: list[dict[str, Any]]) -> str:
    if not tempering:
        return ""
    by_width = {number(row["width"]): number(row["nll"]) for row in tempering}
    width = number(found.get("width"))
    gain = by_width.get(0.0, float("nan")) - by_width.get(width, float("nan"))
    if gain > 0:
        worth = f"draws lower the validation NLL of the mean weights by {show(gain)} nats"
    else:
        worth = (
            f"draws do not lower the validation NLL of the mean weights ({show(-gain)} nats above "
            "it): this posterior says where the model is unsure, but does not predict better"
        )
    return f"The posterior is used {width:g} times as wide as it was trained; {worth}."


def _widths(tempering: list[dict[str, Any]]) -> Sheet | None:
    if not tempering:
        return None
    names = ("nll", "temperature", "epistemic_share", "dice")
    rows = tuple(
        (
            f"{number(row['width']):g}" if row["width"] else "0 (mean weights)",
            *(show(number(row.get(name))) for name in names),
        )
        for row in tempering
    )
    head = ("width", "NLL, nats", "temperature", "epistemic share of the total", "Dice")
    return Sheet(head, rows)


def _layers(layers: list[dict[str, Any]]) -> Sheet | None:
    if not layers:
        return None
    rows = tuple(
        (
            str(row["name"]),
            f"{int(row['weights'])}",
            *(show(number(row[key])) for key in ("sigma_ratio", "snr", "kl_per_weight")),
        )
        for row in layers
    )
    head = ("layer", "weights", "sigma over its start", "median |mean| over sigma", "KL per weight")
    return Sheet(head, rows)
