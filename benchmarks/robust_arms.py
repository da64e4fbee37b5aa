"""Train the arms that take robustness apart; leave rows of attacked probes and whole test volumes.

    python benchmarks/robust_arms.py DATA --out FOLDER --preset brain-mri --seeds 3 --set ...
    python benchmarks/robust_arms.py DATA --out FOLDER --preset brain-mri --sites --set ...

Unlike a study it scores nothing but what robustness needs. With ``--sites`` every site is held out
once, and the row's arm is ``ARM / SITE``. ``benchmarks/robustness.py`` prints the tables. Run again
to continue.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from penumbra import pipeline, trained
from penumbra.assess.hardship import hardship
from penumbra.bayes import bank
from penumbra.config import Config, resolve
from penumbra.evaluate.overlap import confusion, dice
from penumbra.ground import Ground, data_folder, prepare
from penumbra.inference.maps import map_case
from penumbra.study.arms import ARMS
from penumbra.study.rows import columns, write_row
from penumbra.trained import Trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--arms", default="ssl,adversarial,variational,variational-adversarial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sites", nargs="*", default=[""])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    chosen = parser.parse_args()
    own = dict(setting.split("=", 1) for setting in chosen.set)
    for seed in chosen.seeds:
        for site in chosen.sites:
            for arm in chosen.arms.split(","):
                name = f"{arm} / {site}" if site else arm
                row = (
                    chosen.out
                    / "rows"
                    / f"{name.replace(' / ', '-').replace(' ', '_')}-s{seed}.json"
                )
                if row.exists():
                    continue
                overrides: dict[str, Any] = {"seed": seed, "data.split_seed": 0, **own}
                overrides |= dict(ARMS[arm].settings)
                if site:
                    overrides["data.holdout_site"] = site
                config = resolve(chosen.preset, size="small", overrides=overrides)
                folder = chosen.out / "cells" / row.stem
                pipeline.train(config, chosen.data, folder)
                write_row(
                    row, {"arm": name, "fraction": 1.0, "seed": seed, **judged(folder, config)}
                )
                print(name, seed, flush=True)


def judged(folder: Path, config: Config) -> dict[str, Any]:
    model = trained.load(folder)
    ground = prepare(config, data_folder(folder, None), folder)
    harder = hardship(model, ground.store, ground.parts["test"])
    return {
        "split_hash": ground.provenance["split"],
        "probes": harder.probes,
        "attack_gates": harder.gates,
        "cases": columns(whole(model, ground, config)),
    }


@torch.inference_mode()
def whole(model: Trained, ground: Ground, config: Config) -> list[dict[str, Any]]:
    """Dice of every test volume, or the probabilities of its findings."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    draws = bank(model.network, draws=config.evaluate.fixed_draws, generator=generator)
    lines = []
    for index in ground.parts["test"]:
        case = ground.store[index]
        maps = map_case(model.network, draws, case, model.task, config)
        line: dict[str, Any] = {"case": case.case.id, "patient": case.case.patient}
        if maps.voxels is not None:
            predicted = maps.voxels.probability.argmax(0).numpy()
            counts = confusion(predicted, case.segmentation, classes=len(model.task.classes))
            found = [dice(counts, members) for members in model.task.regions.values()]
            line["dice"] = sum(found) / len(found)
        if maps.findings is not None:
            for f, name in enumerate(model.task.findings):
                line[f"probability_{name}"] = float(maps.findings.probability[f])
                line[f"label_{name}"] = float(case.findings[f])
        lines.append(line)
    return lines


if __name__ == "__main__":
    main()
