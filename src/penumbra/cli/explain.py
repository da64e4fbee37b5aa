"""The verbs that explain: where a model sees what it states, and which map tells the truth."""

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
    ] = "attention,grad_cam",
    draws: Annotated[
        int | None, typer.Option(min=1, help="Posterior draws.  [default: the run's]")
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Level that Grad-CAM reads: 0 the decoder's finest, then down to the coarsest and "
            "up the encoder.  [default: the coarsest]",
        ),
    ] = None,
) -> None:
    """Show where a model sees what it states, beside how sure the map is: maps and one page."""
    from penumbra.inference.explain import methods_of
    from penumbra.inference.explained import explain_scan

    chosen = methods_of(methods)
    wrote = explain_scan(run, scan, writable(out), methods=chosen, draws=draws, level=level)
    done(wrote, f"open {wrote[-1]}")


@app.command()
def explainers(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", callback=existing, help="The cohort.  [default: the run's]"),
    ] = None,
    methods: Annotated[
        str, typer.Option(metavar="A,B,...", help="As for `explain`.")
    ] = "attention,grad_cam,centre_prior,organ_prior",
    level: Annotated[
        int | None,
        typer.Option(
            min=0, help="Level that Grad-CAM reads.  [default: the best on validation patients]"
        ),
    ] = None,
) -> None:
    """Judge explainers on annotated test patients: where they point, and whether it is true."""
    from penumbra.assess.explainers import judge_explainers
    from penumbra.inference.explain import methods_of

    wrote = judge_explainers(run, methods_of(methods), data=data, level=level)
    done([wrote], f"read explanation/* in {wrote}; docs/howto/explain.md says what they mean")
