"""What more draws cost an attacker: one gradient step on a posterior, against that of one draw.

Run: ``python benchmarks/attacked_draws_cost.py [--draws 2 8 20] [--size 64] [--dim 2]``. The
variational ``brain-mri`` of the size ``small``, with as many images as the ladder attacks at once.
Prints CPU time (one thread) and the memory of all tensors alive at once.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from attacks import TASK, Job, measure, settle, timed
from torch.profiler import ProfilerActivity, profile

from penumbra.assess.hardship import subject_of
from penumbra.config import resolve
from penumbra.robust.attack import value_and_gradient
from penumbra.robust.ladder import Ladder, mean_of
from penumbra.robust.objective import label_loss
from penumbra.trained import Trained, build, convert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, nargs="+", default=[2, 8, 20])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--dim", type=int, choices=(2, 3), default=2)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    settle(keep=True)
    space = [chosen.size] * chosen.dim
    grid = {"data.dim": chosen.dim, "data.patch": space, "data.spacing_mm": [2.0] * chosen.dim}
    overrides = grid | {"bayes.posterior": "variational"}
    config = resolve("brain-mri", size="small", overrides=overrides)
    network = build(config, TASK)
    convert(network, config)
    model = Trained(network.eval(), TASK, config)
    image = torch.rand((Ladder().at_once(torch.zeros(1, 3, *space)), 3, *space))
    labels = (image[:, 0] > 0.7).long()

    def step(draws: int) -> Job:
        objective = label_loss(mean_of(subject_of(model, draws=draws).draws), labels)
        return lambda: value_and_gradient(objective, image)

    jobs = {draws: step(draws) for draws in [1, *chosen.draws]}
    seconds = measure({str(draws): timed(job) for draws, job in jobs.items()}, chosen.rounds)
    print(f"one step of {len(image)} images of {' x '.join(map(str, space))}")
    for draws, job in jobs.items():
        spent = seconds[str(draws)]
        ratio = spent / seconds["1"]
        print(f"  {draws:3} draws {1000 * spent:6.0f} ms {ratio:6.1f} x {alive_mib(job):6.0f} MiB")


def alive_mib(job: Job) -> float:
    """The most that a job's tensors hold at once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        job()
    events = profiled.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most / 2**20


if __name__ == "__main__":
    main()
