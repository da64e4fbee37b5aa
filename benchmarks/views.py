"""Views against batchgeneratorsv2, kornia, MONAI and TorchIO, as ratios of times in the same run.

    OMP_NUM_THREADS=1 python benchmarks/views.py [--rounds 5] [--skip-3d]

Each candidate runs the same kind of chain: elastic deformation, gamma, gain, noise, hidden boxes
and a k-space artefact, always applied. Peers that lack a step skip it, which is in their favour:
kornia and batchgeneratorsv2 have no k-space, kornia has no 3-D deformation, TorchIO hides no boxes.
The figures are processor time on one core, medians over rounds in which all candidates take turns.
Peers that are not installed are named and left out.
"""

import argparse
import importlib
import statistics
import time
import warnings
from collections.abc import Callable

import torch

from penumbra.augment import augment, two_views
from penumbra.augment.compose import FAMILIES
from penumbra.augment.elastic import Warp
from penumbra.augment.masking import Masking
from penumbra.augment.profile import profile_for

Chain = Callable[[torch.Tensor], object]


def ours(dim: int) -> Chain:
    rows = profile_for("mri")
    generator = torch.Generator().manual_seed(0)
    families = [FAMILIES[name] for name in ("gamma", "gain", "rician", "spike")]

    def chain(batch: torch.Tensor) -> torch.Tensor:
        batch = Warp.sample(generator, batch.shape, rows).apply(batch)
        for family in families:
            batch = family.sample(generator, batch.shape, rows).apply(batch)
        return Masking.sample(generator, batch.shape, rows).apply(batch)

    return chain


def monai(dim: int) -> Chain:
    t = importlib.import_module("monai.transforms")
    elastic = (
        t.Rand2DElastic((32, 32), (2, 5), prob=1, padding_mode="border")
        if dim == 2
        else t.Rand3DElastic((5, 8), (50, 150), prob=1, padding_mode="border")
    )
    chain = t.Compose(
        [
            elastic,
            t.RandAdjustContrast(prob=1, gamma=(0.7, 1.4)),
            t.RandScaleIntensity(0.2, prob=1),
            t.RandRicianNoise(prob=1, std=0.05),
            t.RandCoarseDropout(8, 24, prob=1),
            t.RandKSpaceSpikeNoise(prob=1),
        ]
    )
    return lambda batch: [chain(image) for image in batch]


def torchio(dim: int) -> Chain:
    t = importlib.import_module("torchio")
    chain = t.Compose(
        [
            t.RandomElasticDeformation(max_displacement=5 if dim == 3 else (5, 5, 0)),
            t.RandomGamma((-0.3, 0.3)),
            t.RandomNoise(std=(0.01, 0.06)),
            t.RandomSpike(),
        ]
    )
    if dim == 2:
        return lambda batch: [chain(image[..., None])[..., 0] for image in batch]
    return lambda batch: [chain(image) for image in batch]


def kornia(dim: int) -> Chain:
    if dim == 3:
        raise ImportError("no 3-D deformation")
    k = importlib.import_module("kornia.augmentation")
    chain = k.AugmentationSequential(
        k.RandomElasticTransform(p=1),
        k.RandomGamma((0.7, 1.4), p=1),
        k.RandomBrightness((0.8, 1.2), p=1),
        k.RandomGaussianNoise(std=0.05, p=1),
        k.RandomErasing((0.15, 0.3), p=1),
        data_keys=["input"],
    )
    return lambda batch: chain(batch)


def batchgenerators(dim: int) -> Chain:
    base = "batchgeneratorsv2.transforms."
    load = importlib.import_module
    size = (224,) * 2 if dim == 2 else (96,) * 3
    steps = [
        load(base + "spatial.spatial").SpatialTransform(
            size,
            0,
            False,
            p_elastic_deform=1,
            elastic_deform_scale=(0.1, 0.2),
            elastic_deform_magnitude=(2, 5),
        ),
        load(base + "intensity.gamma").GammaTransform((0.7, 1.4), 0, True, 1, 0),
        load(base + "intensity.brightness").MultiplicativeBrightnessTransform((0.8, 1.2), True),
        load(base + "intensity.gaussian_noise").GaussianNoiseTransform((0.01, 0.05)),
        load(base + "noise.blank_rectangle").BlankRectangleTransform(24, 0.0, 8),
    ]

    def chain(batch: torch.Tensor) -> list[torch.Tensor]:
        done = []
        for image in batch:
            data = {"image": image}
            for step in steps:
                data = step(**data)
            done.append(data["image"])
        return done

    return chain


PEERS = {
    "batchgeneratorsv2": batchgenerators,
    "kornia": kornia,
    "MONAI": monai,
    "TorchIO": torchio,
}
GOALS = {
    2: {"batchgeneratorsv2": 4, "kornia": 4, "MONAI": 10, "TorchIO": 20},
    3: {"batchgeneratorsv2": 4, "MONAI": 10, "TorchIO": 10},
}


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def compare(batch: torch.Tensor, rounds: int) -> None:
    """Whole chains, candidates in turn, ratios within each round."""
    dim, count = batch.ndim - 2, batch.shape[0]
    chains: dict[str, Chain] = {"penumbra": ours(dim)}
    for name, build in PEERS.items():
        try:
            chains[name] = build(dim)
            chains[name](batch.clone())
        except ImportError as reason:
            chains.pop(name, None)
            print(f"  {name}: left out ({reason})")
    chains["penumbra"](batch)
    times: dict[str, list[float]] = {name: [] for name in chains}
    for _ in range(rounds):
        for name, chain in chains.items():
            fresh = batch.clone()
            repeats = 5 if name == "penumbra" else 1
            spent = seconds(lambda f=fresh, c=chain, r=repeats: [c(f) for _ in range(r)])
            times[name].append(spent / repeats)
    print("\n| chain | images/s | penumbra is faster by | goal |\n|---|---|---|---|")
    for name, spent in times.items():
        ratio = statistics.median(
            t / mine for t, mine in zip(spent, times["penumbra"], strict=True)
        )
        goal = GOALS[dim].get(name, "")
        print(f"| {name} | {count / statistics.median(spent):.1f} | {ratio:.1f} | {goal} |")


def single(batch: torch.Tensor, rounds: int) -> None:
    """Every operation over a plain memory copy of the batch."""
    copy = statistics.median(
        seconds(lambda: [batch.clone() for _ in range(20)]) / 20 for _ in range(rounds)
    )
    generator = torch.Generator().manual_seed(0)
    candidates = {"elastic": Warp, **FAMILIES, "masking": Masking}
    print(f"\n| operation | ms per batch | over a copy ({copy * 1e3:.2f} ms) |\n|---|---|---|")
    for name, family in candidates.items():
        modality = next(m for m in ("mri", "ct", "xray") if name in profile_for(m).table)
        rows = profile_for(modality, (2.0,) * (batch.ndim - 2))
        image = batch * 400 - 160 if modality == "ct" else batch

        def run(family: type = family, rows: object = rows, image: torch.Tensor = image) -> object:
            return family.sample(generator, image.shape, rows).apply(image)

        run()
        spent = statistics.median(seconds(run) for _ in range(rounds))
        print(f"| {name} ({modality}) | {spent * 1e3:.1f} | {spent / copy:.0f} |")


def training(rounds: int) -> None:
    """What a training step pays: 16 slices of 3 channels at 128 x 128."""
    print("\n| call, 16 x c x 128 x 128 | ms |\n|---|---|")
    generator = torch.Generator().manual_seed(0)
    for modality, channels in (("mri", 3), ("ct", 1), ("xray", 1)):
        image = torch.rand(16, channels, 128, 128)
        image = image * 400 - 160 if modality == "ct" else image
        body = torch.ones(16, 128, 128, dtype=torch.bool)
        labels = body.long()

        def pair(image=image, body=body, modality=modality) -> object:
            return two_views(
                image, modality=modality, generator=generator, body=body, spacing_mm=(2.0, 2.0)
            )

        def supervised(image=image, labels=labels, modality=modality) -> object:
            return augment(
                image, labels, modality=modality, generator=generator, spacing_mm=(2.0, 2.0)
            )

        for name, call in (("two_views", pair), ("augment", supervised)):
            for _ in range(4):
                call()
            spent = statistics.median(seconds(call) for _ in range(4 * rounds))
            print(f"| {name}, {modality}, c={channels} | {spent * 1e3:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-3d", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peers' own
    generator = torch.Generator().manual_seed(0)
    flat = torch.rand(8, 1, 224, 224, generator=generator)
    solid = torch.rand(2, 1, 96, 96, 96, generator=generator)
    print("## 2-D, 224 x 224, batch 8")
    compare(flat, arguments.rounds)
    if not arguments.skip_3d:
        print("\n## 3-D, 96^3, batch 2")
        compare(solid, arguments.rounds)
    print("\n## Single operations, 2-D")
    single(flat, arguments.rounds)
    print("\n## In training")
    training(arguments.rounds)


if __name__ == "__main__":
    main()
