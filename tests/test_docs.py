"""The pages for readers name only what exists."""

import pkgutil
import re
from pathlib import Path

import pytest

from penumbra import cli
from penumbra.config import Config

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
COMMAND = re.compile(r"(?m)(?:^|`)penumbra ([a-z]+(?:-[a-z]+)*)([^`\n#]*)")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_named_functions_exist(page: Path) -> None:
    for name in set(re.findall(r"`(penumbra(?:\.\w+)+)`", page.read_text())):
        pkgutil.resolve_name(name)  # a module, or what one holds


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_named_source_files_exist(page: Path) -> None:
    for name in set(
        re.findall(r"`((?:src|tests|docs|benchmarks)/[\w/.-]+\.\w+)`", page.read_text())
    ):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_shown_are_verbs_with_options_that_exist(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, rest in COMMAND.findall(page.read_text()):
        verbs = [verb, *rest.split()[:1]] if verb == "export" else [verb]
        with pytest.raises(SystemExit) as stop:
            cli.main([*verbs, "--help"])
        assert not stop.value.code, f"{page.name}: penumbra {verb}"
        shown = capsys.readouterr().out
        for option in re.findall(r"--[a-z]+(?![.\w])", rest):
            assert option in shown, f"{page.name}: penumbra {verb} {option}"


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CHANGELOG.md"], ids=ids)
def test_settings_shown_exist(page: Path) -> None:
    for section, name in re.findall(r"(?:--|--set )([a-z]+)\.([a-z_]+)", page.read_text()):
        settings = Config.model_fields[section].annotation
        assert name in settings.model_fields, f"{page.name}: --{section}.{name}"


def test_the_readme_fits_in_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
