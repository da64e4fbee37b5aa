"""What a prediction folder holds, when writing or reading it goes wrong."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from penumbra.data.geometry import Geometry
from penumbra.errors import DataError, WriteError
from penumbra.inference.files import write_map
from penumbra.inference.records import SCHEMA, read_summaries


def test_a_map_that_does_not_fit_on_the_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(image: object, path: Path) -> None:
        path.write_bytes(b"half a map")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel, "save", half)
    whole = ((0, 2), (0, 3), (0, 4))
    placed = Geometry((2, 3, 4), np.eye(4), (2, 3, 4), whole, whole, (2, 3, 4), np.eye(4))
    with pytest.raises(WriteError, match="No space left"):
        write_map(tmp_path, "map", np.zeros((2, 3, 4), np.float32), placed)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("decision", [{}, {"need_of_review": "much"}, None])
def test_a_summary_without_its_decision_is_named(tmp_path: Path, decision: object) -> None:
    record = {"schema": SCHEMA, "case": "a", "decision": decision}
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"a\.json: not readable .*predict the case again"):
        read_summaries(tmp_path)
