"""The doctor names what is missing, and the remedy."""

import tomllib
from pathlib import Path

import pytest

from penumbra import cli, doctor


def test_this_installation_has_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--folder", str(tmp_path)])
    assert not stop.value.code
    shown = capsys.readouterr().out
    for name in ("python", "torch", "[dicom]", "browser", "shared memory", "--self-test"):
        assert name in shown


def test_an_extra_that_is_absent_comes_with_its_remedy() -> None:
    found = doctor._extra("moon", ("no_such_module",))
    assert found.verdict == "absent"
    assert found.remedy == "pip install 'penumbra-imaging[moon]'"


def test_every_extra_that_users_install_is_listed() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"docs", "dev"}


def test_a_package_that_is_absent_is_a_problem() -> None:
    assert doctor._package("no-such-package").verdict == "problem"


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_GIB", 1e9)
    found = doctor._disk("disk for runs", tmp_path / "not" / "yet", "choose another --out")
    assert found.verdict == "problem"
    assert "GiB free" in found.said
