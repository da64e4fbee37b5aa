"""Which foreign cases are fitted on and which are judged; never the same."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penumbra.data import tables
from penumbra.errors import DataError

PARTS = ("val", "test")
SHARE = 0.3


def draw_parts(ids: Sequence[str], validation: str | None) -> Mapping[str, tuple[str, ...]]:
    """``val`` and ``test``: from a split file, or a share drawn with a fixed seed.

    Raises:
        DataError: neither a file nor a share, or one that leaves a part empty.
    """
    if validation is not None and Path(validation).is_file():
        return _read(Path(validation), ids)
    try:
        share = SHARE if validation is None else float(validation)
    except ValueError:
        raise DataError(f"{validation}: neither a split file nor a share between 0 and 1") from None
    count = max(1, round(share * len(ids))) if 0 < share < 1 else 0
    if not 0 < count < len(ids):
        raise DataError(
            f"a validation share of {share:g} of {len(ids)} case(s) leaves a part empty; give "
            "more cases or another share"
        )
    order = np.random.default_rng(0).permutation(len(ids))
    chosen = {ids[k] for k in order[:count]}
    return {
        "val": tuple(i for i in ids if i in chosen),
        "test": tuple(i for i in ids if i not in chosen),
    }


def _read(path: Path, ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """The parts that a file names; cases that it does not name are left out.

    Raises:
        DataError: not ``{"val": [...], "test": [...]}`` (or that under ``parts``), a part without
            a predicted case, or a case in both.
    """
    tree: Any = tables.read_json(path)
    parts = tree.get("parts", tree) if isinstance(tree, dict) else {}
    if not isinstance(parts, dict) or not all(isinstance(parts.get(p), list) for p in PARTS):
        raise DataError(f"{path}: expected {json.dumps({'val': ['case'], 'test': ['case']})}")
    named = {part: set(map(str, parts[part])) for part in PARTS}
    chosen = {part: tuple(i for i in ids if i in named[part]) for part in PARTS}
    for part, cases in chosen.items():
        if not cases:
            raise DataError(f"{path}: none of the predicted cases is in '{part}'")
    both = set(chosen["val"]) & set(chosen["test"])
    if both:
        raise DataError(f"{path}: {min(both)} is in val and in test; take it out of one")
    return chosen
