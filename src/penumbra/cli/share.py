"""Verbs that bring predictions to other people and programs: view, serve, export."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penumbra.cli.verbs import Run, app, done, existing, writable
from penumbra.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fastapi import FastAPI

export_app = typer.Typer(
    help="Predictions as DICOM, models as ONNX.", no_args_is_help=True, rich_markup_mode="markdown"
)
app.add_typer(export_app, name="export")

LOOPBACK = "127.0.0.1"
Predictions = Annotated[
    Path, typer.Argument(metavar="PRED", callback=existing, help="A folder from predict.")
]
Port = Annotated[int, typer.Option(min=1024, max=65535, help="On this computer only.")]


@app.command()
def view(predictions: Predictions, port: Port = 8765) -> None:
    """Look at predictions in a browser: slices, overlays, sliders. Works offline."""
    _need_serve()
    from penumbra.serve.app import create_app

    token = secrets.token_urlsafe(24)
    _listen(create_app(predictions, token=token), port, token)


@app.command()
def serve(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Jobs and results.")] = Path("served"),
    port: Port = 8765,
    max_mib: Annotated[int, typer.Option(min=1, help="Largest upload.")] = 1024,
) -> None:
    """Predict uploaded scans from a queue that survives restarts. This computer only."""
    _need_serve()
    from penumbra.serve.app import Jobs, create_app
    from penumbra.serve.jobs import Queue
    from penumbra.serve.worker import predict_with

    predictions = writable(out) / "predictions"
    predictions.mkdir(exist_ok=True)
    jobs = Jobs(
        queue=Queue(out / "jobs.sqlite"),
        uploads=out / "uploads",
        predict=predict_with(run, predictions),
        limit=max_mib << 20,
    )
    token = secrets.token_urlsafe(24)
    _listen(create_app(predictions, token=token, jobs=jobs), port, token)


@export_app.command("dicom")
def dicom(
    predictions: Predictions,
    series: Annotated[
        Path,
        typer.Option(metavar="FOLDER", callback=existing, help="The series that was predicted."),
    ],
    case: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which case, when PRED holds several.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write.")] = Path("dicom"),
    dicomweb: Annotated[
        str | None, typer.Option(metavar="URL", help="Also store the objects there.")
    ] = None,
) -> None:
    """DICOM segmentations, parametric maps and a measurement report of one case."""
    from penumbra.export.dicom import export_case
    from penumbra.inference.records import read_summaries

    names = [record["case"] for record in read_summaries(predictions)]
    if case is None and len(names) != 1:
        raise ConfigError(f"{predictions}: holds {len(names)} cases; choose one with --case")
    wrote = export_case(predictions, case or names[0], series, writable(out))
    if dicomweb is not None:
        from penumbra.export.dicomweb import store

        store(dicomweb, wrote)
    done(wrote, f"stored at {dicomweb}" if dicomweb else "send the objects to your PACS")


@export_app.command("dicomweb")
def dicomweb(
    run: Run,
    url: Annotated[str, typer.Argument(metavar="URL", help="DICOMweb root of the PACS.")],
    study: Annotated[str, typer.Option(metavar="UID", help="StudyInstanceUID.")],
    series: Annotated[
        str | None,
        typer.Option(
            metavar="UID", help="SeriesInstanceUID.  [default: all of the model's modality]"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Scans, maps.")] = Path("dicom"),
) -> None:
    """Query a study, retrieve its series, predict them, and store the objects beside them."""
    from penumbra.serve.pacs import serve_study

    wrote = serve_study(run, url, writable(out), study=study, series=series)
    done(wrote, f"stored at {url}; penumbra view {out / 'maps'}")


@export_app.command("onnx")
def onnx(
    run: Run,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="[default: RUN/model.onnx]")
    ] = None,
) -> None:
    """The model as ONNX with its noise as an input, so that draws can be repeated anywhere."""
    from penumbra import trained
    from penumbra.export.onnx import export

    path = out or run / "model.onnx"
    writable(path.parent)
    wrote = export(trained.load(run), path)
    done(wrote, f"onnxruntime.InferenceSession('{path}'); inputs are described in {wrote[1]}")


def _need_serve() -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise DataError("this needs pip install 'penumbra-imaging[serve]'") from None


def _listen(app: "FastAPI", port: int, token: str) -> None:
    import uvicorn

    typer.echo(f"Open http://{LOOPBACK}:{port}/login?token={token}  (Ctrl-C ends)")
    # No access log: addresses hold the token.
    uvicorn.run(app, host=LOOPBACK, port=port, log_level="warning", access_log=False)
