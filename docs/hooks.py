"""What the site adds to the pages: API pages from the source, links to functions, formulas.

Every `penumbra.room.file.name` in a page becomes a link to its documentation; a name that does not
exist fails the strict build. Formulas become MathML, so no script is fetched.
"""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SOURCE = Path(__file__).parents[1] / "src" / "penumbra"
NAME = re.compile(r"(?<![\[`])`(penumbra(?:\.\w+){2,})`(?!\])")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The pages of results and of the API enter the navigation by themselves."""
    nav = list(config.nav or [])
    first = nav[-1]["Results"]
    listed = {path for page in first for path in page.values()}
    pages = sorted(Path(config.docs_dir, "results").glob("*.md"))
    found = [path for page in pages if (path := f"results/{page.name}") not in listed]
    nav[-1] = {"Results": [*first, *found]}
    config.nav = [*nav, {"API": [{room: f"api/{room}.md"} for room in _rooms()]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """One page for each room of the source, one section for each of its files."""
    for room, modules in _rooms().items():
        body = "\n\n".join(f"::: {module}" for module in modules)
        page = File.generated(config, f"api/{room}.md", content=f"# {room}\n\n{body}\n")
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.src_uri.startswith("api/"):
        return markdown
    return NAME.sub(lambda m: f"[`{m[1]}`][{m[1]}]", markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def mathml(match: re.Match[str]) -> str:
        formula = html.unescape(match[3])
        if match[2] == "(":
            return convert(formula, display="inline")
        return f'<div class="formula">{convert(formula, display="block")}</div>'

    return FORMULA.sub(mathml, content)


def _rooms() -> dict[str, list[str]]:
    rooms: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[-1].startswith("__") or path.parent.name == "cli":
            continue
        rooms.setdefault(parts[0] if len(parts) > 1 else "penumbra", []).append(
            ".".join(("penumbra", *parts))
        )
    return rooms
