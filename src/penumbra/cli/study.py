"""Verbs of the experiment matrix."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from penumbra.cli.verbs import Data, Preset, Set, Size, _configure, app, done, writable
from penumbra.errors import ConfigError, PenumbraError

if TYPE_CHECKING:
    from penumbra.study.matrix import Study

Experiment = Annotated[str, typer.Argument(metavar="brats|chexpert|multiatlas|PRESET")]
Fractions = Annotated[str, typer.Option(help="Label fractions, with commas.")]
Seeds = Annotated[int, typer.Option(min=1, help="Trainings per arm and fraction.")]
On = Annotated[Literal["serial", "processes", "ray"], typer.Option("--on", help="Where cells run.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")]
StudyOut = Annotated[Path, typer.Option(metavar="FOLDER", help="The study's folder.")]
PRESETS = {"brats": "brain-mri", "chexpert": "chest-xray", "multiatlas": "abdominal-ct"}


@app.command()
def study(
    experiment: Experiment = "brats",
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The cohort.")] = None,
    out: StudyOut = Path("runs/study"),
    arms: Annotated[str, typer.Option(help="Arms with commas; main, all.")] = "main",
    fractions: Fractions = "0.1,0.25,0.5,1",
    seeds: Seeds = 3,
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
    preset = PRESETS.get(experiment, experiment)
    _run(preset, data, out, arms, fractions, seeds, size, settings, on, workers, dry_run)


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
    _run(preset, data, out, "supervised,ssl", fractions, seeds, size, settings, on, 2, dry_run)


def _run(
    preset: str,
    data: Path,
    out: Path,
    arms: str,
    fractions: str,
    seeds: int,
    size: Literal["tiny", "small", "full"] | None,
    settings: list[str] | None,
    on: Literal["serial", "processes", "ray"],
    workers: int,
    dry_run: bool,
) -> None:
    config = _configure(preset, settings, size)
    from penumbra.study import matrix
    from penumbra.study.arms import chosen
    from penumbra.study.tables import rebuild

    try:
        shares = tuple(float(f) for f in fractions.split(","))
    except ValueError:
        raise ConfigError(f"--fractions {fractions}: write them as 0.1,0.25,1") from None
    asked = matrix.Study(config, data, out, tuple(chosen(arms.split(","))), shares, seeds)
    if dry_run:
        _preview(asked)
        return
    writable(out)
    failures = matrix.run(asked, on=on, workers=workers)
    done(rebuild(out), f"open {out / 'tables' / 'claims.md'}")
    if failures:
        said = "; ".join(f"{f.job}: {f.message}" for f in failures)
        raise PenumbraError(f"{len(failures)} cell(s) failed twice ({said}); run again to retry")


def _preview(asked: "Study") -> None:
    """What is left, and how long by the finished cells' own time."""
    from statistics import median

    from penumbra.study import matrix
    from penumbra.study.rows import read_row

    matrix.begin(asked)
    jobs = [job for wave in matrix.waves(asked) for job in wave]
    left = [job for job in jobs if not matrix.is_done(job)]
    for job in left:
        typer.echo(job.name)
    paths = list((asked.out / "rows").glob("*.json"))
    seconds = [read_row(path)["seconds"] for path in paths]
    known = f"about {len(left) * median(seconds) / 60:.0f} min" if seconds else "time unknown yet"
    typer.echo(f"{len(left)} of {len(jobs)} jobs to run, {known}")
