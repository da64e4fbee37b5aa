"""Verbs that show: a run's report, and what the views do to a scan."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from penumbra.cli.verbs import Run, app, done, existing, writable


@app.command()
def report(
    run: Run,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print it, by a browser here.")] = False,
    model_card: Annotated[
        bool, typer.Option("--model-card", help="Also a model card, filled from the run.")
    ] = False,
) -> None:
    """Write the run's report again, from what its folder holds."""
    from penumbra import report as reporting

    wrote = [reporting.build(run)]
    if pdf:
        wrote.append(reporting.print_pdf(wrote[0]))
    if model_card:
        wrote.append(reporting.write_card(run))
    fill = f"; fill in what stands in brackets in {wrote[-1]}" if model_card else ""
    done(wrote, f"open {wrote[0]}{fill}")


@app.command()
def views(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", callback=existing, help="NIfTI, DICOM, PNG or JPEG.")
    ],
    modality: Annotated[Literal["mri", "ct", "xray"], typer.Option(help="What made the image.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the page goes.")] = Path("."),
) -> None:
    """Show every augmentation and shift on one scan, at five severities, on one page."""
    folder = writable(out)
    from penumbra.report.gallery import gallery

    page = gallery(image, modality, folder / "views.html")
    done([page], f"open {page}; ranges and their reasons: penumbra/augment/profile.py")
