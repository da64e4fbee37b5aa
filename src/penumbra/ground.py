"""What every stage of a run stands on: its configuration, its cohort, split and prepared."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from penumbra import progress
from penumbra.augment import families, to_display
from penumbra.config import Config, load
from penumbra.data import split
from penumbra.data.cohort import read_cohort
from penumbra.data.store import Store, build
from penumbra.data.tables import read_json
from penumbra.errors import ConfigError, DataError
from penumbra.files import cache_folder, write_text
from penumbra.types import Cohort, Part

Parts = dict[Part, list[int]]


@dataclass(frozen=True)
class Ground:
    """The prepared cohort of a run, and who belongs to which part."""

    store: Store
    parts: Parts
    spacing_mm: tuple[float, ...]
    provenance: dict[str, Any]

    def images(self, index: int) -> int:
        """Training images in a case: its slices, or one."""
        image = self.store[index].image
        return image.shape[-1] if self.slicewise and image.ndim == 4 else 1

    @property
    def slicewise(self) -> bool:
        return len(self.spacing_mm) == 2

    def display_statistics(self, config: Config) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [c] of the training bodies' voxels, in display units."""
        sums = torch.zeros(3, len(self.store.task.channels), dtype=torch.float64)
        for index in self.parts["train"]:
            case = self.store[index]
            image = torch.from_numpy(np.array(case.image, dtype=np.float32))[None]
            window = config.data.window_hu
            shown = to_display(image, modality=config.modality, window_hu=window)[0].double()
            inside = shown[:, torch.from_numpy(np.array(case.body))]
            count = torch.full_like(inside[:, 0], inside.shape[1])
            sums += torch.stack([count, inside.sum(1), inside.square().sum(1)])
        mean = sums[1] / sums[0]
        return mean, (sums[2] / sums[0] - mean.square()).clamp(min=1e-6).sqrt()


def prepare(config: Config, data: Path, out: Path, *, visiting: bool = False) -> Ground:
    """Read, split and preprocess a cohort; everything is found again when it is already there.

    Args:
        visiting: the cohort may be another than the run's own, whose files then stay as they are.

    Raises:
        ConfigError: the run was begun with other settings.
        DataError: the cohort cannot be read, or is not the one that the run was begun with.
    """
    _known_families(config)
    _settle_config(config, out)
    drawn = config.seed if config.data.split_seed is None else config.data.split_seed
    cohort = split.draw(
        _asked(read_cohort(data, modality=config.modality), config.data.heads),
        seed=drawn,
        holdout_site=config.data.holdout_site,
        fold=config.data.fold,
    )
    if not visiting:
        _settle_split(cohort, out)
        write_text(out / "data.json", json.dumps({"folder": str(data.resolve())}))
    with progress.bar("prepare", len(cohort.cases)) as advance:
        store = build(
            cohort,
            config.data,
            cache_folder() / "store",
            progress=lambda done, total, case: advance(case),
        )
    parts: Parts = {p: [] for p in ("train", "val", "test")}
    for index, case in enumerate(store.cases):
        if case.part:
            parts[case.part].append(index)
    for part, members in parts.items():
        if not members:
            raise DataError(f"{data}: no readable case in the {part} part; see split.json in {out}")
    spacings = np.array([store[i].geometry.spacing_mm for i in parts["train"]])
    spacing = tuple(float(s) for s in np.median(spacings, axis=0)[: config.data.dim])
    provenance = {"cohort": cohort.name, "split": split.digest(cohort)}
    return Ground(store, parts, spacing, provenance)


def _asked(cohort: Cohort, heads: Literal["all", "segmentation", "findings"]) -> Cohort:
    """The cohort with the labels of these heads alone."""
    match heads:
        case "all":
            return cohort
        case "segmentation":
            task = replace(cohort.task, findings=())
            cases = tuple(replace(case, findings={}, masks={}) for case in cohort.cases)
        case "findings":
            task = replace(cohort.task, classes=(), label_values={}, regions={})
            cases = tuple(replace(case, segmentation=None) for case in cohort.cases)
    if not task.classes and not task.findings:
        raise ConfigError(f"data.heads {heads}: {cohort.name} has no labels of that kind")
    return replace(cohort, task=task, cases=cases)


def device(config: Config) -> torch.device:
    """The device that the configuration asks for; ``auto`` takes a GPU when there is one.

    Raises:
        ConfigError: ``cuda`` is asked for and torch sees no GPU.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda was asked for, but torch sees no GPU; use --device auto")
    return torch.device(config.device)


def _known_families(config: Config) -> None:
    unknown = sorted(set(config.train.held_out) - set(families(config.modality)))
    if unknown:
        raise ConfigError(
            f"train.held_out: no family of views is called {', '.join(unknown)}; "
            f"{config.modality} has {', '.join(families(config.modality))}"
        )


def _settle_config(config: Config, out: Path) -> None:
    """Write the configuration, or refuse to continue a run that has another one."""
    path = out / "config.yaml"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be created ({error.strerror}); choose another --out"
        ) from error
    if not path.exists():
        write_text(path, config.yaml())
        return
    before, now = load(path).model_dump(), config.model_dump()
    before["device"], before["data"]["workers"] = now["device"], now["data"]["workers"]  # free
    changed = [
        f"{section}.{key}: {before[section][key]} -> {value}"
        for section, values in now.items()
        if isinstance(values, dict)
        for key, value in values.items()
        if before[section][key] != value
    ]
    changed += [
        f"{key}: {before[key]} -> {value}"
        for key, value in now.items()
        if not isinstance(value, dict) and before[key] != value
    ]
    if changed:
        raise ConfigError(
            f"{path}: this run was begun with other settings ({'; '.join(changed)}); "
            "choose another --out, or delete the folder to begin again"
        )


def _settle_split(cohort: Cohort, out: Path) -> None:
    """Write the split, or refuse to continue a run whose cases have changed meanwhile."""
    path = out / "split.json"
    if not path.exists():
        split.write(cohort, path)
        return
    tree = read_json(path)
    before = {case for part in tree["parts"].values() for case in part}
    if tree["hash"] != split.digest(cohort):
        now = {case.id for case in cohort.cases}
        raise DataError(
            f"{path}: this run was begun with another cohort or split ({len(now - before)} new "
            f"case(s), {len(before - now)} gone); restore the data, or choose another --out"
        )


def data_folder(run: Path, data: Path | None) -> Path:
    """``data``, or the cohort that the run was begun with.

    Raises:
        DataError: neither is known.
    """
    if data is not None:
        return data
    try:
        return Path(json.loads((run / "data.json").read_text())["folder"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{run}: does not say where its data are; give --data") from error
