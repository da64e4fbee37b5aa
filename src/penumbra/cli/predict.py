"""The verb that reads scans."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from penumbra.cli.verbs import Run, app, done, existing, writable
from penumbra.errors import ConfigError

if TYPE_CHECKING:
    from penumbra.config.schema import Draws


@app.command()
def predict(
    run: Run,
    scan: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN...",
            help="NIfTI, PNG or JPEG, DICOM or case folder, cases.csv; one or several.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the maps go.")] = Path("pred"),
    draws: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto|propagate",
            help="Posterior draws: how many, as many as needed, or none.  [default: the run's]",
        ),
    ] = None,
    on: Annotated[
        Literal["serial", "processes", "ray"],
        typer.Option("--on", help="Where to predict."),
    ] = "serial",
    workers: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
) -> None:
    """Predict scans: segmentation or findings, uncertainty in the scan's own space, and triage."""
    for each in scan:
        existing(each)
    writable(out)
    from penumbra.inference.scan import predict_scans

    wrote = predict_scans(run, scan, out, draws=_draws(draws), on=on, workers=workers)
    done(wrote, f"penumbra view {out}")


def _draws(text: str | None) -> "Draws | None":
    match text:
        case None | "auto" | "propagate":
            return text
        case _ if text.isdecimal() and int(text) > 0:
            return int(text)
    raise ConfigError(f"--draws {text}: write it as a number, auto or propagate")
