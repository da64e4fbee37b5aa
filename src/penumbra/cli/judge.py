"""Verbs that judge: a run's model, or predictions that any other program made."""

from pathlib import Path
from typing import Annotated

import typer

from penumbra.cli.verbs import app, done, existing, writable
from penumbra.errors import ConfigError

AnyRun = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", callback=existing, help="A run folder.")
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        callback=existing,
        help="Another program's probability maps: nnU-Net npz, 4-D NIfTI, or NIfTI per class.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", callback=existing, help="Their label maps, same names."),
]
Validation = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|SHARE", help="Cases to fit on: split.json, or a share.  [default: 0.3]"
    ),
]
JudgedOut = Annotated[
    Path, typer.Option(metavar="FOLDER", help="With --predictions: where results go.")
]


@app.command()
def evaluate(
    run: AnyRun = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            callback=existing,
            help="Another cohort; results go to RUN/evaluations/COHORT.",
        ),
    ] = None,
    predictions: Predictions = None,
    labels: Labels = None,
    validation: Validation = None,
    out: JudgedOut = Path("runs/foreign"),
) -> None:
    """Score a run on its held-out patients, or another program's predictions."""
    if predictions is None:
        from penumbra import pipeline

        metrics = pipeline.evaluate(_needed(run, predictions, labels), data=data)
        done([metrics], f"penumbra report {metrics.parent}")
        return
    labels = _labels(run, labels)
    from penumbra import foreign

    wrote = foreign.evaluate(predictions, labels, writable(out), validation=validation)
    done(wrote, f"penumbra report {out}")


@app.command()
def calibrate(
    predictions: Predictions = None,
    labels: Labels = None,
    validation: Validation = None,
    out: JudgedOut = Path("runs/foreign"),
) -> None:
    """Fit temperature and review limit of another program's predictions on validation cases."""
    if predictions is None:
        raise ConfigError("--predictions FOLDER is needed; a run is calibrated when it is trained")
    labels = _labels(None, labels)
    from penumbra import foreign

    wrote = foreign.calibrate(predictions, labels, writable(out), validation=validation)
    then = f"penumbra evaluate --predictions {predictions} --labels {labels} --out {out}"
    done([wrote], then)


@app.command()
def report(
    run: AnyRun = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also print it, by a browser here.")] = False,
    model_card: Annotated[
        bool, typer.Option("--model-card", help="Also a model card, filled from the run.")
    ] = False,
    predictions: Predictions = None,
    labels: Labels = None,
    validation: Validation = None,
    out: JudgedOut = Path("runs/foreign"),
) -> None:
    """Write a run's report again; or judge another program's predictions and report on them."""
    from penumbra import report as reporting

    judged: list[Path] = []
    if predictions is None:
        folder = _needed(run, predictions, labels)
    else:
        labels = _labels(run, labels)
        from penumbra import foreign

        folder = writable(out)
        judged = foreign.evaluate(predictions, labels, folder, validation=validation)
    wrote = [reporting.build(folder)]
    if pdf:
        wrote.append(reporting.print_pdf(wrote[0]))
    if model_card:
        wrote.append(reporting.write_card(folder))
    fill = f"; fill in what stands in brackets in {wrote[-1]}" if model_card else ""
    done([*judged, *wrote], f"open {wrote[0]}{fill}")


def _needed(run: Path | None, predictions: Path | None, labels: Path | None) -> Path:
    if run is None or labels is not None:
        raise ConfigError("give RUN, or --predictions FOLDER with --labels FOLDER")
    return run


def _labels(run: Path | None, labels: Path | None) -> Path:
    if run is not None:
        raise ConfigError(f"{run}: give RUN or --predictions, not both")
    if labels is None:
        raise ConfigError("--predictions needs --labels FOLDER with label maps of the same names")
    return labels
