"""Every example runs, and says something."""

import runpy
import tempfile
from pathlib import Path

import pytest

import penumbra

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(
    example: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out.strip()


def test_every_public_name_has_an_example() -> None:
    shown = "".join(example.read_text() for example in EXAMPLES)
    assert [name for name in penumbra.__all__ if f"pn.{name}" not in shown] == []


def test_the_list_names_every_example() -> None:
    listed = (EXAMPLES[0].parent / "README.md").read_text()
    assert all(f"`{example.name}`" in listed for example in EXAMPLES)
