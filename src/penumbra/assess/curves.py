"""What the report draws and lists, in the form in which a run folder keeps it."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from penumbra.evaluate import calibration, selective
from penumbra.evaluate.protocol import ALL, MEAN, CaseScores


def diagram(tally: calibration.Tally) -> dict[str, list[float]]:
    """A reliability diagram: the bins that hold a prediction."""
    curve = calibration.reliability(tally)
    filled = curve.mass > 0
    columns = {"confidence": curve.confidence, "accuracy": curve.accuracy, "count": curve.mass}
    return {name: column[filled].tolist() for name, column in columns.items()}


def risk_coverage(
    unsure: Float[np.ndarray, " n"], risk: Float[np.ndarray, " n"]
) -> dict[str, list[float]]:
    """The risk-coverage curve beside that of the perfect order and of none; empty without cases."""
    defined = ~(np.isnan(unsure) | np.isnan(risk))
    unsure, risk = unsure[defined], risk[defined]
    curve = selective.risk_coverage(unsure, risk)
    return {
        "coverage": curve.coverage.tolist(),
        "risk": curve.risk.tolist(),
        "oracle": selective.risk_coverage(risk, risk).risk.tolist(),
        "random": [float(risk.mean())] * len(risk) if len(risk) else [],
    }


def table_line(scored: CaseScores, *, part: str, site: str = "") -> dict[str, Any]:
    """A case's line of ``cases.csv``."""
    line: dict[str, Any] = {"case": scored.case, "patient": scored.patient}
    line |= {"site": site, "part": part}
    return line | {column(*key): value for key, value in scored.scores.items()}


def column(metric: str, label: str) -> str:
    """Name of a figure in ``cases.csv``."""
    return metric if label in (ALL, MEAN) else f"{metric}_{label}"


def table_text(table: Sequence[dict[str, Any]]) -> str:
    """A table as CSV: one column per name that any line has; no line, no text."""
    if not table:
        return ""
    columns = list(dict.fromkeys(name for line in table for name in line))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in line.items()} for line in table
    )
    return buffer.getvalue()
