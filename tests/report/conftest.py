"""A run folder made up in full, with the shapes and sizes of a real one."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from penumbra import report

SITES = ("Henry Ford", "Case Western", "Jefferson")
REGIONS = ("WT", "TC", "ET")


def blob(grid: np.ndarray, center: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = grid
    angle = np.arctan2(rows - center[0], columns - center[1])
    edge = radius * (1 + 0.12 * np.sin(3 * angle) + 0.07 * np.cos(5 * angle))
    return np.hypot(rows - center[0], columns - center[1]) - edge


def write_samples(folder: Path, *, rng: np.random.Generator, side: int, count: int) -> None:
    folder.mkdir(parents=True)
    grid = np.mgrid[:side, :side] / side
    for i in range(count):
        head = np.hypot((grid[0] - 0.5) / 0.44, (grid[1] - 0.5) / 0.36)
        texture = 0.06 * np.sin(30 * grid[0] + 4 * i) * np.cos(26 * grid[1])
        image = np.where(head < 1, 0.42 + texture - 0.15 * (head < 0.25), 0.0)
        center = (0.4 + 0.05 * i, 0.38 + 0.06 * (i % 3))
        truth = blob(grid, center, 0.15)
        guess = blob(grid, (center[0] + 0.012 * i, center[1] + 0.01), 0.14)
        image += 0.3 * (truth < 0) * (head < 1) + 0.015 * rng.standard_normal(image.shape)
        np.savez(
            folder / f"{i:02d}.npz",
            image=image.clip(0, 1).astype(np.float32),
            reference=(truth < 0).astype(int) + (truth < -0.07),
            prediction=(guess < 0).astype(int) + (guess < -0.06),
            epistemic=(0.03 * np.exp(-((guess / 0.03) ** 2))).astype(np.float32),
            aleatoric=(0.2 * np.exp(-((guess / 0.018) ** 2))).astype(np.float32),
            attention=(1 / (1 + np.exp(guess / 0.04))).astype(np.float32),
            classes=np.array(["background", "edema", "core"]),
            title=f"TCGA_DU_{i:04d}, slice {40 + i}, Dice {0.92 - 0.07 * i:.2f}",
            findings=json.dumps(
                {
                    "effusion": {"probability": 0.83, "epistemic": 0.004, "reference": 1},
                    "nodule": {"probability": 0.21, "epistemic": 0.02, "reference": 0},
                }
                if i == count - 1
                else {}
            ),
        )


def write_log(path: Path, *, rng: np.random.Generator, steps: int) -> None:
    with path.open("w") as file:
        for stage in ("pretrain", "train"):
            for step in range(steps):
                fall = np.exp(-3 * step / steps)
                line = {"stage": stage, "step": step, "time_s": step * 0.4}
                if stage == "pretrain":
                    line |= {"loss/contrast": 1 + 3 * fall, "loss/region": 0.4 + fall}
                    line["loss/protocol"] = 0.3 + 0.4 * fall
                    line |= {"loss/effective_rank": 30 - 10 * fall, "loss/uniformity": fall - 2}
                    if step % max(steps // 4, 1) == 0:
                        line |= {"val/linear/structure": 0.8 - 0.3 * fall, "val/score": 0.5}
                        line |= {"val/knn/structure": 0.7, "val/chance/structure": 0.25}
                else:
                    line |= {"loss/task": 0.1 + fall, "loss/kl": 0.02 + 0.01 * (1 - fall)}
                    line |= {"loss/adversarial": 0.15 + 0.8 * fall, "loss/attention": 0.03}
                    line |= {"share/task": 0.7, "share/adversarial": 0.25, "share/kl": 0.05}
                    if step % max(steps // 8, 1) == 0:
                        line["val/dice"] = 0.75 * (1 - fall) + 0.02 * rng.standard_normal()
                parts = [v for k, v in line.items() if k.startswith("loss/")]
                line["loss/total"] = sum(parts) * (1 + 0.04 * rng.standard_normal())
                file.write(json.dumps(line) + "\n")


def write_cases(path: Path, *, rng: np.random.Generator, count: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "patient", "site", "part", "dice_WT", "hd95_mm_WT", "uncertainty"])
        for i in range(count):
            dice = float(np.clip(0.95 - 0.12 * rng.gamma(1.2), 0.05, 0.98))
            spread = abs(0.2 * (1 - dice) + 0.02 * rng.standard_normal()) + 0.01
            part = "test" if i < count * 3 // 4 else "val"
            site = SITES[i % 3]
            writer.writerow([f"TCGA_{i:04d}", f"p{i}", site, part, dice, 40 * (1 - dice), spread])


def write_metrics(path: Path) -> None:
    values = {"dice": 0.81, "surface_dice": 0.74, "hd95_mm": 9.4}
    values |= {"ece_raw": 0.061, "ece": 0.028, "brier": 0.043, "nll": 0.112}
    values |= {"aurc": 0.083, "error_auroc": 0.88, "spearman": 0.63, "pointing_game": 0.79}
    values |= {"shift_mean_degradation": 0.07, "pgd_dice": 0.41}
    rows = []
    for part in ("test", "val"):
        for metric, value in values.items():
            labels = (
                ("mean", *REGIONS) if metric in ("dice", "surface_dice", "hd95_mm") else ("all",)
            )
            for j, label in enumerate(labels):
                v = value * (1 - 0.05 * j)
                low, high = 0.93 * v, 1.06 * v
                row = {"part": part, "metric": metric, "label": label, "value": v, "low": low}
                rows.append(row | {"high": high, "n": 24, "unit": "patient"})
    environment = {"python": "3.11", "torch": "2.9", "device": "cpu"}
    tree = {"schema": 1, "name": "brain-mri", "modality": "mri", "seed": 0, "rows": rows}
    tree |= {"split_hash": "9f3c2a71d04b", "environment": environment}
    row = {"width": 1.0, "nll": 0.30, "temperature": 1.1, "epistemic_share": 0.04, "dice": 0.80}
    mean = row | {"width": 0.0, "nll": 0.35, "epistemic_share": 0.0}
    layer = {"name": "heads.segmentation.last", "weights": 52, "sigma_ratio": 0.7, "snr": 3.1}
    tree["posterior"] = {
        "kind": "variational",
        "width": 1.0,
        "tempering": [mean, row],
        "layers": [layer | {"kl_per_weight": 0.9}],
    }
    path.write_text(json.dumps(tree))


def write_curves(path: Path) -> None:
    confidence = np.linspace(0.05, 0.95, 10)
    count = (2000 * (0.1 + (confidence - 0.4) ** 2)).astype(int)
    coverage = np.linspace(0.05, 1, 20)

    def curve(exponent: float) -> dict[str, list[float]]:
        accuracy = confidence**exponent
        return {
            "confidence": confidence.tolist(),
            "accuracy": accuracy.tolist(),
            "count": count.tolist(),
        }

    robustness: list[dict[str, object]] = [
        {"family": family, "level": level, "metric": "dice", "value": 0.81 - slope * level}
        for family, slope in [("noise", 0.03), ("motion", 0.06), ("bias_field", 0.015)]
        for level in (0, 1, 3, 5)
    ]
    robustness += [
        {"attack": attack, "level": eps, "metric": "dice", "value": 0.81 * np.exp(-slope * eps)}
        for attack, slope in [("noise", 4), ("fgsm", 40), ("pgd", 90)]
        for eps in (0.0, 1 / 255, 4 / 255)
    ]
    tree = {
        "reliability": {"raw": curve(1.5), "scaled": curve(1.08)},
        "risk_coverage": {
            "coverage": coverage.tolist(),
            "risk": (0.03 + 0.14 * coverage**2.2).tolist(),
            "oracle": (0.01 + 0.16 * coverage**3).tolist(),
            "random": [0.17] * 20,
        },
        "robustness": robustness,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))


def fabricate(
    folder: Path, *, side: int = 24, samples: int = 2, steps: int = 12, cases: int = 12
) -> Path:
    """A complete run folder; larger values look like a real one."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"name": "brain-mri", "modality": "mri", "size": "small", "seed": 0}
    config |= {"bayes": {"posterior": "variational"}, "evaluate": {"error_target": 0.05}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    ids = [f"TCGA_{i:04d}" for i in range(3 * cases)]
    split = {"train": ids[cases:], "val": ids[: cases // 4], "test": ids[cases // 4 : cases]}
    (folder / "split.json").write_text(json.dumps(split | {"hash": "9f3c2a71d04b"}))
    write_log(folder / "log.jsonl", rng=rng, steps=steps)
    write_metrics(folder / "metrics.json")
    write_cases(folder / "cases.csv", rng=rng, count=cases)
    write_curves(folder / "evaluation" / "curves.json")
    write_samples(folder / "evaluation" / "samples", rng=rng, side=side, count=samples)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder of one's own, to change."""
    return fabricate(tmp_path / "run")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with its report, made once; not to be changed."""
    folder = fabricate(tmp_path_factory.mktemp("finished") / "run")
    report.build(folder)
    return folder
