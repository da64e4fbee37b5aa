"""Where maps point and whether they tell the truth: attention against explainers, on real lesions.

Run, once per data set (each finished cell is kept, so the same command continues)::

    python benchmarks/explanations.py run lgg SLICES OUT    # of benchmarks/tumour_slices.py
    python benchmarks/explanations.py run cxr FILMS OUT     # CheXpert layout with regions.csv
    python benchmarks/explanations.py table OUT             # OUT/table.json and a printed table

Six conditions (L_att off, reliable, align; each with and without expert masks in training) and
``--seeds`` seeds; in each of them our attention, post-hoc explainers and both priors on the same
test images, beside a localizer of the same size trained on the masks alone. The methods that take
dozens of passes (``SLOW``) explain the networks of one direction (``--slow-in``). Test patients
choose nothing: thresholds, the best post-hoc method and the direction come from validation.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch
from explanations_table import print_table
from torch import nn

from penumbra import assess, pipeline, progress, trained
from penumbra.assess.explanations import compare, draw_maps
from penumbra.assess.pictures import Picture, pictures
from penumbra.assess.sanity import randomization
from penumbra.attend.alignment import clinical_loss
from penumbra.augment import augment, to_display
from penumbra.config import Config, resolve
from penumbra.data.patches import Patches
from penumbra.ground import Ground, prepare
from penumbra.inference.explain import EXPLAINERS, Explainer
from penumbra.model import Network

COMMON = {
    "pretrain.steps": 0,
    "adversarial.weight": 0.0,
    "data.foreground": 0.0,
    "model.widths": [8, 16, 32, 64],
    "bayes.kl": 1e-3,
    "bayes.warm_start": 0.6,
    "bayes.temper": [],
    "attention.start": 0.3,
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
    chance = torch.Generator().manual_seed(config.seed)
    batch = config.train.batch
    with progress.bar("localizer", config.train.steps) as advance:
        for step in range(config.train.steps):
            items = [samples[step * batch + k] for k in range(batch)]
            moved, _, masks = augment(
                torch.stack([item["image"] for item in items]),
                None,
                torch.stack([item["masks"] for item in items]),
                modality=config.modality,
                generator=chance,
                probability=config.train.augment,
                spacing_mm=ground.spacing_mm,
            )
            stated = network(_display(moved, config)).segmentation[:, 1:].sigmoid()
            annotated_pairs = torch.stack([item["annotated"] for item in items])[:, 1:]
            loss = clinical_loss(stated, masks[:, 1:], annotated_pairs)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.train.clip_norm)
            optimizer.step()
            advance(f"loss {float(loss.detach()):.3f}")
    torch.save(network.state_dict(), path)
    return network.eval()


def _display(image: torch.Tensor, config: Config) -> torch.Tensor:
    return to_display(image, modality=config.modality, window_hu=config.data.window_hu)


def cell(folder: Path, out: Path, config: Config, methods: list[Explainer]) -> None:
    """Train one condition and judge every map on validation and on test patients."""
    name = f"{config.attention.direction}-{config.attention.clinical:g}-{config.seed}"
    done = out / f"{name}.json"
    if done.exists():
        return
    pipeline.train(config, folder, out / name)
    model = trained.load(out / name)
    ground = prepare(config, folder, out / name)
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
    run.add_argument("--slow-in", choices=DIRECTIONS, default="off")
    verbs.add_parser("table").add_argument("out", type=Path)
    args = parser.parse_args()
    if args.verb == "table":
        print_table(args.out)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for seed, direction, masks in product(range(args.seeds), DIRECTIONS, MASKS):
        methods = [m for m in EXPLAINERS if m not in SLOW or direction == args.slow_in]
        cell(args.folder, args.out, settings(args.data, seed, direction, masks), methods)


if __name__ == "__main__":
    main()
