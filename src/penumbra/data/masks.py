"""Expert regions beside radiographs and volumes: mask images, boxes, CheXlocalize outlines.

A case names its masks ``finding`` or ``finding/part``; parts of one finding are united.
``roi/part`` outlines the organ (the lungs) instead of a finding.
"""

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from skimage.draw import polygon2mask

from penumbra.data import geometry, radiograph, tables
from penumbra.data.volume import by, refuse_size
from penumbra.errors import DataError
from penumbra.types import Case

ROI = "roi"
CHEXLOCALIZE_NAMES = {"Lung Opacity": "Airspace Opacity"}
"""CheXpert's finding -> the name that CheXlocalize gives it."""


def film_id(path: str) -> str:
    """The name of a film from its path in a CheXpert-like table, as CheXlocalize writes it.

    A blank path has a blank name.

    Example:
        >>> film_id("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg")
        'patient64541_study1_view1_frontal'
    """
    parts = list(Path(path.replace("\\", "/")).parts)
    marks = [i for i, p in enumerate(parts[:-1]) if p.startswith("patient")]
    named = parts[marks[0] :] if marks else parts[-1:] or [""]
    return "_".join([*named[:-1], Path(named[-1]).stem])


def finding_of(name: str) -> str:
    """The finding (or ``roi``) to which a mask belongs.

    Example:
        >>> finding_of("Lung Opacity/consolidation")
        'Lung Opacity'
    """
    return name.split("/", 1)[0]


def read_mask(
    case: Case, name: str, path: Path, shape: tuple[int, ...]
) -> Bool[np.ndarray, "*space"]:
    """One expert mask in the RAS+ grid of the case's images.

    Raises:
        DataError: unreadable, or of another size than the image.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file, named as the mask '{name}' of case {case.id}")
    match path.suffix.lower():
        case ".json":
            mask = _outlined(path, case.id, finding_of(name))
        case ".csv":
            mask = _boxed(path, case.id, finding_of(name), shape)
        case suffix if suffix in radiograph.SUFFIXES:
            mask = radiograph.read_mask(path)
        case _:
            mask = np.asarray(geometry.load_volume(path, label=True).array > 0)
    if mask.shape != shape:
        raise DataError(
            f"{path}: the mask '{name}' is {by(mask.shape)}, the image of case {case.id} "
            f"{by(shape)}; resample the mask to the image"
        )
    return mask


def decode_rle(counts: str, size: tuple[int, int]) -> Bool[np.ndarray, "rows columns"]:
    """COCO's compressed run lengths: column by column, background first, differences of two runs.

    Raises:
        ValueError: the runs do not fill the image.

    Example:
        >>> decode_rle("13", (2, 2)).astype(int).tolist()
        [[0, 1], [1, 1]]
    """
    runs = _runs(counts)
    if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError(f"run lengths cover {sum(runs)} of {size[0] * size[1]} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size, order="F")


def _runs(counts: str) -> list[int]:
    runs: list[int] = []
    at = 0
    while at < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(counts) or shift > 60:
                raise ValueError("run lengths end inside a number")
            byte = ord(counts[at]) - 48
            value |= (byte & 0x1F) << shift
            more = bool(byte & 0x20)
            at += 1
            shift += 5
            if not more and byte & 0x10:
                value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def outlined_findings(path: Path) -> dict[str, set[str]]:
    """Film -> findings with a non-empty outline in a CheXlocalize file.

    Raises:
        DataError: it is not one.
    """
    back = {theirs: ours for ours, theirs in CHEXLOCALIZE_NAMES.items()}
    found = {}
    for film, entry in _tree(path, path.stat().st_mtime_ns).items():
        if not isinstance(entry, dict):
            raise DataError(f"{path}: '{film}' is not a mapping of findings to outlines")
        names = [n for n, outline in entry.items() if n != "img_size" and not _empty(outline)]
        found[film] = {back.get(n, n) for n in names}
    return found


def _empty(outline: Any) -> bool:
    """Whether nothing is outlined; what is not an outline at all is left for reading to refuse."""
    if isinstance(outline, dict) and isinstance(outline.get("counts"), str):
        with contextlib.suppress(ValueError):
            return len(_runs(outline["counts"])) < 2
    return not outline


def _outlined(path: Path, film: str, finding: str) -> Bool[np.ndarray, "rows columns"]:
    entry = _tree(path, path.stat().st_mtime_ns).get(film, {})
    name = CHEXLOCALIZE_NAMES.get(finding, finding)
    if not isinstance(entry, dict) or name not in entry:
        raise DataError(f"{path}: no outline of '{name}' for film {film}")
    return _outline(path, film, entry, name)


def _outline(
    path: Path, film: str, entry: dict[str, Any], name: str
) -> Bool[np.ndarray, "rows columns"]:
    outline = entry[name]
    try:
        size = outline["size"] if isinstance(outline, dict) else entry["img_size"]
        rows, columns = (int(n) for n in size)
        refuse_size((rows, columns), path)
        if isinstance(outline, dict):
            return decode_rle(str(outline["counts"]), (rows, columns))
        mask = np.zeros((rows, columns), dtype=bool)
        for points in outline:
            x_then_y = np.asarray(points, dtype=float).reshape(-1, 2)
            mask |= polygon2mask((rows, columns), x_then_y[:, ::-1])
        return mask
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: '{name}' of film {film} is not an outline ({error})") from error


def _boxed(
    path: Path, film: str, finding: str, shape: tuple[int, ...]
) -> Bool[np.ndarray, "rows columns"]:
    mask = np.zeros(shape, dtype=bool)
    for number, row in enumerate(_rows(path, path.stat().st_mtime_ns), start=2):
        if film_id(row["Path"]) != film or row["finding"] != finding:
            continue
        where = f"{path}, line {number}"
        x, y, width, height = (
            tables.number(row[key], where=where) for key in ("x", "y", "width", "height")
        )
        if not np.isfinite([x, y, width, height]).all():
            raise DataError(f"{where}: a box needs x, y, width and height")
        top, left = max(0, round(y)), max(0, round(x))
        mask[top : max(top + 1, round(y + height)), left : max(left + 1, round(x + width))] = True
    return mask


@lru_cache(maxsize=4)
def _tree(path: Path, changed_ns: int) -> dict[str, Any]:
    tree = tables.read_json(path)
    if not isinstance(tree, dict):
        raise DataError(f"{path}: expected a mapping from films to outlines")
    return tree


@lru_cache(maxsize=4)
def _rows(path: Path, changed_ns: int) -> list[dict[str, str]]:
    return tables.read_csv(path, required=("Path", "finding", "x", "y", "width", "height"))
