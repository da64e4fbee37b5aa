"""The verb that shows what the views do to a scan."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from penumbra.cli.verbs import app, done, existing, writable


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
