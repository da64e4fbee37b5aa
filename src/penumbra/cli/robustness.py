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
    draws: Annotated[
        int | None,
        typer.Option(min=1, help="Posterior draws that are attacked.  [default: the run's]"),
    ] = None,
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
    """The task's figure by condition and level; the rest is in the files."""
    points = [p for p in record["series"] if p["metric"] == record["rows"][0]["metric"]]
    clean = next(p["value"] for p in points if p.get("family") == "clean")
    typer.echo(f"clean {record['rows'][0]['metric']}: {_number(clean).strip()}")
    for kind in ("attack", "family"):
        chosen = [p for p in points if p.get(kind) not in (None, "clean")]
        levels = sorted({p["level"] for p in chosen})
        if not levels:
            continue
        unit = "eps in 255ths" if kind == "attack" else "severity"
        heads = [f"{255 * x:.3g}" if kind == "attack" else f"{x:g}" for x in levels]
        typer.echo(f"{unit:<24}" + "".join(f"{head:>8}" for head in heads))
        for name in dict.fromkeys(p[kind] for p in chosen):
            mine = {p["level"]: p for p in chosen if p[kind] == name}
            new = kind == "family" and not next(iter(mine.values()))["seen"]
            title = f"{name} (held out)" if new else name
            typer.echo(f"  {title:<22}" + "".join(_number(mine[x]["value"]) for x in levels))
    for gate in record["gates"]:
        typer.echo(f"{'held  ' if gate['passed'] else 'FAILED'}  {gate['name']}: {gate['detail']}")


def _number(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.3f'):>8}"
