"""CSV and JSON side files, read with errors that name the file and the remedy."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penumbra.errors import DataError, first_line
from penumbra.types import Part

PART_NAMES: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
MAX_BYTES = 2**30


def read_csv(path: Path, *, required: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows as column -> text, blanks as "".

    Raises:
        DataError: unreadable, empty, a required column is missing, or a row has extra cells.
    """
    try:
        refuse_large(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [c.strip() for c in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); save it as UTF-8 CSV") from error
    for column in required:
        if column not in columns:
            raise DataError(
                f"{path}: no column '{column}'; its columns are {', '.join(columns[:20]) or 'none'}"
            )
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise DataError(f"{path}, line {number}: more cells than the header has columns")
    return [{k: (v or "").strip() for k, v in row.items()} for row in rows]


def read_columns(path: Path) -> list[str]:
    """The header of a CSV file.

    Raises:
        DataError: it cannot be read as UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [c.strip() for c in next(csv.reader(file), [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error}); save it as UTF-8 CSV") from error


def read_json(path: Path) -> Any:
    """The tree of a JSON file.

    Raises:
        DataError: unreadable or not JSON.
    """
    try:
        refuse_large(path)
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({first_line(error)})") from error


def refuse_large(path: Path) -> None:
    """Refuse a text file that no data set has, before it is read into memory.

    Raises:
        DataError: it is larger than ``MAX_BYTES``.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path}: {path.stat().st_size} bytes is too large for a table")


def is_there(path: Path) -> bool:
    """Whether a path that a table names exists; False for names that no file can have."""
    return os.path.exists(path)


def is_file(path: Path) -> bool:
    """The same for files alone."""
    return os.path.isfile(path)


def number(text: str, *, where: str) -> float:
    """A cell as a number; blank is NaN.

    Raises:
        DataError: neither blank nor a number.
    """
    if text == "" or text.lower() in {"nan", "na", "n/a"}:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: '{text}' is not a number") from None


def part_of(text: str, *, where: str) -> Part | None:
    """A part from its usual names; blank is none.

    Raises:
        DataError: another word.
    """
    if not text:
        return None
    if text.lower() not in PART_NAMES:
        raise DataError(f"{where}: split '{text}' is not one of train, val, test")
    return PART_NAMES[text.lower()]
