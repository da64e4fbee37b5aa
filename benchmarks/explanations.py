"""Where maps point and whether they tell the truth: attention against explainers, on real lesions.

Run, once per data set (each finished cell is kept, so the same command continues)::

    python benchmarks/explanations.py run lgg SLICES OUT    # of benchmarks/tumour_slices.py
    python benchmarks/explanations.py run cxr FILMS OUT     # CheXpert layout with regions.csv
    python benchmarks/explanations.py table OUT             # OUT/table.json and a printed table

Six conditions (L_att off, reliable, align; each with and without expert masks in training) and
three seeds; a seed's conditions share the steps before attention enters the loss. In each of them
our attention, post-hoc explainers and both priors on the same test images, beside a localizer of
the same size trained on the masks alone. The methods that take dozens of passes (``SLOW``) explain
the networks of one direction (``--slow-in``). Test patients choose nothing: thresholds, the best
post-hoc method and the direction come from validation.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
from explanations_table import print_table
from torch import nn
from torch.utils.data import default_collate

from penumbra import assess, trained
from penumbra.assess.explanations import compare, draw_maps
from penumbra.assess.pictures import Picture, pictures
from penumbra.assess.sanity import randomization
from penumbra.attend.alignment import clinical_loss
from penumbra.augment import augment
from penumbra.config import Config, resolve
from penumbra.data.patches import Patches
from penumbra.ground import Ground, prepare
from penumbra.inference.explain import EXPLAINERS, Explainer
from penumbra.model import Network
from penumbra.training.schedule import step_generator
from penumbra.training.supervised import Population, Supervised

COMMON = {
    "adversarial.weight": 0.0,
    "data.foreground": 0.0,
    "model.widths": [8, 16, 32, 64],
    "bayes.kl": 1e-3,
    "bayes.warm_start": 0.6,
    "attention.start": 0.6,
    "train.steps": 300,
    "train.batch": 16,
    "train.lr": 2e-3,
    "train.drop_channel": 0.0,
    "train.augment": 0.2,
    "evaluate.draws": 6,
}
SETS = {
    "lgg": ("brain-mri", {"data.patch": [48, 48], "data.spacing_mm": [2.4, 2.4]}),
    "cxr": ("chest-xray", {"data.patch": [64, 64], "data.image_size": [64, 64]}),
}
DIRECTIONS, MASKS = ("off", "reliable", "align"), (0.0, 2.0)
SLOW: tuple[Explainer, ...] = ("integrated_gradients", "smooth_grad", "occlusion")
PER_PATIENT, SANE = 1, 4


def settings(data: str, seed: int, direction: str, masks: float) -> Config:
    preset, own = SETS[data]
    arm = {"seed": seed, "attention.direction": direction, "attention.clinical": masks}
    fixed = {"data.split_seed": 0, "attention.weight": 0.1}
    return resolve(preset, size="small", overrides={**COMMON, **own, **fixed, **arm})


def chosen(ground: Ground, part: str) -> list[int]:
    """Annotated cases, at most ``PER_PATIENT`` of a patient, evenly over them."""
    by_patient: dict[str, list[int]] = {}
    for i in ground.parts[part]:
        case = ground.store[i]
        if any(row > 0 for row in case.mapped):
            by_patient.setdefault(case.case.patient, []).append(i)
    middle = [
        own[round(k)]
        for own in by_patient.values()
        for k in np.linspace(0, len(own) - 1, PER_PATIENT + 2)[1:-1]
    ]
    return list(dict.fromkeys(middle))


def trunk(config: Config, ground: Ground, out: Path) -> Network:
    """The seed's network when attention enters: deterministic until then, Bayesian from there."""
    network = trained.build(config, ground.store.task)
    inside = [np.asarray(ground.store[i].image)[:, ground.store[i].body] for i in _every(ground, 5)]
    pixels = np.concatenate(inside, axis=1).astype(
        np.float32
    )  # both modalities are stored in display units
    network.encoder.input_mean.copy_(torch.from_numpy(pixels.mean(1)))
    network.encoder.input_std.copy_(torch.from_numpy(pixels.std(1)))
    begin = round(config.bayes.warm_start * config.train.steps)
    path = out / f"trunk-{config.seed}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
    else:
        learn(Supervised(network, config, _population(config, ground)), ground, range(begin))
        torch.save(network.state_dict(), path)
    return network


def learn(stage: Supervised, ground: Ground, steps: range) -> None:
    """The supervised stage's steps, with a constant rate after the warm-up and no checkpoints."""
    config = stage.config
    samples = Patches(ground.store, ground.parts["train"], settings=config.data, seed=config.seed)
    size, rate = config.train.batch, config.train.lr
    stage.prepare(steps.start)
    optimizer = torch.optim.Adam(stage.parameter_groups(), lr=rate)
    stage.module.train()
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"] * min(1.0, (step - steps.start + 1) / 15)
        batch = default_collate([samples[step * size + k] for k in range(size)])
        generator = step_generator(config.seed, step)
        optimizer.zero_grad(set_to_none=True)
        stage.loss(batch, step, generator)["total"].backward()
        nn.utils.clip_grad_norm_(stage.module.parameters(), config.train.clip_norm)
        optimizer.step()
        stage.after_step(step)
    stage.module.eval()


def localizer(config: Config, ground: Ground, out: Path) -> Network:
    """A network of the same size and steps that sees masks alone, one output per finding."""
    network = Network(
        channels=1,
        classes=1 + len(ground.store.task.findings),
        findings=0,
        dim=2,
        widths=config.model.widths,
        gates=False,
        seed=config.seed,
    )
    path = out / f"localizer-{config.seed}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    annotated = [i for i in ground.parts["train"] if any(r > 0 for r in ground.store[i].mapped)]
    samples = Patches(ground.store, annotated, settings=config.data, seed=config.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.train.lr)
    size = config.train.batch
    for step in range(config.train.steps):
        batch = default_collate([samples[step * size + k] for k in range(size)])
        moved, _, masks = augment(
            batch["image"],
            None,
            batch["masks"],
            modality=config.modality,
            generator=step_generator(config.seed, step),
            probability=config.train.augment,
            spacing_mm=ground.spacing_mm,
        )
        stated = network(moved).segmentation[:, 1:].sigmoid()
        loss = clinical_loss(stated, masks[:, 1:], batch["annotated"][:, 1:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.train.clip_norm)
        optimizer.step()
    torch.save(network.state_dict(), path)
    return network.eval()


def _population(config: Config, ground: Ground) -> Population:
    images, voxels = len(ground.parts["train"]), int(np.prod(config.data.patch))
    return Population(images=images, voxels=voxels, spacing_mm=ground.spacing_mm)


def _every(ground: Ground, n: int) -> list[int]:
    return ground.parts["train"][::n]


def cell(folder: Path, out: Path, config: Config, methods: list[Explainer]) -> bool:
    """Train one condition, judge every map on validation and test patients; False if it is done."""
    name = f"{config.attention.direction}-{config.attention.clinical:g}-{config.seed}"
    done = out / f"{name}.json"
    if done.exists():
        return False
    ground = prepare(config, folder, out / name)
    stage = Supervised(trunk(config, ground, out), config, _population(config, ground))
    begin = round(config.bayes.warm_start * config.train.steps)
    learn(stage, ground, range(begin, config.train.steps))
    model = trained.Trained(stage.module, ground.store.task, config)
    model = assess.calibrate_attention(model, ground.store, chosen(ground, "val"))
    model.save(out / name / "model")
    finder = localizer(config, ground, out)

    @torch.no_grad()
    def located(each: Picture) -> np.ndarray:
        return finder(each.image).segmentation[0, each.row].sigmoid().numpy()

    parts = {part: chosen(ground, part) for part in ("val", "test")}
    record: dict = {"direction": config.attention.direction, "masks": config.attention.clinical > 0}
    record |= {"seed": config.seed, "beta": model.network.beta.softmax(0).tolist()}
    for part, indices in parts.items():
        found = compare(
            model, ground.store, indices, methods, tuning=parts["val"], localizer=located
        )
        record[part] = [
            [c.case, c.patient, [[*key, value] for key, value in c.scores.items()]] for c in found
        ]
        every = ground.parts[part]
        record[f"{part}_auroc"] = assess.validate(model.network, ground.store, every, config)
    judged = pictures(model, ground.store, parts["test"])
    shown = draw_maps(model, judged, methods)
    np.savez_compressed(out / f"{name}.npz", **{m: _padded(maps) for m, maps in shown.items()})
    sane = [m for m in methods if m not in ("modulated", "occlusion")]
    record["randomized"] = randomization(model, judged[:SANE], sane)
    done.write_text(json.dumps(record))
    return True


def _padded(maps: list[np.ndarray]) -> np.ndarray:
    """Maps of different sizes in one array; NaN beyond each."""
    rows, columns = np.max([m.shape for m in maps], axis=0)
    whole = np.full((len(maps), rows, columns), np.nan, np.float16)
    for one, m in zip(whole, maps, strict=True):
        one[: m.shape[0], : m.shape[1]] = m
    return whole


def main() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("data", choices=SETS)
    run.add_argument("folder", type=Path)
    run.add_argument("out", type=Path)
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--cells", type=int, default=99, help="stop after so many new ones")
    run.add_argument("--slow-in", choices=DIRECTIONS, default="off")
    verbs.add_parser("table").add_argument("out", type=Path)
    args = parser.parse_args()
    if args.verb == "table":
        print_table(args.out)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    left = args.cells
    for seed, direction, masks in product(range(args.seeds), DIRECTIONS, MASKS):
        if left == 0:
            return
        methods = [m for m in EXPLAINERS if m not in SLOW or direction == args.slow_in]
        left -= cell(args.folder, args.out, settings(args.data, seed, direction, masks), methods)


if __name__ == "__main__":
    main()
