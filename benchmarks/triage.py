"""Does the trust score send the right patients to review? AURC against two rivals, with intervals.

    python benchmarks/triage.py runs/study [--arm ours] [--fraction 1] [--ensemble seed-ensemble]
    python benchmarks/triage.py --run runs/lgg

Reads the finished rows of a study (or the cases of one run) and trains nothing. Every score ranks
the same patients by the same risk, 1 - mean Dice of the arm's own segmentation, so that rankings
alone are compared; AURC is averaged over the arm's seeds. Differences are paired: one draw of the
patients serves both scores. Coverage is that of the 90 % volume intervals.
"""

import argparse
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from penumbra.evaluate.selective import weighted_aurc
from penumbra.evaluate.statistics import bootstrap, interval, resamples
from penumbra.study.rows import read_row

TRUST = "uncertainty/disagreement"
RIVALS = {
    "mean softmax entropy, predicted region": "uncertainty/entropy/region",
    "mean softmax entropy, whole volume": "uncertainty/entropy/volume",
    "epistemic variance, predicted region": "uncertainty/epistemic/region",
}
Cases = dict[str, dict[str, Any]]


def of_study(folder: Path, arm: str, fraction: float) -> list[Cases]:
    """Test cases of every seed of an arm, by name."""
    rows = [
        read_row(path) for path in sorted((folder / "rows").glob(f"{arm}@{fraction:g}-s*.json"))
    ]
    return [_test_cases(row["cases"]) for row in rows]


def of_run(folder: Path) -> list[Cases]:
    with (folder / "cases.csv").open(newline="") as file:
        return [_test_cases(list(csv.DictReader(file)))]


def _test_cases(cases: list[dict[str, Any]]) -> Cases:
    return {str(case["case"]): case for case in cases if case.get("part", "test") == "test"}


def number(case: dict[str, Any], column: str) -> float:
    value = case.get(column)
    return math.nan if value in (None, "") else float(value)


def compare(scores: np.ndarray, rival: np.ndarray, risk: np.ndarray) -> tuple[Any, Any, Any]:
    """AURC of both and their difference; rows are seeds, columns patients."""
    weights = np.concatenate(list(resamples(np.arange(risk.shape[1]), samples=4000, seed=0)))
    whole = np.ones((1, risk.shape[1]))

    def mean_aurc(score: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.mean([weighted_aurc(s, r, w) for s, r in zip(score, risk, strict=True)], axis=0)

    pairs = [(mean_aurc(s, whole)[0], mean_aurc(s, weights)) for s in (scores, rival)]
    n = risk.shape[1]
    (a, drawn_a), (b, drawn_b) = pairs
    return (
        interval(float(a), drawn_a, n=n),
        interval(float(b), drawn_b, n=n),
        interval(float(a - b), drawn_a - drawn_b, n=n),
    )


def table(seeds: list[Cases], names: list[str], column: str) -> np.ndarray:
    return np.array([[number(cases[name], column) for name in names] for cases in seeds])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, nargs="?")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--arm", default="ours")
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--ensemble", default="seed-ensemble")
    asked = parser.parse_args()
    seeds = of_run(asked.run) if asked.run else of_study(asked.study, asked.arm, asked.fraction)
    if not seeds:
        raise SystemExit("no finished row of this arm and fraction")
    names = [
        name
        for name in seeds[0]
        if all(not math.isnan(number(cases[name], "dice")) for cases in seeds)
    ]
    risk = 1 - table(seeds, names, "dice")
    print(f"{len(seeds)} seed(s), {len(names)} held-out patients, mean risk {risk.mean():.3f}")
    print(f"perfect order: {compare(risk, risk, risk)[0].value:.4f}")
    trust = table(seeds, names, TRUST)
    rivals = {title: table(seeds, names, column) for title, column in RIVALS.items()}
    if not asked.run:
        ensembles = of_study(asked.study, asked.ensemble, asked.fraction)
        for ensemble in ensembles[:1]:
            spread = table([ensemble], names, TRUST)
            rivals["seed-ensemble disagreement"] = np.repeat(spread, len(seeds), axis=0)
    for title, rival in rivals.items():
        ours, theirs, apart = compare(trust, rival, risk)
        print(f"trust {_shown(ours)}  {title} {_shown(theirs)}  difference {_shown(apart)}")
    for kind in ("credible", "conformal"):
        columns = [c for c in seeds[0][names[0]] if c.startswith(f"coverage/volume_{kind}")]
        for column in columns:
            held = table(seeds, names, column).mean(axis=0)
            print(f"{column}: {_shown(bootstrap(held, samples=4000))}, n {len(names)}")


def _shown(found: Any) -> str:
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"


if __name__ == "__main__":
    main()
