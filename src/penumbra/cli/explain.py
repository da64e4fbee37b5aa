"""The verb that explains: where a model sees what it states."""

from pathlib import Path
from typing import Annotated

import typer

from penumbra.cli.verbs import Run, app, done, existing, writable


@app.command()
def explain(
    run: Run,
    scan: Annotated[
        Path,
        typer.Argument(
            metavar="SCAN", callback=existing, help="NIfTI, PNG or JPEG, DICOM or case folder."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the maps go.")] = Path(
        "explained"
    ),
    methods: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="attention, modulated, grad_cam, grad_cam_pp, integrated_gradients, smooth_grad, "
            "occlusion, centre_prior, organ_prior; or all.",
        ),
    ] = "attention,modulated,grad_cam",
    draws: Annotated[
        int | None, typer.Option(min=1, help="Posterior draws.  [default: the run's]")
    ] = None,
) -> None:
    """Show where a model sees what it states, beside how sure the map is: maps and one page."""
    from penumbra.inference.explain import methods_of
    from penumbra.inference.explained import explain_scan

    chosen = methods_of(methods)
    wrote = explain_scan(run, scan, writable(out), methods=chosen, draws=draws)
    done(wrote, f"open {wrote[-1]}")
