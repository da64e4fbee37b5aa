"""Verbs that look after the installation."""

from pathlib import Path
from typing import Annotated

import typer

from penumbra.cli.verbs import app, done
from penumbra.errors import PenumbraError


@app.command()
def doctor(
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where runs are to be written.")
    ] = Path("runs"),
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Also the whole method, tiny, on phantoms.")
    ] = False,
) -> None:
    """Versions, devices, extras and disks; what is missing, and the remedy."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from penumbra import doctor as examination

    table = Table(box=None, pad_edge=False, show_header=False)
    found = list(examination.examine(folder))
    for each in found:
        remedy = "" if each.verdict == "ok" else each.remedy
        table.add_row(*(escape(text) for text in (each.verdict, each.name, each.said, remedy)))
    Console(highlight=False).print(table)
    problems = [each for each in found if each.verdict == "problem"]
    if problems:
        named = "; ".join(f"{each.name}: {each.said} ({each.remedy})" for each in problems)
        raise PenumbraError(f"{len(problems)} problem(s): {named}")
    wrote = [examination.self_test()] if self_test else []
    then = "make demo, or penumbra check FOLDER --preset NAME on your own scans"
    done(wrote, then if self_test else "penumbra doctor --self-test")
