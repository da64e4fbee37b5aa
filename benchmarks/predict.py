"""What a case's prediction costs, in sweeps of MONAI's sliding-window inference.

Run: ``OMP_NUM_THREADS=1 python benchmarks/predict.py [--data BTCV_MINI] [--shape 160 160 64]``. One
sweep is ``sliding_window_inference`` of the same network with its mean weights: same patch, half
overlap, Gaussian weights, then softmax. Ours is ``map_case``: T posterior draws, every map, every
draw's volumes. Two units: the network in our form, and as U-Nets are usually written (up-sampled,
concatenated and convolved, torch's own convolutions). CPU seconds of the process, in turn.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from posterior import PlainUp
from torch import nn

from penumbra import trained
from penumbra.augment import to_display
from penumbra.bayes import bank
from penumbra.config import Config, resolve
from penumbra.data.cohort import read_cohort
from penumbra.data.geometry import Geometry
from penumbra.data.preprocess import Prepared, prepare
from penumbra.inference.maps import map_case
from penumbra.inference.windows import windows
from penumbra.model import Network
from penumbra.types import Case, Task

CLASSES = tuple(f"organ {k}" for k in range(14))


def synthetic(shape: tuple[int, ...]) -> Prepared:
    """Noise around soft tissue, in HU."""
    rng = np.random.default_rng(0)
    image = rng.normal(40, 60, (1, *shape)).astype(np.float32)
    box = tuple((0, n) for n in shape)
    return Prepared(
        case=Case("synthetic", "synthetic", {}),
        image=image,
        segmentation=None,
        findings=np.zeros(0, np.float32),
        body=np.ones(shape, bool),
        masks=np.zeros((0, *shape), np.uint8),
        mapped=(),
        geometry=Geometry(shape, np.eye(4), shape, box, box, shape, np.eye(4)),
        foreground=np.zeros((0, 4), np.int64),
        body_box=box,
    )


def settings(patch: tuple[int, ...]) -> Config:
    overrides = {"data.dim": 3, "data.patch": list(patch), "data.spacing_mm": None}
    overrides["model.widths"] = [16, 32, 64, 128]
    return resolve("abdominal-ct", size="tiny", overrides=overrides)


def plain(config: Config, task: Task) -> Network:
    net = trained.build(config, task).eval()
    for level in net.decoder.levels:
        level.up = PlainUp(level.up)
    for module in net.modules():
        if type(module).__name__ == "Conv3d" and type(module) is not nn.Conv3d:
            module.__class__ = nn.Conv3d
    return net


def sweep(net: nn.Module, case: Prepared, config: Config) -> torch.Tensor:
    image = torch.from_numpy(np.array(case.image, dtype=np.float32))[None]
    shown = to_display(image, modality="ct", window_hu=config.data.window_hu)
    size = tuple(min(p, n) for p, n in zip(config.data.patch, shown.shape[2:], strict=True))
    logits = sliding_window_inference(
        shown, size, 1, lambda x: net(x).segmentation, overlap=0.5, mode="gaussian"
    )
    return logits.softmax(1)


def peak() -> str:
    return f"process so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def run(
    name: str, case: Prepared, task: Task, config: Config, draws: list[int], only: list[str]
) -> None:
    ours = trained.build(config, task).eval()
    posterior = trained.build(config, task)
    trained.convert(posterior, config)
    light_config = config.model_copy(
        update={"bayes": config.bayes.model_copy(update={"scope": "light"})}
    )
    light = trained.build(config, task)
    trained.convert(light, light_config)
    tiled = config.model_copy(
        update={"evaluate": config.evaluate.model_copy(update={"windows": "tile"})}
    )
    usual = plain(config, task)
    candidates: dict[str, Callable[[], object]] = {
        "sweep, our form": lambda: sweep(ours, case, config),
        "sweep, usual form": lambda: sweep(usual, case, config),
    }
    for t in draws:
        for label, net in (("", posterior), (", light posterior", light)):
            with torch.inference_mode():
                drawn = bank(net.eval(), draws=t, generator=torch.Generator().manual_seed(0))
            for how, chosen in (("blended windows", config), ("tiles", tiled)):
                candidates[f"T={t}{label}, {how}"] = lambda net=net, d=drawn, c=chosen: map_case(
                    net, d, case, task, c
                )
    counts = {how: sum(1 for _ in windows(case, config, how=how)) for how in ("blend", "tile")}
    print(
        f"\n{name}: {case.image.shape[1:]}, patch {config.data.patch}, windows {counts}; {peak()}"
    )
    seconds: dict[str, float] = {}
    with torch.inference_mode():
        for label in only or candidates:
            start = time.process_time()
            candidates[label]()
            seconds[label] = time.process_time() - start
            print(f"  {label:36s} {seconds[label]:7.1f} s, {peak()}", flush=True)
    for form in ("our", "usual"):
        if unit := seconds.get(f"sweep, {form} form"):
            ratios = (f"{label} {spent / unit:.2f}" for label, spent in seconds.items())
            print(f"  in sweeps of the network in {form} form: {'; '.join(ratios)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="btcv_mini; its first case is predicted")
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 160, 64))
    parser.add_argument("--patch", type=int, nargs=3, default=(64, 64, 32))
    parser.add_argument("--draws", type=int, nargs="+", default=[8])
    parser.add_argument("--only", nargs="+", default=[], help='rows, as "sweep, our form"')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = settings(tuple(arguments.patch))
    if arguments.data:
        found = read_cohort(arguments.data, modality="ct")
        case = prepare(found.cases[0], found.task, config.data)
        run("btcv_mini", case, found.task, config, arguments.draws, arguments.only)
    else:
        task = Task(
            modality="ct",
            channels=("ct",),
            classes=CLASSES,
            label_values={k: k for k in range(14)},
            regions={name: (k,) for k, name in enumerate(CLASSES) if k},
        )
        run(
            "synthetic",
            synthetic(tuple(arguments.shape)),
            task,
            config,
            arguments.draws,
            arguments.only,
        )


if __name__ == "__main__":
    main()
