"""At which level Grad-CAM should read: every level of encoder and decoder, beside our attention.

Run: ``python benchmarks/cam_levels.py RUN... [--data FOLDER] [--elsewhere FOLDER]``. RUNs are run
folders, or cells of ``explanations.py``, of one cohort and one way of training: they count as its
seeds. One annotated image per patient, structure and part, thresholds from validation, figures from
test. Decoder level l (0 the finest) is what the gate of that level reads; at the coarsest level
that is the encoder's own. ``--elsewhere``: the runs are judged on another cohort that outlines what
they know, and whose validation part chooses. Intervals draw patients and runs.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from penumbra import trained
from penumbra.assess.explanations import draw_maps, thresholds
from penumbra.assess.pictures import Picture, pictures
from penumbra.attend import explain as post_hoc
from penumbra.data.store import Store
from penumbra.evaluate import localization
from penumbra.evaluate.statistics import crossed_bootstrap
from penumbra.ground import data_folder, prepare
from penumbra.inference.explain import CAMS, Explainer, logits_of, methods_of
from penumbra.inference.levels import level_name, levels_of
from penumbra.model import Network
from penumbra.study.borrowed import Borrowed, prepared
from penumbra.types import Part

METRICS = ("hit", "iou_tuned", "auprc")
Scores = dict[str, dict[str, dict[str, float]]]
"""Map -> metric -> patient -> score."""


def places(network: Network) -> dict[str, nn.Module]:
    """Every module whose features a CAM may read."""
    return {
        f"{level}: {level_name(network, level)}": layer
        for level, layer in enumerate(levels_of(network))
    }


def one_per_patient(every: Sequence[Picture]) -> list[Picture]:
    """The first annotated image of each patient's structures."""
    return list({(p.patient, p.name): p for p in reversed(every)}.values())


def drawn(
    model: trained.Trained, judged: Sequence[Picture], others: tuple[Explainer, ...]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    yield from draw_maps(model, judged, others).items()
    for method in CAMS:
        for name, layer in places(model.network).items():
            yield (
                f"{method}, {name}",
                [
                    post_hoc.explain(
                        logits_of(model.network, p.row),
                        p.image,
                        target=1 if p.row == 0 else p.row - 1,
                        method=method,
                        generator=torch.Generator().manual_seed(0),
                        layer=layer,
                    )[0].numpy()
                    for p in judged
                ],
            )


def cohort(
    model: trained.Trained, run: Path, data: Path | None, elsewhere: Path | None
) -> tuple[Store, dict[Part, list[int]]]:
    """The run's own validation and test cases, or another cohort's outlined ones."""
    if elsewhere is None:
        ground = prepare(model.config, data_folder(run, data), run)
        return ground.store, ground.parts
    other = prepared(elsewhere, model.config)
    chosen = set(other.indices("val"))
    outlined = [i for i in range(len(other)) if other[i].mapped]
    parts: dict[Part, list[int]] = {
        "val": [i for i in outlined if i in chosen],
        "test": [i for i in outlined if i not in chosen],
    }
    return Borrowed(other, model.task, model.config.data.window_hu), parts


def judged(run: Path, args: argparse.Namespace) -> tuple[Scores, Scores]:
    """Validation and test scores of one run."""
    model, others = trained.load(run), methods_of(args.others)
    store, parts = cohort(model, run, args.data, args.elsewhere)
    parted: tuple[Part, ...] = ("val", "test")
    seen = {part: one_per_patient(pictures(model, store, parts[part])) for part in parted}
    before = dict(drawn(model, seen["val"], others))
    cuts = thresholds(before, seen["val"])
    after = dict(drawn(model, seen["test"], others))
    return scores(seen["val"], before, cuts), scores(seen["test"], after, cuts)


def scores(
    shown: Sequence[Picture], maps: dict[str, list[np.ndarray]], cuts: dict[str, float]
) -> Scores:
    found: Scores = {name: {metric: {} for metric in METRICS} for name in maps}
    for name, each in maps.items():
        rows = [
            localization.score(m, p.mask, spacing_mm=p.spacing_mm, threshold=cuts[name])
            for m, p in zip(each, shown, strict=True)
        ]
        for metric in METRICS:
            for patient in {p.patient for p in shown}:
                own = [r[metric] for r, p in zip(rows, shown, strict=True) if p.patient == patient]
                found[name][metric][patient] = float(np.mean(own))
    return found


def table(runs: Sequence[Scores], name: str, metric: str) -> np.ndarray:
    """[runs, patients]."""
    patients = sorted({p for run in runs for p in run[name][metric]})
    return np.array([[run[name][metric].get(p, np.nan) for p in patients] for run in runs])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, help="their cohort, if it was moved")
    parser.add_argument("--elsewhere", type=Path, help="another cohort")
    parser.add_argument("--others", default="attention,centre_prior", help="as --methods")
    args = parser.parse_args()
    found = [judged(run, args) for run in args.runs]
    val, test = [v for v, _ in found], [t for _, t in found]
    patients = table(test, next(iter(test[0])), "hit").shape[1]
    print(f"{len(args.runs)} runs, {patients} test patients")
    print(f"{'map':60s}{'val auprc':>10s}" + "".join(f"{m:>22s}" for m in METRICS))
    for name in test[0]:
        row = f"{name:60s}{np.nanmean(table(val, name, 'auprc')):10.2f}"
        for metric in METRICS:
            each = crossed_bootstrap(table(test, name, metric))
            row += f"{f'{each.value:.2f} ({each.low:.2f} to {each.high:.2f})':>22s}"
        print(row)


if __name__ == "__main__":
    main()
