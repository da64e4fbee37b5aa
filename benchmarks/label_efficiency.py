"""Findings from few labels: from scratch against pre-trained, same steps, several seeds.

    python benchmarks/label_efficiency.py DATA --out FOLDER [--arms scratch,pretrained]
        [--fractions 0.1,0.25,0.5,1] [--seeds 0,1,2] [--set NAME=VALUE ...]
    python benchmarks/label_efficiency.py DATA --out FOLDER --summary

What ``penumbra labels-curve`` does, in one process and with a light evaluation: a deterministic
network, whole test films, macro AUC with a bootstrap over patients. Arms beside ``scratch`` are
ablations of the pre-training. Writes ``rows.json``, whose rows are kept when it is run again, then
``summary.json``.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import rankdata

from penumbra import checkpoint, pipeline
from penumbra.augment import to_display
from penumbra.config import Config, resolve
from penumbra.data import store
from penumbra.data.patches import Patches, whole
from penumbra.data.preprocess import Prepared
from penumbra.ground import Ground, prepare
from penumbra.pretrain.transfer import adapt
from penumbra.study.arms import ARMS
from penumbra.training.loop import fit
from penumbra.training.supervised import Population, Supervised

PRETRAINING: dict[str, dict[str, object]] = {
    "pretrained": {},
    "generic-views": {"pretrain.views": "generic"},
    "no-region": {"pretrain.region": 0.0},
    "no-protocol": {"pretrain.protocol": 0.0, "pretrain.protocol_mode": "off"},
}
"""Arms that start from an encoder, and what their pre-training changes."""


def encoder_of(arm: str, base: dict[str, object], ground: Ground, out: Path, seed: int) -> Path:
    """The arm's encoder of this seed, pre-trained on every training film without its labels."""
    config = resolve("chest-xray", overrides={**base, **PRETRAINING[arm], "seed": seed})
    folder = out / f"pretrain-{arm}-s{seed}"
    path = folder / "pretrain" / "encoder.safetensors"
    return path if path.exists() else pipeline._pretrain(config, ground, folder, None)


def score(config: Config, ground: Ground, folder: Path, encoder: Path | None) -> dict[str, object]:
    """Train one cell and read validation and test films: probabilities and labels."""
    labelled = pipeline._labelled(ground, config)
    network = pipeline._network(config, ground)
    if encoder is not None:
        tensors = pipeline._without_prefix(checkpoint.read(encoder)[0])
        assert adapt(tensors, network.encoder).share == 1
    population = Population(len(labelled), int(np.prod(config.data.patch)), ground.spacing_mm)
    patches = Patches(ground.store, labelled, settings=config.data, seed=config.seed)
    pipeline.standardize_findings(network, pipeline._images(patches, config))
    fit(
        Supervised(network, config, population),
        patches,
        pipeline._schedule(config, None),
        folder=folder,
        device=torch.device("cpu"),
    )
    network.eval()
    read = {}
    for part in ("val", "test"):
        films = [whole(ground.store, i) for i in ground.parts[part]]
        probability = []
        with torch.inference_mode():
            for start in range(0, len(films), 64):
                image = torch.cat([f["image"] for f in films[start : start + 64]])
                logits = network(to_display(image, modality=config.modality)).findings
                probability.append(torch.sigmoid(logits))
        labels = torch.cat([f["findings"] for f in films])
        read[part] = {
            "patient": [int(f["patient"]) for f in films],
            "probability": torch.cat(probability).numpy().round(5).tolist(),
            "label": labels.numpy().tolist(),
        }
    return {"labelled": len(labelled), **read}


def macro_auc(label: np.ndarray, probability: np.ndarray) -> float:
    """Mean over findings that have both labels, by ranks (Mann & Whitney)."""
    positive = label.sum(0)
    known = (positive > 0) & (positive < len(label))
    if not known.any():
        return float("nan")
    ranks = (rankdata(probability, axis=0) * label).sum(0)[known]
    n = positive[known]
    return float(((ranks - n * (n + 1) / 2) / (n * (len(label) - n))).mean())


def interval(values: np.ndarray) -> list[float]:
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def summarise(rows: list[dict[str, object]], out: Path, samples: int = 1000) -> None:
    """Mean over seeds with a patient bootstrap, and every arm's difference from scratch."""
    table, boot = [], {}
    rng = np.random.default_rng(0)
    patient = np.array(rows[0]["test"]["patient"])
    label = np.array(rows[0]["test"]["label"])
    groups = [np.flatnonzero(patient == p) for p in np.unique(patient)]
    draws = [
        np.concatenate([groups[g] for g in rng.integers(len(groups), size=len(groups))])
        for _ in range(samples)
    ]
    for arm, fraction in sorted({(r["arm"], r["fraction"]) for r in rows}):
        cells = [r for r in rows if (r["arm"], r["fraction"]) == (arm, fraction)]
        seen = [np.array(r["test"]["probability"]) for r in cells]
        each = [macro_auc(label, p) for p in seen]
        boot[arm, fraction] = np.mean([[macro_auc(label[d], p[d]) for d in draws] for p in seen], 0)
        val = [
            macro_auc(np.array(r["val"]["label"]), np.array(r["val"]["probability"])) for r in cells
        ]
        table.append(
            {
                "arm": arm,
                "fraction": fraction,
                "labelled": cells[0]["labelled"],
                "seeds": len(cells),
                "auc": round(float(np.mean(each)), 4),
                "auc_of_seeds": [round(v, 4) for v in each],
                "interval": interval(boot[arm, fraction]),
                "val_auc": round(float(np.mean(val)), 4),
            }
        )
    for row in table:
        base = boot.get(("scratch", row["fraction"]))
        full = boot.get(("scratch", 1.0))
        mine = boot[row["arm"], row["fraction"]]
        if base is not None and row["arm"] != "scratch":
            row["minus_scratch"] = [round(float((mine - base).mean()), 4), *interval(mine - base)]
        if full is not None:
            row["minus_full_scratch"] = [
                round(float((mine - full).mean()), 4),
                *interval(mine - full),
            ]
    (out / "summary.json").write_text(json.dumps(table, indent=1) + "\n")
    for row in table:
        print(json.dumps(row), flush=True)


def _keep_films_open() -> None:
    """Thousands of small films: reading each anew would take longer than training."""
    mapped = store._open

    def loaded(*arguments: object) -> Prepared:
        prepared = mapped(*arguments)
        arrays = {
            name: np.array(value)
            for name in store._ARRAYS
            if (value := getattr(prepared, name)) is not None
        }
        return replace(prepared, **arrays)

    store._open, store._OPEN = loaded, 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", default="scratch,pretrained")
    parser.add_argument("--fractions", default="0.1,0.25,0.5,1")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--summary", action="store_true", help="only summarise finished rows")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _keep_films_open()
    base = {**ARMS["supervised"].settings, "data.split_seed": 0}
    base |= dict(item.split("=", 1) for item in arguments.set)
    out = arguments.out
    path = out / "rows.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    if arguments.summary:
        summarise(rows, out)
        return
    ground = prepare(resolve("chest-xray", overrides=base), arguments.data, out / "ground")
    done = {(r["arm"], r["fraction"], r["seed"]) for r in rows}
    for seed in map(int, arguments.seeds.split(",")):
        for arm in arguments.arms.split(","):
            for fraction in map(float, arguments.fractions.split(",")):
                if (arm, fraction, seed) in done:
                    continue
                start = time.process_time()
                encoder = None if arm == "scratch" else encoder_of(arm, base, ground, out, seed)
                config = resolve(
                    "chest-xray", overrides={**base, "seed": seed, "data.fraction": fraction}
                )
                folder = out / f"{arm}@{fraction:g}-s{seed}"
                row = {"arm": arm, "fraction": fraction, "seed": seed}
                row |= score(config, ground, folder, encoder)
                row["cpu_seconds"] = round(time.process_time() - start, 1)
                rows.append(row)
                path.write_text(json.dumps(rows))
                auc = macro_auc(
                    np.array(row["test"]["label"]), np.array(row["test"]["probability"])
                )
                print(
                    f"{arm}@{fraction:g} seed {seed}: AUC {auc:.4f}, {row['cpu_seconds']} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
