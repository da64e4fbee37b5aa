"""One JSON file per cell, sealed by its content's hash; every published number comes from these."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penumbra.errors import DataError
from penumbra.files import write_text

SCHEMA = 2
DIGITS = 6
"""Significant digits that cases and probes keep: networks compute in float32."""


def seal(content: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON text of a row, its hash left out."""
    bare = {key: value for key, value in content.items() if key != "sha256"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_row(path: Path, content: Mapping[str, Any]) -> None:
    """Write a cell's row, whole or not at all; what is not finite becomes null."""
    row = {"schema": SCHEMA, **finite(content)}
    write_text(path, json.dumps({**row, "sha256": seal(row)}, separators=(",", ":")) + "\n")


def read_row(path: Path) -> dict[str, Any]:
    """A cell's row as it was written, its cases as one record each.

    Raises:
        DataError: it cannot be read, or was changed since.
    """
    try:
        row = json.loads(path.read_text())
        stated = row["sha256"]
        found = seal(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a row of a study ({error}); delete it to run it again") from (
            error
        )
    if found != stated:
        raise DataError(
            f"{path}: was changed after it was written (its hash is {found[:12]}, it says "
            f"{str(stated)[:12]}); restore it, or delete it to run the cell again"
        )
    return {**row, "cases": _records(row.get("cases", {}))}


def columns(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Records as columns: the names stand once. A column that a record lacks is null in it."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: short([record.get(name) for record in records]) for name in names}


def _records(table: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def read_rows(folder: Path, *, needed: bool = True) -> list[dict[str, Any]]:
    """All rows in a folder, in the order of their names.

    Raises:
        DataError: there is none although they are needed, or one was changed.
    """
    rows = [read_row(path) for path in sorted(folder.glob("*.json"))]
    if needed and not rows:
        raise DataError(f"{folder}: holds no finished cell; run `penumbra study` first")
    return rows


def short(value: Any) -> Any:
    """The same tree with every float at ``DIGITS`` significant digits.

    Example:
        >>> short({"probability": [0.12345678901, 1.0, None]})
        {'probability': [0.123457, 1.0, None]}
    """
    if isinstance(value, Mapping):
        return {key: short(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [short(each) for each in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{DIGITS}g}")
    return value


def finite(value: Any) -> Any:
    """The same tree with null for every number that JSON does not know (NaN, infinity).

    Example:
        >>> finite({"dice": [0.5, float("nan")]})
        {'dice': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
