"""Verbs of the experiment matrix."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from penumbra.cli.verbs import (
    Data,
    Preset,
    Set,
    Size,
    app,
    configure,
    done,
    existing,
    writable,
)
from penumbra.errors import ConfigError, PenumbraError

if TYPE_CHECKING:
    from penumbra.config import Config
    from penumbra.study.matrix import Study

Experiment = Annotated[str, typer.Argument(metavar="brats|chexpert|multiatlas|PRESET")]
Fractions = Annotated[str, typer.Option(help="Label fractions, with commas.")]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings per arm and fraction.")]
Where = Literal["serial", "processes", "ray"]
On = Annotated[Where, typer.Option("--on", help="Where cells run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")]
StudyOut = Annotated[Path, typer.Option(metavar="FOLDER", help="The study's folder.")]
PRESETS = {"brats": "brain-mri", "chexpert": "chest-xray", "multiatlas": "abdominal-ct"}


@app.command()
def study(
    experiment: Experiment = "brats",
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The cohort.")] = None,
    out: StudyOut = Path("runs/study"),
    arms: Annotated[str, typer.Option(help="Arms with commas; main, robustness, all.")] = "main",
    fractions: Fractions = "0.1,0.25,0.5,1",
    seeds: Seeds = 3,
    transfer: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", callback=existing, help="Test on this cohort too."),
    ] = None,
    size: Size = None,
    settings: Set = None,
    on: On = "serial",
    workers: Annotated[int, typer.Option(min=1, help="Cells at a time.")] = 2,
    dry_run: DryRun = False,
    rebuild: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Tables from finished rows; no training.")
    ] = None,
) -> None:
    """Arms x label fractions x seeds, resumed to the cell, aggregated into five verdicts."""
    if rebuild is not None:
        from penumbra.study.tables import rebuild as write_again

        done(write_again(rebuild), f"open {rebuild / 'tables'}")
        return
    if data is None or not data.exists():
        raise ConfigError(f"--data {data}: give the folder of the cohort")
    config = configure(PRESETS.get(experiment, experiment), settings, size)
    asked = _asked(config, data, out, arms, fractions, seeds)
    _run(replace(asked, elsewhere=transfer), on, workers, dry_run)


@app.command("labels-curve")
def labels_curve(
    preset: Preset,
    data: Data,
    out: StudyOut = Path("runs/labels-curve"),
    fractions: Fractions = "0.1,0.25,0.5,1",
    seeds: Seeds = 3,
    size: Size = None,
    settings: Set = None,
    on: On = "serial",
    dry_run: DryRun = False,
) -> None:
    """From scratch against pre-trained over label fractions: one figure and a verdict."""
    config = configure(preset, settings, size)
    _run(_asked(config, data, out, "supervised,ssl", fractions, seeds), on, 2, dry_run)


def _asked(
    config: "Config", data: Path, out: Path, arms: str, fractions: str, seeds: int
) -> "Study":
    from penumbra.study.arms import chosen
    from penumbra.study.matrix import Study

    try:
        shares = tuple(float(f) for f in fractions.split(","))
    except ValueError:
        raise ConfigError(f"--fractions {fractions}: write them as 0.1,0.25,1") from None
    wanted = chosen(arms.split(","), modality=config.modality)
    return Study(config, data, out, tuple(wanted), shares, seeds)


def _run(asked: "Study", on: Where, workers: int, dry_run: bool) -> None:
    from penumbra.study import matrix
    from penumbra.study.tables import rebuild

    if dry_run:
        _preview(asked)
        return
    writable(asked.out)
    failures = matrix.run(asked, on=on, workers=workers)
    done(rebuild(asked.out), f"open {asked.out / 'tables' / 'claims.md'}")
    if failures:
        said = "; ".join(f"{f.job}: {f.message}" for f in failures)
        raise PenumbraError(f"{len(failures)} job(s) failed twice ({said}); run again to retry")


def _preview(asked: "Study") -> None:
    """What is left, how long by the finished jobs' own time, and how much disk."""
    from penumbra.study import matrix
    from penumbra.study.forecast import forecast

    matrix.begin(asked)
    expected = forecast(asked)
    for name in expected.left:
        typer.echo(name)
    typer.echo(
        f"{len(expected.left)} of {expected.jobs} jobs to run, {expected.time}, {expected.disk}"
    )
