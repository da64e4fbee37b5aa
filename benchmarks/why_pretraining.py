"""Why does pre-training not help? The same training from encoders that know more or less.

Run: ``OMP_NUM_THREADS=1 python benchmarks/why_pretraining.py lgg_multisite --out FOLDER
[--arms ...] [--fractions 0.1] [--seeds 0,1,2] [--set NAME=VALUE ...]``. The deterministic
network of the study on brain MRI, from

* ``scratch``: random weights;
* ``ssl``: an encoder pre-trained on all training patients as the study does it; ``ssl:NAME``: the
  same with the settings ``VARIANTS[NAME]``;
* ``oracle``: the encoder of a training on *all* training labels, the best that any pre-training
  on these scans could hope for.

``+slow`` after a name gives the encoder a tenth of the rate while it is fine-tuned, ``+slower`` a
hundredth, ``+frozen`` none, so that only the decoder learns. If not even the oracle helps, the
encoder is not what few labels lack; if the oracle helps and ``ssl`` does not, its features do not
fit the task; if frozen features do better than tuned ones, tuning destroys what was learned.
``--summary`` prints the test patients' mean Dice and paired differences to ``scratch``; validation
Dice stands beside it. Rows lie in ``rows.json``.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from penumbra import checkpoint, pipeline
from penumbra.bayes import bank
from penumbra.config import Config, resolve
from penumbra.evaluate.overlap import confusion, dice, label_map
from penumbra.ground import Ground, prepare
from penumbra.inference.maps import map_case
from penumbra.model import Network
from penumbra.pretrain.transfer import adapt
from penumbra.study.arms import ARMS
from penumbra.training.loop import fit
from penumbra.training.supervised import Population, Supervised

STUDY: dict[str, object] = {
    "data.patch": [64, 64],
    "data.spacing_mm": [4.0, 4.0],
    "model.widths": [8, 16, 32, 64],
    "model.neck": 32,
    "train.steps": 600,
    "train.batch": 8,
    "train.checkpoint_every": 10_000,
    "train.validate_every": 0,
    "pretrain.steps": 80,
    "pretrain.batch": 16,
    "data.split_seed": 0,
}
VARIANTS: dict[str, dict[str, object]] = {
    "": {},
    "long": {"pretrain.steps": 400},
    "longer": {"pretrain.steps": 1600},
    "batch": {"pretrain.steps": 100, "pretrain.batch": 64},
    "warm": {"pretrain.steps": 400, "pretrain.temperature": 0.5},
    "generic": {"pretrain.steps": 400, "pretrain.views": "generic"},
    "bare": {
        "pretrain.steps": 400,
        "pretrain.region": 0.0,
        "pretrain.protocol": 0.0,
        "pretrain.protocol_mode": "off",
    },
    "dense": {"pretrain.steps": 400, "pretrain.dense": 1.0, "pretrain.restoration": 1.0},
    "restore": {"pretrain.steps": 400, "pretrain.restoration": 10.0},
    "organs": {"pretrain.steps": 400, "pretrain.regions": "organs", "pretrain.region": 5.0},
}
"""What a variant's pre-training changes. ``organs`` reads the training labels: a control."""


PACES = {"": 1.0, "slow": 0.1, "slower": 0.01, "frozen": 1.0}
"""``train.encoder_lr_factor`` while fine-tuning; a frozen encoder has no gradient."""


def configured(base: dict[str, object], **more: object) -> Config:
    return resolve("brain-mri", size="small", overrides={**base, **more})


def start_of(
    arm: str, base: dict[str, object], ground: Ground, out: Path, seed: int
) -> Path | None:
    """The encoder that an arm starts from, made when it is first asked for."""
    if arm == "scratch":
        return None
    folder = out / f"{arm.replace(':', '-')}-s{seed}"
    path = folder / "pretrain" / "encoder.safetensors"
    if path.exists():
        return path
    if arm == "oracle":
        config = configured(base, seed=seed)
        network = trained(config, ground, folder, None, frozen=False)
        checkpoint.save(path, network.encoder, record={"steps": config.train.steps})
        return path
    variant = VARIANTS[arm.removeprefix("ssl").removeprefix(":")]
    return pipeline._pretrain(configured(base | variant, seed=seed), ground, folder, None)


def trained(
    config: Config, ground: Ground, folder: Path, encoder: Path | None, *, frozen: bool
) -> Network:
    labelled = pipeline._labelled(ground, config)
    network = pipeline._network(config, ground)
    if encoder is not None:
        tensors = checkpoint.read(encoder)[0]
        model = pipeline._without_prefix(tensors)
        assert adapt(model, network.encoder).share == 1
    network.encoder.requires_grad_(not frozen)
    images = sum(ground.images(i) for i in labelled)
    population = Population(images, int(np.prod(config.data.patch)), ground.spacing_mm)
    patches = pipeline.Patches(ground.store, labelled, settings=config.data, seed=config.seed)
    pipeline.standardize_decoder(network, next(pipeline._images(patches, config)))
    stage = Supervised(network, config, population)
    fit(
        stage,
        patches,
        pipeline._schedule(config, None),
        folder=folder / "train",
        device=torch.device("cpu"),
    )
    return network.eval()


def score(network: Network, ground: Ground, config: Config, part: str) -> dict[str, float]:
    """Dice of every patient's first region."""
    draws = bank(network, draws=1, generator=torch.Generator().manual_seed(0))
    task, found = ground.store.task, {}
    region = next(iter(task.regions.values()))
    for index in ground.parts[part]:
        case = ground.store[index]
        maps = map_case(network, draws, case, task, config)
        assert maps.voxels is not None
        predicted = label_map(maps.voxels.probability)
        counts = confusion(predicted, np.asarray(case.segmentation), classes=len(task.classes))
        found[case.case.patient] = float(dice(counts, region))
    return found


def summarise(rows: list[dict[str, object]], samples: int = 4000) -> None:
    """Mean over patients and seeds; patients and seeds are drawn again together, differences
    paired."""
    rng = np.random.default_rng(0)
    names = sorted({(r["fraction"], r["arm"]) for r in rows})
    print("| labels | start | validation Dice | test Dice | minus scratch | seeds |")
    print("|---|---|---|---|---|---|")
    for fraction, arm in names:
        mine = {r["seed"]: r for r in rows if (r["fraction"], r["arm"]) == (fraction, arm)}
        base = {r["seed"]: r for r in rows if (r["fraction"], r["arm"]) == (fraction, "scratch")}
        seeds = sorted(mine)
        table = np.array([list(mine[s]["test"].values()) for s in seeds])
        cells = [f"{100 * fraction:g} %", arm]
        cells.append(f"{np.mean([list(mine[s]['val'].values()) for s in seeds]):.3f}")
        cells.append(interval(table, rng, samples))
        if arm != "scratch" and all(s in base for s in seeds):
            other = np.array([list(base[s]["test"].values()) for s in seeds])
            cells.append(interval(table - other, rng, samples, sign="+"))
        else:
            cells.append("")
        print("| " + " | ".join([*cells, str(len(seeds))]) + " |")


def interval(table: np.ndarray, rng: np.random.Generator, samples: int, sign: str = "") -> str:
    """Mean and 95 % interval of ``[seeds, patients]``."""
    s, p = table.shape
    means = [
        table[rng.integers(s, size=s)][:, rng.integers(p, size=p)].mean() for _ in range(samples)
    ]
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{table.mean():{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", default="scratch,ssl,oracle")
    parser.add_argument("--fractions", default="0.1")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--summary", action="store_true", help="only print finished rows")
    parser.add_argument("--set", action="append", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = arguments.out
    path = out / "rows.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    if arguments.summary:
        summarise(rows)
        return
    base = {**ARMS["supervised"].settings, **STUDY}
    base |= dict(item.split("=", 1) for item in arguments.set)
    ground = prepare(configured(base), arguments.data, out / "ground")
    done = {(r["arm"], r["fraction"], r["seed"]) for r in rows}
    for seed in map(int, arguments.seeds.split(",")):
        for fraction in map(float, arguments.fractions.split(",")):
            for arm in arguments.arms.split(","):
                if (arm, fraction, seed) in done:
                    continue
                start = time.process_time()
                name, _, pace = arm.partition("+")
                encoder = start_of(name, base, ground, out, seed)
                more = {"data.fraction": fraction, "train.encoder_lr_factor": PACES[pace]}
                config = configured(base, seed=seed, **more)
                folder = out / f"{arm.replace(':', '-')}@{fraction:g}-s{seed}"
                network = trained(config, ground, folder, encoder, frozen=pace == "frozen")
                row = {"arm": arm, "fraction": fraction, "seed": seed}
                row |= {part: score(network, ground, config, part) for part in ("val", "test")}
                row["cpu_seconds"] = round(time.process_time() - start, 1)
                rows.append(row)
                path.write_text(json.dumps(rows))
                val, test = (np.mean(list(row[part].values())) for part in ("val", "test"))
                print(f"{arm}@{fraction:g} seed {seed}: {val:.3f} {test:.3f}", flush=True)


if __name__ == "__main__":
    main()
