"""A plain MONAI residual U-Net on a run's own slices, steps, split and augmentation.

    python benchmarks/plain_unet.py runs/lgg --data DATA

The yardstick of a finished run: deterministic, from scratch, cross-entropy + Dice, Adam with the
run's learning rate and cosine decay, as many parameters and steps. Prints the Dice of both, per
test patient, and their paired difference with its bootstrap interval.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet

from penumbra import progress, trained
from penumbra.augment import augment, to_display
from penumbra.data.patches import Patches
from penumbra.evaluate.overlap import confusion, dice
from penumbra.evaluate.statistics import bootstrap, paired_bootstrap
from penumbra.ground import Ground, prepare
from penumbra.training.schedule import Schedule, step_generator


def plain_unet(channels: int, classes: int, parameters: int, depth: int) -> DynUNet:
    """The residual DynUNet whose size comes closest to ``parameters``."""
    candidates = []
    for base in range(8, 41, 2):
        widths = [min(base * 2**level, 10 * base) for level in range(depth)]
        net = DynUNet(
            spatial_dims=2,
            in_channels=channels,
            out_channels=classes,
            kernel_size=[3] * depth,
            strides=[1] + [2] * (depth - 1),
            upsample_kernel_size=[2] * (depth - 1),
            filters=widths,
            res_block=True,
        )
        size = sum(p.numel() for p in net.parameters())
        candidates.append((abs(size - parameters), base, net))
    return min(candidates, key=lambda c: c[:2])[2]


def train(net: DynUNet, ground: Ground, model: trained.Trained, *, seed: int) -> None:
    config = model.config
    settings = config.train
    schedule = Schedule(settings.steps, settings.batch, settings.lr, settings.warm_up)
    samples = Patches(ground.store, ground.parts["train"], settings=config.data, seed=seed)
    loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.lr)
    with progress.bar("plain U-Net", settings.steps) as advance:
        for step in range(settings.steps):
            keys = range(step * settings.batch, (step + 1) * settings.batch)
            batch = torch.utils.data.default_collate([samples[k] for k in keys])
            image, labels, _ = augment(
                batch["image"],
                batch["segmentation"],
                modality=config.modality,
                generator=step_generator(seed, step),
                probability=settings.augment,
                spacing_mm=ground.spacing_mm,
            )
            image = normalised(image, model)
            value = loss(net(image), labels.clamp(min=0)[:, None])
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), settings.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr_at(step)
            optimizer.step()
            advance(f"loss {float(value):.3f}")


def normalised(image: torch.Tensor, model: trained.Trained) -> torch.Tensor:
    config, encoder = model.config, model.network.encoder
    image = to_display(image, modality=config.modality, window_hu=config.data.window_hu)
    return (image - encoder.input_mean.view(1, -1, 1, 1)) / encoder.input_std.view(1, -1, 1, 1)


@torch.inference_mode()
def score(net: DynUNet, ground: Ground, model: trained.Trained) -> dict[str, float]:
    """Case -> mean Dice over the task's regions."""
    net.eval()
    scores = {}
    for index in ground.parts["test"]:
        case = ground.store[index]
        stack = torch.from_numpy(np.moveaxis(np.array(case.image, np.float32), -1, 0))
        multiple = 2 ** (len(model.config.model.widths) - 1)
        pad = [(-n) % multiple for n in stack.shape[2:]]
        stack = torch.nn.functional.pad(stack, (0, pad[1], 0, pad[0]))
        logits = torch.cat([net(normalised(x, model)) for x in stack.split(16)])
        labels = np.moveaxis(logits.argmax(1).numpy(), 0, -1)
        labels = labels[tuple(slice(n) for n in case.image.shape[1:])]
        counts = confusion(labels, np.asarray(case.segmentation), classes=logits.shape[1])
        scores[case.id] = float(np.nanmean([dice(counts, m) for m in model.task.regions.values()]))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = trained.load(options.run)
    ground = prepare(model.config, options.data, options.run)
    wanted = sum(p.numel() for p in trained.build(model.config, model.task).parameters())
    torch.manual_seed(options.seed)
    depth = len(model.config.model.widths)
    net = plain_unet(len(model.task.channels), len(model.task.classes), wanted, depth)
    train(net, ground, model, seed=options.seed)
    theirs = score(net, ground, model)
    with (options.run / "cases.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["part"] == "test"]
    ours = {line["case"]: float(line["dice"]) for line in lines}
    cases = sorted(ours)
    pairs = [ours[c] for c in cases], [theirs[c] for c in cases]
    difference = paired_bootstrap(*pairs)
    result = {
        "parameters": {"plain": sum(p.numel() for p in net.parameters()), "ours": wanted},
        "plain_dice": vars_of(bootstrap(pairs[1])),
        "our_dice": vars_of(bootstrap(pairs[0])),
        "difference": vars_of(difference),
        "median": {"plain": float(np.median(pairs[1])), "ours": float(np.median(pairs[0]))},
        "cases": {c: {"plain": round(theirs[c], 4), "ours": round(ours[c], 4)} for c in cases},
    }
    (options.run / "plain_unet.json").write_text(json.dumps(result, indent=1))
    print(json.dumps({k: v for k, v in result.items() if k != "cases"}, indent=1))


def vars_of(interval: object) -> dict[str, float]:
    return {name: getattr(interval, name) for name in ("value", "low", "high", "n")}


if __name__ == "__main__":
    main()
