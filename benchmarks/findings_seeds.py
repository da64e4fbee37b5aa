"""Several seeds of one run on findings, judged together: their mean AUC, and their ensemble's.

Run: ``OMP_NUM_THREADS=1 python benchmarks/findings_seeds.py RUN_0 RUN_1 RUN_2``, runs of the same
command with ``--seed 0``, ``1``, ``2`` and ``--data.split_seed 0``. Macro AUC of the test patients:
of every run, the mean over runs (patients and runs are drawn again together) and of the mean of
their probabilities (patients are drawn).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from penumbra import assess, trained
from penumbra.evaluate.findings import SUPPORT
from penumbra.ground import data_folder, prepare

SAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    probabilities = []
    for run in runs:
        model = trained.load(run)
        ground = prepare(model.config, data_folder(run, None), run)
        judged = assess.judge(model, ground.store, ground.parts["test"], "test")
        probabilities.append(np.stack([found.probability.numpy() for found in judged.found]))
    labels = np.stack(judged.labels)
    patients = np.array([case.patient for case in judged.cases])
    every = np.arange(labels.shape[1])
    support = [_patients(labels[:, f], patients) for f in every]
    for name, chosen in (
        ("all findings", every),
        (f"those of {SUPPORT} patients or more", every[np.array(support) >= SUPPORT]),
    ):
        print(f"{name}, {len(set(patients))} patients")
        report(np.stack(probabilities)[..., chosen], labels[:, chosen], patients)


def report(probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(patients == p) for p in np.unique(patients)]
    runs = len(probabilities)
    draws = [
        (
            np.concatenate([groups[g] for g in rng.integers(len(groups), size=len(groups))]),
            rng.integers(runs, size=runs),
        )
        for _ in range(SAMPLES)
    ]
    together = probabilities.mean(0)
    rows = {
        f"run {k}": (lambda d, s, k=k: macro(probabilities[k, d], labels[d])) for k in range(runs)
    }
    rows["mean over runs"] = lambda d, s: float(
        np.mean([macro(probabilities[k, d], labels[d]) for k in s])
    )
    rows["ensemble of the runs"] = lambda d, s: macro(together[d], labels[d])
    for name, of in rows.items():
        value = of(np.arange(len(labels)), np.arange(runs))
        low, high = np.nanpercentile([of(*draw) for draw in draws], (2.5, 97.5))
        print(f"  {name}: {value:.3f} ({low:.3f} to {high:.3f})", flush=True)


def macro(probability: np.ndarray, labels: np.ndarray) -> float:
    found = []
    for p, y in zip(probability.T, labels.T, strict=True):
        stated = (y == 0) | (y == 1)
        if len(np.unique(y[stated])) == 2:
            found.append(roc_auc_score(y[stated], p[stated]))
    return float(np.mean(found)) if found else float("nan")


def _patients(labels: np.ndarray, patients: np.ndarray) -> int:
    """Patients with the finding, or without it, whichever are fewer."""
    return min(len(set(patients[labels == value])) for value in (0, 1))


if __name__ == "__main__":
    main()
