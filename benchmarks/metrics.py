"""Metrics against MONAI and scikit-learn on one 3-D case, as ratios of times in the same run.

    python benchmarks/metrics.py [--edge 128] [--rounds 5]

Run it with OMP_NUM_THREADS=1: the figures are processor time. Each ratio is peer time / our time;
both get what they want as input (MONAI its one-hot masks).
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from penumbra.evaluate import calibration, overlap, ranking, segmentation

CLASSES = 4
REGIONS = {f"class {c}": (c,) for c in range(1, CLASSES)}
SPACING_MM = (1.0, 1.0, 1.5)


def organs(edge: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three ellipsoids as reference, and the probabilities of a decent network."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, edge)] * 3, indexing="ij"))
    reference = np.zeros((edge,) * 3, dtype=np.int64)
    for c, center in enumerate([(-0.4, 0, 0), (0.4, 0.2, 0), (0, -0.5, 0.4)], start=1):
        radius = ((grid - np.reshape(center, (3, 1, 1, 1))) ** 2).sum(axis=0)
        reference[radius < 0.08 / c] = c
    logits = np.stack([4.0 * (reference == c) for c in range(CLASSES)])
    logits += np.stack([gaussian_filter(rng.normal(0, 30, (edge,) * 3), 3) for _ in logits])
    p = np.exp(logits - logits.max(axis=0))
    return (p / p.sum(axis=0)).astype(np.float32), reference


def seconds(function: Callable[[], object], rounds: int) -> float:
    """Processor seconds of the best of several rounds, after one that is not counted."""
    function()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def naive_ece(p: np.ndarray, reference: np.ndarray) -> float:
    """The usual form: one mask per bin."""
    confidence, hit = p.max(axis=0).ravel(), (p.argmax(axis=0) == reference).ravel()
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    p, reference = organs(arguments.edge, seed=0)
    predicted = overlap.label_map(p)
    hot = [
        torch.stack([torch.from_numpy(labels == c) for c in range(CLASSES)])[None].float()
        for labels in (predicted, reference)
    ]
    error = predicted != reference
    unsure = 1 - p.max(axis=0)
    near = np.random.default_rng(0).random(error.shape) < 0.1

    def distances() -> list[tuple[float, float]]:
        apart = [
            overlap.borders(predicted == c, reference == c, spacing_mm=SPACING_MM)
            for c in range(1, CLASSES)
        ]
        return [(overlap.hd95(a), overlap.surface_dice(a, tolerance_mm=2.0)) for a in apart]

    def hd95_alone() -> list[float]:
        return [
            overlap.hd95(overlap.borders(predicted == c, reference == c, spacing_mm=SPACING_MM))
            for c in range(1, CLASSES)
        ]

    def monai_distances() -> None:
        compute_hausdorff_distance(*hot, percentile=95, spacing=list(SPACING_MM))
        compute_surface_dice(*hot, class_thresholds=[2.0] * 3, spacing=list(SPACING_MM))

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "Dice, MONAI (one-hot given)": (
            lambda: overlap.confusion(predicted, reference, classes=CLASSES),
            lambda: compute_dice(*hot),
        ),
        "HD95, MONAI": (
            hd95_alone,
            lambda: compute_hausdorff_distance(*hot, percentile=95, spacing=list(SPACING_MM)),
        ),
        "HD95 and surface Dice, MONAI": (distances, monai_distances),
        "label map, numpy argmax": (lambda: overlap.label_map(p), lambda: p.argmax(axis=0)),
        "ECE, Brier and NLL, ECE alone by masks": (
            lambda: calibration.categorical(p, reference),
            lambda: naive_ece(p, reference),
        ),
        "error AUROC, scikit-learn (10 % of voxels)": (
            lambda: ranking.auroc(unsure[near], error[near].astype(float)),
            lambda: roc_auc_score(error[near], unsure[near]),
        ),
    }
    print(f"{arguments.edge}^3 voxels, {CLASSES} classes, best of {arguments.rounds}")
    print(f"{'metric, peer':45} {'ours, ms':>10} {'peer / ours':>12}")
    for name, (ours, peer) in pairs.items():
        mine, theirs = seconds(ours, arguments.rounds), seconds(peer, arguments.rounds)
        print(f"{name:45} {mine * 1e3:10.1f} {theirs / mine:12.1f}")
    whole = seconds(
        lambda: segmentation.score_segmentation(
            p,
            reference,
            regions=REGIONS,
            spacing_mm=SPACING_MM,
            uncertainty={"epistemic": unsure, "aleatoric": unsure},
        ),
        1,
    )
    print(f"{'everything for one case':45} {whole * 1e3:10.1f}")


if __name__ == "__main__":
    main()
