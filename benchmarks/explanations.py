"""Where maps point and whether they tell the truth: attention against explainers, on real lesions.

Run, once per data set (each finished cell is kept, so the same command continues; several processes
may share OUT if each has its own ``--seeds``)::

    python benchmarks/explanations.py run lgg SLICES OUT    # of benchmarks/tumour_slices.py
    python benchmarks/explanations.py run cxr FILMS OUT     # CheXpert layout with regions.csv
    python benchmarks/explanations.py table OUT             # OUT/table.json and a printed table

Six conditions (L_att off, reliable, align; each with and without expert masks in training) and
three seeds; a seed's conditions share the steps before attention enters the loss. In each of them
our attention, post-hoc explainers and both priors on the same test images, beside a localizer of
the same size trained on the masks alone. ``--slow-in`` asks the methods that take dozens of passes
(``SLOW``) in some directions only; a gain over "the same network" is then over the rest. Test
patients choose nothing: thresholds, Grad-CAM's level, the best post-hoc method, the direction and
the length of training come from validation.

``--tiny`` runs the same path in seconds, with figures that mean nothing.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from explanations_table import print_table
from torch import nn
from torch.utils.data import default_collate

from penumbra import assess, trained
from penumbra.assess.explanations import choose_levels, draw_maps, judge_maps, thresholds
from penumbra.assess.pictures import Picture, pictures
from penumbra.assess.sanity import randomization
from penumbra.attend.alignment import clinical_loss
from penumbra.augment import augment, to_display
from penumbra.config import Config, resolve
from penumbra.data.patches import Batch, Patches
from penumbra.evaluate.ranking import auroc
from penumbra.files import atomic, write_text
from penumbra.ground import Ground, prepare
from penumbra.inference.explain import EXPLAINERS, Explainer
from penumbra.model import Network
from penumbra.training.schedule import step_generator
from penumbra.training.start import standardize_findings
from penumbra.training.supervised import Population, Supervised

COMMON = {
    "adversarial.weight": 0.0,
    "data.foreground": 0.0,
    "data.split_seed": 0,
    "data.patch": [64, 64],
    "model.widths": [8, 16, 32, 64],
    "bayes.kl": 1e-3,
    "bayes.warm_start": 0.7,
    "attention.start": 0.7,
    "attention.weight": 0.1,
    "attention.lr_factor": 10.0,
    "attention.kappa": 0.5,
    "train.steps": 400,
    "train.batch": 16,
    "train.lr": 2e-3,
    "train.findings_lr_factor": 3.0,
    "train.drop_channel": 0.0,
    "train.augment": 0.2,
    "evaluate.draws": 6,
}
TINY = {"train.steps": 10, "evaluate.draws": 2}
# A picture without spacing counts as 17 inches long, so this halves slices of 128 x 128: the patch
# holds whole heads, and so the tumor that a label states. "mm" are units of length only.
SETS = {
    "lgg": ("brain-mri", {"data.spacing_mm": [6.75, 6.75]}),
    "cxr": ("chest-xray", {"data.image_size": [64, 64]}),
}
DIRECTIONS, MASKS = ("off", "reliable", "align"), (0.0, 2.0)
SLOW: tuple[Explainer, ...] = ("integrated_gradients", "smooth_grad", "occlusion")
PER_PATIENT, SANE, WATCHED = 1, 3, 4


def settings(data: str, seed: int, direction: str, masks: float, *, tiny: bool) -> Config:
    preset, own = SETS[data]
    arm = {"seed": seed, "attention.direction": direction, "attention.clinical": masks}
    overrides = {**COMMON, **own, **arm, **(TINY if tiny else {})}
    return resolve(preset, size="small", overrides=overrides)


class Films:
    """Every whole image of a part, read once; all fit the patch."""

    def __init__(self, ground: Ground, part: str, config: Config) -> None:
        read = Patches(ground.store, ground.parts[part], settings=config.data, seed=0)
        self.every = [read[key] for key in range(len(read))]

    def batches(self, config: Config, steps: range) -> Iterator[Batch]:
        """For every step a batch that depends on the seed and the step alone."""
        for step in steps:
            size = min(config.train.batch, len(self.every))
            drawn = np.random.default_rng((config.seed, step)).choice(
                len(self.every), size, replace=False
            )
            yield default_collate([self.every[i] for i in drawn])

    def annotated(self) -> "Films":
        some = object.__new__(Films)
        some.every = [film for film in self.every if film["annotated"][1:].any()]
        return some

    @torch.no_grad()
    def auroc(self, network: Network, config: Config) -> float:
        """Macro AUROC over findings, with the mean weights."""
        network.eval()
        whole = default_collate(self.every)
        found = network(_display(whole["image"], config)).findings.sigmoid().numpy()
        network.train()
        stated = whole["findings"].numpy()
        return float(np.nanmean([auroc(p, y) for p, y in zip(found.T, stated.T, strict=True)]))


def chosen(ground: Ground, part: str, *, tiny: bool) -> list[int]:
    """Annotated cases, at most ``PER_PATIENT`` of a patient, evenly over them."""
    by_patient: dict[str, list[int]] = {}
    for i in ground.parts[part]:
        case = ground.store[i]
        if any(row > 0 for row in case.mapped):
            by_patient.setdefault(case.case.patient, []).append(i)
    middle = [
        own[round(k)]
        for own in islice(by_patient.values(), 2 if tiny else None)
        for k in np.linspace(0, len(own) - 1, PER_PATIENT + 2)[1:-1]
    ]
    return list(dict.fromkeys(middle))


def trunk(config: Config, ground: Ground, films: dict[str, Films], out: Path) -> Network:
    """The seed's network when attention enters: deterministic until then, Bayesian from there."""
    network = trained.build(config, ground.store.task)
    begin = round(config.bayes.warm_start * config.train.steps)
    path = out / f"trunk-{config.seed}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network
    mean, spread = ground.display_statistics(config)
    network.encoder.input_mean.copy_(mean)
    network.encoder.input_std.copy_(spread)
    some = default_collate(films["train"].every[:64])["image"]
    standardize_findings(network, [_display(some, config)])
    stage = Supervised(network, config, _population(config, ground))
    learn(stage, films, range(begin))
    _keep(network, path)
    return network


def learn(stage: Supervised, films: dict[str, Films], steps: range) -> list[tuple[int, float]]:
    """The supervised stage's steps, at a constant rate after the warm-up, without checkpoints.

    Returns what validation said of the length of training: (step, AUROC), now and then.
    """
    config, watched = stage.config, []
    stage.prepare(steps.start)
    optimizer = torch.optim.Adam(stage.parameter_groups(), lr=config.train.lr)
    stage.module.train()
    for step, batch in zip(steps, films["train"].batches(config, steps), strict=True):
        rising = min(1.0, (step - steps.start + 1) / 15)
        for group in optimizer.param_groups:
            rate = group["rate"](step) if "rate" in group else config.train.lr * group["scale"]
            group["lr"] = rising * rate
        optimizer.zero_grad(set_to_none=True)
        generator = step_generator(config.seed, step)
        stage.loss(batch, step, generator)["total"].backward()
        nn.utils.clip_grad_norm_(stage.module.parameters(), config.train.clip_norm)
        optimizer.step()
        stage.after_step(step)
        if (step + 1 - steps.start) % max(1, len(steps) // WATCHED) == 0:
            watched.append((step + 1, films["val"].auroc(stage.module, config)))
            print(f"  step {step + 1}: validation AUROC {watched[-1][1]:.3f}", flush=True)
    stage.module.eval()
    return watched


def localizer(config: Config, ground: Ground, films: dict[str, Films], out: Path) -> Network:
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
    optimizer = torch.optim.Adam(network.parameters(), lr=config.train.lr)
    steps = range(config.train.steps)
    for step, batch in zip(steps, films["train"].annotated().batches(config, steps), strict=True):
        moved, _, masks = augment(
            batch["image"],
            None,
            batch["masks"],
            modality=config.modality,
            generator=step_generator(config.seed, step),
            probability=config.train.augment,
            spacing_mm=ground.spacing_mm,
        )
        assert masks is not None
        stated = network(_display(moved, config)).segmentation[:, 1:].sigmoid()
        loss = clinical_loss(stated, masks[:, 1:], batch["annotated"][:, 1:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.train.clip_norm)
        optimizer.step()
    _keep(network, path)
    return network.eval()


def cell(
    ground: Ground,
    films: dict[str, Films],
    out: Path,
    config: Config,
    methods: list[Explainer],
    *,
    tiny: bool,
) -> None:
    """Train one condition and judge every map on validation and test patients."""
    start = time.process_time()
    name = _name(config)
    stage = Supervised(trunk(config, ground, films, out), config, _population(config, ground))
    begin = round(config.bayes.warm_start * config.train.steps)
    watched = learn(stage, films, range(begin, config.train.steps))
    finder = localizer(config, ground, films, out)
    record: dict = {"direction": config.attention.direction, "masks": config.attention.clinical > 0}
    record |= {"seed": config.seed, "beta": stage.module.beta.softmax(0).tolist()}
    record |= {"watched": watched, "trained_cpu_s": time.process_time() - start}
    for part in ("val", "test"):
        record[f"{part}_auroc"] = films[part].auroc(stage.module, config)
    stage.module.eval()
    model = trained.Trained(stage.module, ground.store.task, config)
    tuning = chosen(ground, "val", tiny=tiny)
    model = assess.calibrate_attention(model, ground.store, tuning)
    model.save(out / name / "model")

    @torch.no_grad()
    def located(each: Picture) -> np.ndarray:
        return finder(each.image).segmentation[0, each.row].sigmoid().numpy()

    seen = {"val": pictures(model, ground.store, tuning)}
    seen["test"] = pictures(model, ground.store, chosen(ground, "test", tiny=tiny))
    levels = choose_levels(model, seen["val"], methods)
    record["levels"] = dict(levels)
    shown = {
        part: draw_maps(model, judged, methods, levels, located) for part, judged in seen.items()
    }
    cuts = thresholds(shown["val"], seen["val"])
    for part, judged in seen.items():
        record[part] = [
            [c.case, c.patient, [[*key, value] for key, value in c.scores.items()]]
            for c in judge_maps(model, judged, shown[part], cuts, faithful=part == "test")
        ]
    sane: list[Explainer] = [m for m in methods if m not in ("modulated", "occlusion")]
    record["randomized"] = randomization(model, seen["test"][:SANE], sane, levels)
    record["cpu_s"] = time.process_time() - start
    with atomic(out / f"{name}.npz") as part_file, part_file.open("wb") as file:
        np.savez_compressed(file, **{m: _padded(maps) for m, maps in shown["test"].items()})
    write_text(out / f"{name}.json", json.dumps(record))
    print(f"{name}: {record['cpu_s']:.0f} CPU seconds", flush=True)


def _name(config: Config) -> str:
    return f"{config.attention.direction}-{config.attention.clinical:g}-{config.seed}"


def _display(image: torch.Tensor, config: Config) -> torch.Tensor:
    return to_display(image, modality=config.modality, window_hu=config.data.window_hu)


def _keep(network: Network, path: Path) -> None:
    with atomic(path) as part:
        torch.save(network.state_dict(), part)


def _population(config: Config, ground: Ground) -> Population:
    images, voxels = len(ground.parts["train"]), int(np.prod(config.data.patch))
    return Population(images=images, voxels=voxels, spacing_mm=ground.spacing_mm)


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
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--cells", type=int, help="stop after so many new ones")
    run.add_argument("--tiny", action="store_true")
    run.add_argument("--slow-in", choices=DIRECTIONS, nargs="*", default=DIRECTIONS)
    verbs.add_parser("table").add_argument("out", type=Path)
    args = parser.parse_args()
    if args.verb == "table":
        print_table(args.out)
        return
    arms = product(args.seeds, DIRECTIONS, MASKS)
    configs = [settings(args.data, *arm, tiny=args.tiny) for arm in arms]
    todo = [c for c in configs if not (args.out / f"{_name(c)}.json").exists()]
    if not todo:
        return
    first = settings(args.data, 0, DIRECTIONS[0], MASKS[0], tiny=args.tiny)
    ground = prepare(first, args.folder, args.out / "ground")
    films = {part: Films(ground, part, first) for part in ("train", "val", "test")}
    for config in todo[: args.cells]:
        every = config.attention.direction in args.slow_in
        methods = [m for m in EXPLAINERS if every or m not in SLOW]
        cell(ground, films, args.out, config, methods, tiny=args.tiny)


if __name__ == "__main__":
    main()
