"""The summaries in a prediction folder, read without loading a model."""

import json
from pathlib import Path
from typing import Any

from penumbra.errors import DataError

SCHEMA = "penumbra-prediction-1"
NOTE = "Research software, not a medical device."


def read_summaries(folder: Path) -> list[dict[str, Any]]:
    """Every ``<case>.json`` of a prediction folder, the most in need of review first.

    Raises:
        DataError: a summary is damaged.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text())
            if isinstance(record, dict) and record.get("schema") == SCHEMA:
                place = -float(record["decision"]["need_of_review"]), str(record["case"])
                found.append((place, record))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not readable ({error}); predict the case again") from error
    return [record for _, record in sorted(found, key=lambda pair: pair[0])]
