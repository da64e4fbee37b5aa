"""``log.jsonl``: one line per step; a resumed stage drops the lines that it will write again."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from penumbra.errors import DataError
from penumbra.files import write_text


class Log:
    """Appends scalars; ``write=False`` (another process writes) makes it silent."""

    def __init__(self, path: Path, stage: str, step: int, *, write: bool) -> None:
        self.path, self.stage, self.begun = path, stage, time.monotonic()
        self.file: TextIO | None = None
        if not write:
            return
        if path.exists():
            lines = path.read_text(errors="replace").splitlines()
            write_text(path, "".join(f"{line}\n" for line in lines if _keep(line, stage, step)))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = path.open("a", buffering=1)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        if self.file is None:
            return
        time_s = round(time.monotonic() - self.begun, 3)
        line = {"stage": self.stage, "step": step, "time_s": time_s}
        try:
            self.file.write(json.dumps(line | {k: round(v, 6) for k, v in scalars.items()}) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Nothing is lost by not calling it: every line is flushed."""
        if self.file is not None:
            self.file.close()

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: cannot be written ({error.strerror or error})")


def _keep(line: str, stage: str, step: int) -> bool:
    try:
        entry = json.loads(line)
        return bool(entry.get("stage") != stage or entry["step"] <= step)
    except (ValueError, KeyError, AttributeError, TypeError):  # the line that a kill cut short
        return False
