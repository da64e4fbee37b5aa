"""What a run folder holds, as plain records; a missing part is empty, a broken one is an error."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from jaxtyping import Float, Int

from penumbra.data.npz import BROKEN
from penumbra.errors import DataError, first_line

T = TypeVar("T")
Tree = Mapping[str, Any]
MAPS = ("epistemic", "aleatoric", "attention")
MOST_SAMPLES = 8
STAGES = ("", "pretrain", "train")


@dataclass(frozen=True, slots=True)
class Sample:
    """One slice or radiograph to look at, row 0 at the top.

    Attributes:
        image: display units in [0, 1].
        maps: ``epistemic``, ``aleatoric`` and ``attention``, those that exist.
        classes: names of the label values 0, 1, ...; may be empty.
        findings: finding -> ``probability`` and, where known, ``reference`` and ``epistemic``.
    """

    name: str
    title: str
    image: Float[np.ndarray, "h w"]
    reference: Int[np.ndarray, "h w"] | None
    prediction: Int[np.ndarray, "h w"] | None
    maps: Mapping[str, Float[np.ndarray, "h w"]]
    classes: tuple[str, ...]
    findings: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Everything that a report shows; see DESIGN, "A run folder"."""

    path: Path
    config: Tree
    split: Tree
    metrics: Tree
    curves: Tree
    log: tuple[Tree, ...]
    cases: tuple[Mapping[str, str], ...]
    samples: tuple[Sample, ...]


def read_run(path: Path) -> RunFolder:
    """The parts of a run folder.

    Raises:
        DataError: the folder holds no run, or one of its files cannot be read.
    """
    samples = sorted((path / "evaluation" / "samples").glob("*.npz"))
    found = RunFolder(
        path=path,
        config=_read(path / "config.yaml", _yaml, {}),
        split=_read(path / "split.json", _json, {}),
        metrics=_read(path / "metrics.json", _json, {}),
        curves=_read(path / "evaluation" / "curves.json", _json, {}),
        log=tuple(line for stage in STAGES for line in _log(path / stage)),
        cases=_read(path / "cases.csv", _table, ()),
        samples=tuple(_parsed(sample, _sample) for sample in samples[:MOST_SAMPLES]),
    )
    if not (found.config or found.metrics or found.log):
        raise DataError(
            f"{path}: not a run folder (no config.yaml, metrics.json or log.jsonl); "
            "give the --out folder of `penumbra run`"
        )
    return found


def _read(path: Path, parse: Callable[[Path], T], missing: T) -> T:
    return _parsed(path, parse) if path.is_file() else missing


def _log(folder: Path) -> tuple[Tree, ...]:
    return _read(folder / "log.jsonl", _lines, ())


def _parsed(path: Path, parse: Callable[[Path], T]) -> T:
    try:
        return parse(path)
    except (*BROKEN, yaml.YAMLError, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read ({first_line(error)}); run `penumbra evaluate` on this folder "
            "again"
        ) from error


def _mapping(tree: object) -> Tree:
    if not isinstance(tree, dict):
        raise ValueError(f"expected a mapping, got {type(tree).__name__}")
    return tree


def _yaml(path: Path) -> Tree:
    return _mapping(yaml.safe_load(path.read_text()))


def _json(path: Path) -> Tree:
    return _mapping(json.loads(path.read_text()))


def _lines(path: Path) -> tuple[Tree, ...]:
    lines = path.read_text().splitlines()
    if lines and not lines[-1].rstrip().endswith("}"):
        lines = lines[:-1]  # a killed run leaves half a line; the next one continues after it
    return tuple(_mapping(json.loads(line)) for line in lines if line.strip())


def _table(path: Path) -> tuple[Mapping[str, str], ...]:
    with path.open(newline="") as file:
        rows = tuple(csv.DictReader(file))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("rows differ in their number of columns")
    return rows


def _sample(path: Path) -> Sample:
    with path.open("rb") as handle:
        archive = np.load(handle, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz archive")
        arrays = {name: archive[name] for name in archive.files}
    image = np.asarray(arrays["image"], np.float32)
    pictures = ("reference", "prediction", *MAPS)
    for name in pictures:
        if name in arrays and arrays[name].shape != image.shape:
            raise ValueError(f"{name} is {arrays[name].shape}, the image {image.shape}")
    if image.ndim != 2:
        raise ValueError(f"expected an image of rows and columns, got shape {image.shape}")

    def labels(name: str) -> Int[np.ndarray, "h w"] | None:
        return arrays[name].astype(np.int64) if name in arrays else None

    findings = json.loads(str(arrays["findings"])) if "findings" in arrays else {}
    return Sample(
        name=path.stem,
        title=str(arrays.get("title", path.stem)),
        image=image,
        reference=labels("reference"),
        prediction=labels("prediction"),
        maps={name: np.asarray(arrays[name], np.float32) for name in MAPS if name in arrays},
        classes=tuple(str(name) for name in arrays.get("classes", ())),
        findings={name: _finding(value) for name, value in _mapping(findings).items()},
    )


def _finding(value: Any) -> Mapping[str, float]:
    """A probability, a pair of probability and reference, or both by name."""
    match value:
        case dict():
            return value
        case [probability, reference]:
            return {"probability": float(probability), "reference": float(reference)}
        case _:
            return {"probability": float(value)}
