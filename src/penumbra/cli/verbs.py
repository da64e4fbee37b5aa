"""The verbs, each a thin call of the pipeline.

Everything heavy is imported inside a verb, so that ``penumbra --help`` answers at once.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from penumbra.errors import ConfigError, DataError

if TYPE_CHECKING:
    from penumbra.config import Config

app = typer.Typer(
    name="penumbra",
    help="Medical-image models that say what they see and draw the half-shadow honestly.",
    epilog="Any setting: --SECTION.NAME VALUE, e.g. --train.lr 3e-4. --debug, anywhere: show the "
    "traceback of an error. Research software, not a medical device.",
    rich_markup_mode="markdown",  # "rich" would swallow what stands in brackets
    pretty_exceptions_enable=False,
)


def existing(path: Path | None) -> Path | None:
    if path is not None and not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    return path


def _version(wanted: bool) -> bool:
    if wanted:
        import penumbra

        typer.echo(f"penumbra {penumbra.__version__}")
        raise typer.Exit
    return wanted


Preset = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="brain-mri, chest-xray, abdominal-ct, phantom-mri, phantom-ct, phantom-xray; "
        "or a YAML file.",
    ),
]
Data = Annotated[
    Path, typer.Option(metavar="FOLDER", callback=existing, help="The cohort, in its own layout.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Run folder.  [default: runs/PRESET]")
]
Size = Annotated[
    Literal["tiny", "small", "full"] | None,
    typer.Option(help="tiny: seconds, to try; small: two CPU cores; full: GPUs."),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Everything random follows from it.")]
Device = Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where to compute.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting; also as --SECTION.NAME VALUE."),
]
MaxTime = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Save and stop after e.g. 90m, 4h or 3:50:00; exit code 75."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", callback=existing, help="A run folder.")]


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    preset: Preset,
    data: Data,
    out: Out = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    settings: Set = None,
    max_time: MaxTime = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Cross-validate: so many runs; every patient is tested once."),
    ] = None,
) -> None:
    """The whole method: pre-train, train, calibrate, evaluate, report. Resumes where it stopped."""
    config, folder = _begin(preset, settings, size, out, seed=seed, device=device)
    if folds:
        from penumbra import crossval

        deadline = _deadline(max_time)
        metrics = crossval.run(config, data, folder, folds=folds, deadline=deadline)
        for line in crossval.summary(metrics):
            typer.echo(line)
        done([metrics], f"open {folder / 'fold-1' / 'report.html'}; and of the other folds")
        return
    from penumbra import pipeline

    report = pipeline.run(config, data, folder, deadline=_deadline(max_time))
    done(
        [report, folder / "metrics.json"],
        f"open {report}; penumbra predict {folder} SCAN --out pred",
        model=folder,
    )


@app.command()
def check(
    data: Annotated[Path, typer.Argument(metavar="FOLDER", callback=existing, help="The cohort.")],
    preset: Preset,
    size: Size = None,
    settings: Set = None,
) -> None:
    """Read every case and say what would go wrong, and what training will need."""
    config = configure(preset, settings, size)
    from penumbra import progress
    from penumbra.data.check import check as check_cohort
    from penumbra.data.cohort import read_cohort

    cohort = read_cohort(data, modality=config.modality)
    with progress.bar("check", len(cohort.cases)) as advance:
        report = check_cohort(cohort, config.data, progress=lambda done, total, case: advance(case))
    for row in report.rows:
        typer.echo(row)
    for problem in report.problems:
        typer.echo(f"problem: {problem}")
    if report.problems:
        raise DataError(f"{data}: {len(report.problems)} problem(s), listed above; mend them first")
    asked = f" --size {size}" if size else ""
    done([], f"penumbra run --preset {preset} --data {data}{asked}")


@app.command()
def pretrain(
    preset: Preset,
    data: Data,
    out: Out = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    settings: Set = None,
    max_time: MaxTime = None,
) -> None:
    """Learn an encoder from the scans alone; no labels are read."""
    config, folder = _begin(preset, settings, size, out, seed=seed, device=device)
    from penumbra import pipeline

    encoder = pipeline.pretrain(config, data, folder, deadline=_deadline(max_time))
    done([encoder], f"penumbra train --preset {preset} --data {data} --encoder {encoder}")


@app.command()
def train(
    preset: Preset,
    data: Data,
    out: Out = None,
    size: Size = None,
    seed: Seed = None,
    device: Device = None,
    settings: Set = None,
    max_time: MaxTime = None,
    encoder: Annotated[
        Path | None,
        typer.Option(metavar="FILE", callback=existing, help="From pretrain; else from scratch."),
    ] = None,
) -> None:
    """Train the Bayesian network, from a pre-trained encoder or from scratch."""
    config, folder = _begin(preset, settings, size, out, seed=seed, device=device)
    from penumbra import pipeline

    deadline = _deadline(max_time)
    model = pipeline.train(config, data, folder, encoder=encoder, deadline=deadline)
    done([model], f"penumbra evaluate {folder}", model=model)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Run folder.")] = Path("runs/demo"),
    modality: Annotated[Literal["mri", "ct", "xray"], typer.Option(help="Which phantom.")] = "mri",
    seed: Annotated[int, typer.Option(min=0, help="Everything random follows from it.")] = 0,
) -> None:
    """The whole method on generated phantoms, in minutes on a laptop."""
    writable(out)
    from penumbra import pipeline

    page = pipeline.demo(out, modality=modality, seed=seed)
    then = f"open {page}; then penumbra check FOLDER --preset NAME on your own scans"
    done([page], then, model=out)


def _begin(
    preset: str,
    settings: Sequence[str] | None,
    size: Literal["tiny", "small", "full"] | None,
    out: Path | None,
    *,
    seed: int | None,
    device: str | None,
) -> "tuple[Config, Path]":
    """What a stage is asked, and the folder where its run is kept."""
    config = configure(preset, settings, size, seed=seed, device=device)
    return config, writable(out or Path("runs") / config.name)


def configure(
    preset: str,
    settings: Sequence[str] | None,
    size: Literal["tiny", "small", "full"] | None,
    *,
    seed: int | None = None,
    device: str | None = None,
) -> "Config":
    """The settings that a verb was asked for."""
    from penumbra.config import resolve

    overrides: dict[str, str | int] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write it as --set NAME=VALUE")
        overrides[name] = value
    if seed is not None:
        overrides["seed"] = seed
    if device is not None:
        overrides["device"] = device
    return resolve(preset, size=size, overrides=overrides)


def _deadline(text: str | None) -> float | None:
    """``90m``, ``4h``, ``45s`` or ``[hours:]minutes:seconds`` from now, on the monotonic clock."""
    if text is None:
        return None
    try:
        if ":" in text:
            seconds = 0.0
            for part in text.split(":"):
                seconds = 60 * seconds + float(part)
        else:
            seconds = float(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1:]]
    except (ValueError, KeyError):
        raise ConfigError(f"--max-time {text}: write it as 90m, 4h or 3:50:00") from None
    return time.monotonic() + seconds


def writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}); choose another --out"
        ) from error


def done(wrote: Sequence[Path], then: str, *, model: Path | None = None) -> None:
    """The last lines of a verb; what its ``model`` warns of stands among them."""
    for path in wrote:
        typer.echo(f"Wrote {path}")
    if model is not None:
        from penumbra import trained

        for warning in trained.warnings(model):
            typer.echo(f"Warning: {warning}")
    typer.echo(f"Next: {then}")
