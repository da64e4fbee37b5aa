"""From the cells of ``explanations.py`` to one table: means with intervals, and verdicts.

Patients and seeds are both drawn again (crossed bootstrap); what is chosen, validation chooses.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from penumbra.evaluate import faithfulness
from penumbra.evaluate.statistics import Interval, crossed_bootstrap, verdict
from penumbra.files import write_text
from penumbra.inference.explain import EXPLAINERS, POST_HOC

METRICS = (
    "hit",
    "iou_otsu",
    "iou_tuned",
    "auprc",
    "centroid_error_mm",
    "insertion",
    "deletion",
    "gate_change",
    "gate_drop",
)
CLAIMED, GAIN = ("hit", "iou_tuned", "auprc"), 0.25
Cells = list[dict]


def scores(cells: Cells, part: str, method: str, metric: str) -> np.ndarray:
    """[seeds, patients]: the mean over a patient's structures."""
    patients = sorted({patient for cell in cells for _, patient, _ in cell[part]})
    table = np.full((len(cells), len(patients)), np.nan)
    for s, cell in enumerate(cells):
        found: dict[str, list[float]] = {p: [] for p in patients}
        for _, patient, values in cell[part]:
            found[patient] += [
                value
                for name, _, value in values
                if name == f"explanation/{method}/{metric}" and not math.isnan(value)
            ]
        table[s] = [np.mean(found[p]) if found[p] else np.nan for p in patients]
    return table


def gain(cells: Cells, rivals: Cells, method: str, metric: str) -> tuple[str, Interval]:
    """The post-hoc method that is best on validation, and attention's gain over it on test."""
    tried = {m: scores(rivals, "val", m, metric) for m in POST_HOC}
    best = max(
        (m for m, table in tried.items() if not np.isnan(table).all()),
        key=lambda m: np.nanmean(tried[m]),
    )
    return best, over(cells, rivals, (method, best), metric, part="test")


def over(
    cells: Cells, rivals: Cells, methods: tuple[str, str], metric: str, *, part: str
) -> Interval:
    """Relative gain of a method in ``cells`` over another in ``rivals``, seed by seed."""
    seeds = {cell["seed"] for cell in cells} & {cell["seed"] for cell in rivals}
    ours, theirs = (
        scores([cell for cell in each if cell["seed"] in seeds], part, method, metric)
        for each, method in zip((cells, rivals), methods, strict=True)
    )
    return crossed_bootstrap(ours - theirs, over=theirs)


def repeatability(out: Path, cells: Cells) -> dict[str, float]:
    """Mean SSIM between the maps of networks that differ only in their seed."""
    maps = [dict(np.load(out / f"{_name(cell)}.npz")) for cell in cells]
    found = {}
    for method in (m for m in EXPLAINERS if m in maps[0]):
        alike = []
        for same in zip(*(m[method].astype(np.float64) for m in maps), strict=True):
            inside = ~np.isnan(same[0])
            shape = inside.any(1).sum(), inside.any(0).sum()
            alike.append(faithfulness.repeatability([m[inside].reshape(shape) for m in same]).ssim)
        found[method] = float(np.nanmean(alike))
    return found


def summary(out: Path) -> dict:
    cells = [json.loads(path.read_text()) for path in sorted(out.glob("*-*-[0-9].json"))]
    keys = sorted({(cell["masks"], cell["direction"]) for cell in cells})
    grouped = {
        key: sorted(
            (c for c in cells if (c["masks"], c["direction"]) == key), key=lambda c: c["seed"]
        )
        for key in keys
    }
    record: dict = {"conditions": [], "chosen": {}}
    for (masks, direction), group in grouped.items():
        plain = grouped.get((False, "off"), group)
        entry = {"masks": masks, "direction": direction} | condition(group, plain)
        if len(group) > 1:
            alike = repeatability(out, group)
            entry["repeatability_ssim"] = {m: round(v, 2) for m, v in alike.items()}
        record["conditions"].append(entry)
    for masks in sorted({masks for masks, _ in keys}):
        record["chosen"]["with masks" if masks else "no masks"] = max(
            (direction for m, direction in keys if m == masks),
            key=lambda d: np.nanmean(scores(grouped[masks, d], "val", "attention", "auprc")),
        )
    return record


def _asked(cells: Cells, method: str) -> bool:
    return not np.isnan(scores(cells, "test", method, "hit")).all()


def condition(group: Cells, plain: Cells) -> dict:
    """One condition over its seeds; ``plain`` is the network without masks and L_att."""
    entry: dict = {"seeds": len(group)}
    for part in ("val", "test"):
        entry[f"{part}_auroc"] = [round(cell[f"{part}_auroc"], 3) for cell in group]
        entry[part] = {
            method: {
                metric: _short(crossed_bootstrap(table))
                for metric in METRICS
                if not np.isnan(table := scores(group, part, method, metric)).all()
            }
            for method in (*EXPLAINERS, "localizer")
            if not np.isnan(scores(group, part, method, "hit")).all()
        }
    entry["levels"] = [cell.get("levels") for cell in group]
    entry["gain"] = {}
    asked = [set(entry["test"]), {m for m in EXPLAINERS if _asked(plain, m)}]
    for metric in CLAIMED:
        for name, rivals in (("same network", group), ("plain network", plain)):
            if rivals is group and not asked[1] <= asked[0]:
                continue  # its strongest rivals were not asked: no verdict
            best, effect = gain(group, rivals, "attention", metric)
            entry["gain"][f"{metric}, {name}"] = {
                "over": best,
                "gain": _short(effect),
                "verdict": verdict(effect, threshold=GAIN),
            }
    entry["dimming_val"] = {
        metric: _short(over(group, group, ("modulated", "attention"), metric, part="val"))
        for metric in CLAIMED
    }
    entry["randomized_ssim"] = {
        m: np.mean([c["randomized"][m] for c in group], axis=0).round(2).tolist()
        for m in group[0]["randomized"]
    }
    return entry


def print_table(out: Path) -> None:
    record = summary(out)
    write_text(out / "table.json", json.dumps(record, indent=1))
    for entry in record["conditions"]:
        title = f"{'with' if entry['masks'] else 'no'} masks, L_att {entry['direction']}"
        print(f"\n== {title}: AUROC val {entry['val_auroc']}, test {entry['test_auroc']}")
        for part in ("val", "test"):
            columns = [m for m in METRICS if m in entry[part]["attention"]]
            print(f"{part:22s}" + "".join(f"{c:>22s}" for c in columns))
            for method, values in entry[part].items():
                print(f"{method:22s}" + "".join(_cell(values.get(c)) for c in columns))
        for name, each in entry["gain"].items():
            print(f"gain in {name}: {each['gain']} over {each['over']}: {each['verdict']}")
        print("gain of dimming by uncertainty, validation:", entry["dimming_val"])
        print("levels that Grad-CAM reads, by validation", entry["levels"])
        print("randomized", entry["randomized_ssim"], "seeds", entry.get("repeatability_ssim"))
    print("\ndirection with the best AUPRC on validation:", record["chosen"])


def _cell(values: Sequence[float] | None) -> str:
    return f"{'':>22s}" if values is None else f"{'{:.2f} ({:.2f}-{:.2f})'.format(*values):>22s}"


def _short(interval: Interval) -> list[float]:
    return [round(v, 3) for v in (interval.value, interval.low, interval.high)]


def _name(cell: dict) -> str:
    return f"{cell['direction']}-{2 if cell['masks'] else 0}-{cell['seed']}"
