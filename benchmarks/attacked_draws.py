"""Do attacks through more draws hurt a posterior more? Trained models, attacked again.

Run: ``OMP_NUM_THREADS=1 python benchmarks/attacked_draws.py RUN... --draws 20 --eps 0.0157``. The
attacks of a run's evaluation see ``evaluate.attack_draws`` draws of the posterior (two in the runs
before that setting); here predictions and gradients are means over ``--draws`` (EOT, METHOD
section 5 asks for 20). Prints the mean Dice of the probes in
every condition and the gates that failed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from penumbra import trained
from penumbra.assess.hardship import attack, planned, subject_of
from penumbra.ground import data_folder, prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--eps", type=float, nargs="+", default=[0.0157])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for run in chosen.runs:
        model = trained.load(run)
        ground = prepare(model.config, data_folder(run, None), run)
        settings = model.config.evaluate.model_copy(
            update={"severities": (), "attack_eps": tuple(chosen.eps)}
        )
        config = model.config.model_copy(update={"evaluate": settings})
        subject = subject_of(model, draws=chosen.draws)
        found = attack(
            subject, config, model.task, ground.store, ground.parts["test"], planned(config)
        )
        dice = {
            f"{probe['name']} {probe['level']:g}": round(float(np.mean(probe["dice"])), 3)
            for probe in found.probes
        }
        failed = [f"{gate['name']}: {gate['detail']}" for gate in found.gates if not gate["passed"]]
        print(json.dumps({"run": run.name, "draws": chosen.draws, **dice, "failed": failed}))


if __name__ == "__main__":
    main()
