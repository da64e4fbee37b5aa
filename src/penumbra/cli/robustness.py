"""The verb that attacks: what a model keeps of its accuracy, and whether that can be believed."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from penumbra.cli.verbs import Run, app, done, existing, writable
from penumbra.errors import ConfigError

if TYPE_CHECKING:
    from penumbra.robust.uncertainty import Draws


@app.command()
def robustness(
    run: Run,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Results.  [default: RUN/robustness]")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", callback=existing, help="The moved cohort.")
    ] = None,
    predict: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Attack this function on the run's test patients instead of the run's model: "
            "images [b c *space] in 0..1 to probabilities [t b c *space] or [t b f].",
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="noise, fgsm, pgd, pgd-20, pgd-100, pgd-balanced, pgd-cosine, apgd, square, "
            "transfer, hide, raise; or all.",
        ),
    ] = "noise,fgsm,pgd,pgd-balanced,apgd,square",
    eps: Annotated[
        str, typer.Option(metavar="A,B,...", help="Radii: 4/255, 0.01 or 4HU.")
    ] = "1/255,2/255,4/255",
    norm: Annotated[Literal["linf", "l2"], typer.Option(help="Of the radius.")] = "linf",
    steps: Annotated[int, typer.Option(min=1, help="Of PGD; APGD 2x, Square 10x.")] = 10,
    restarts: Annotated[int, typer.Option(min=1, help="Starts of PGD.")] = 1,
    samples: Annotated[
        int, typer.Option(min=1, help="Calls per gradient, for a function that draws anew (EOT).")
    ] = 1,
    cases: Annotated[int, typer.Option(min=1, help="Test cases, one image each.")] = 8,
    severities: Annotated[str, typer.Option(metavar="A,B,...", help="Of shifts, 1-5.")] = "1,3,5",
    draws: Annotated[int, typer.Option(min=1, help="Posterior draws that are attacked.")] = 4,
) -> None:
    """Accuracy against eps and severity, and the gates that say whether to believe it."""
    from penumbra.assess.robustness import Asked, examine

    foreign = None if predict is None else _function(predict)
    try:
        shifts = tuple(int(s) for s in severities.split(",") if s)
    except ValueError:
        raise ConfigError(f"--severities {severities}: write them as 1,3,5") from None
    asked = Asked(
        methods=tuple(methods.split(",")),
        eps=tuple(eps.split(",")),
        norm=norm,
        steps=steps,
        restarts=restarts,
        samples=samples,
        cases=cases,
        severities=shifts,
        draws=draws,
    )
    folder = writable(out or run / "robustness")
    record, wrote = examine(run, folder, asked, predict=foreign, data=data)
    _print(record)
    then = f"open {folder / 'robustness.html'}"
    if not record["trustworthy"]:
        then += "; a gate failed: more --steps or --samples, or look for masked gradients"
    done(wrote, then)


def _function(spelled: str) -> "Draws":
    """``module:function``, also from the working folder.

    Raises:
        ConfigError: there is no such module or function.
    """
    module, _, name = spelled.partition(":")
    sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--predict {spelled}: {error}; write it as MODULE:FUNCTION") from error
    finally:
        sys.path.remove("")
    if not callable(found):
        raise ConfigError(f"--predict {spelled}: not a function")
    return found


def _print(record: Mapping[str, Any]) -> None:
    for row in record["rows"]:
        value = "     -" if row["value"] is None else f"{row['value']:6.3f}"
        interval = "" if row["low"] is None else f"  ({row['low']:.3f} to {row['high']:.3f})"
        typer.echo(f"{row['part']:<36}{row['metric']:<30}{value}{interval}")
    for gate in record["gates"]:
        typer.echo(f"{'held  ' if gate['passed'] else 'FAILED'}  {gate['name']}: {gate['detail']}")
