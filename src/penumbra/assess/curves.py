"""Reliability and risk-coverage curves as ``curves.json`` holds them."""

import numpy as np

from penumbra.evaluate import calibration, selective


def diagram(tally: calibration.Tally) -> dict[str, list[float]]:
    """The bins that hold a prediction."""
    curve = calibration.reliability(tally)
    filled = curve.mass > 0
    columns = {"confidence": curve.confidence, "accuracy": curve.accuracy, "count": curve.mass}
    return {name: column[filled].tolist() for name, column in columns.items()}


def risk_coverage(unsure: np.ndarray, risk: np.ndarray) -> dict[str, list[float]]:
    defined = ~(np.isnan(unsure) | np.isnan(risk))
    unsure, risk = unsure[defined], risk[defined]
    curve = selective.risk_coverage(unsure, risk)
    return {
        "coverage": curve.coverage.tolist(),
        "risk": curve.risk.tolist(),
        "oracle": selective.risk_coverage(risk, risk).risk.tolist(),
        "random": [float(risk.mean())] * len(risk),
    }
