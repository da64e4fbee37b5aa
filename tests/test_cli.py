"""The face of the program: what a user types, what comes back, and how mistakes end."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from penumbra import cli
from penumbra.cli import verbs
from penumbra.config import Config
from penumbra.errors import ConfigError, DataError

VERBS = ["run", "check", "pretrain", "train", "evaluate", "predict", "report", "demo"]


class Pipeline(ModuleType):
    """Stands in for the real one and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__("penumbra.pipeline")
        self.calls: list[tuple] = []

    def run(self, config: Config, data: Path, out: Path, *, deadline: float | None) -> Path:
        self.calls.append((config, data, out))
        return out / "report.html"

    def pretrain(self, config: Config, data: Path, out: Path, *, deadline: float | None) -> Path:
        self.calls.append((config, data, out))
        return out / "encoder.safetensors"

    def train(
        self,
        config: Config,
        data: Path,
        out: Path,
        *,
        encoder: Path | None,
        deadline: float | None,
    ) -> Path:
        self.calls.append((config, data, out, encoder))
        return out / "checkpoints" / "best"

    def evaluate(self, run: Path, *, data: Path | None) -> Path:
        self.calls.append((run, data))
        return run / "metrics.json"

    def demo(self, out: Path, *, modality: str, seed: int) -> Path:
        self.calls.append((out, modality, seed))
        return out / "report.html"


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    import penumbra

    fake = Pipeline()
    monkeypatch.setitem(sys.modules, "penumbra.pipeline", fake)
    monkeypatch.setattr(penumbra, "pipeline", fake, raising=False)
    return fake


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    (tmp_path / "scans").mkdir()
    return tmp_path / "scans"


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from penumbra.cli import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


def test_no_words_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys)
    assert code == 0
    assert "COMMAND" in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert f"penumbra {verb}" in out


@pytest.mark.parametrize(
    ("verb", "text"),
    [("robustness", "[default: RUN/robustness]"), ("export onnx", "[default: RUN/model.onnx]")],
)
def test_help_keeps_what_stands_in_brackets(
    verb: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = call(capsys, *verb.split(), "--help")
    assert text in " ".join(out.replace("│", " ").split())


def test_the_last_lines_warn_of_a_model_that_predicts_nothing(
    pipeline: Pipeline, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"calibration": {"warnings": ["The model predicts no structure."]}}
    (tmp_path / "a" / "model").mkdir(parents=True)
    (tmp_path / "a" / "model" / "model.json").write_text(json.dumps(record))
    words = ["run", "--preset", "brain-mri", "--data", scans, "--out", tmp_path / "a"]
    _, out, _ = call(capsys, *words)
    *_, warning, following = out.splitlines()
    assert warning == "Warning: The model predicts no structure."
    assert following.startswith("Next: ")


def test_run_resolves_options_and_dotted_settings(
    pipeline: Pipeline, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--preset", "brain-mri", "--data", scans, "--train.lr", "3e-4", "--seed", 7]
    words += ["--size", "tiny", "--out", tmp_path / "a", "--data.patch=[32, 32]"]
    code, out, err = call(capsys, *words)
    assert (code, err) == (0, "")
    config, data, folder = pipeline.calls[0]
    assert (config.train.lr, config.seed, config.size) == (3e-4, 7, "tiny")
    assert config.data.patch == (32, 32)
    assert (data, folder) == (scans, tmp_path / "a")
    assert f"Wrote {tmp_path / 'a' / 'report.html'}" in out
    assert "Next: " in out


@pytest.mark.parametrize("verb", ["run", "pretrain", "train"])
def test_the_default_run_folder_is_named_after_the_preset(
    verb: str,
    pipeline: Pipeline,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, verb, "--preset", "chest-xray", "--data", scans)
    assert code == 0
    assert pipeline.calls[0][2] == Path("runs/chest-xray")
    assert "Next: " in out


def test_train_takes_an_encoder(
    pipeline: Pipeline, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = tmp_path / "encoder.safetensors"
    encoder.touch()
    words = ["train", "--preset", "brain-mri", "--data", scans, "--out", tmp_path / "b"]
    assert call(capsys, *words, "--encoder", encoder)[0] == 0
    assert pipeline.calls[0][3] == encoder


def test_evaluate_and_demo_say_what_to_do_next(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "evaluate", tmp_path)
    assert code == 0
    assert f"penumbra report {tmp_path}" in out
    code, out, _ = call(capsys, "demo", "--out", tmp_path / "demo", "--modality", "ct")
    assert code == 0
    assert pipeline.calls[1] == (tmp_path / "demo", "ct", 0)
    assert "report.html" in out


def test_predict_lists_the_files_it_wrote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def predict_scans(
        run: Path, scans: list[Path], out: Path, *, draws: int | None, on: str, workers: int
    ) -> list[Path]:
        assert (draws, on, workers) == (4, "processes", 3)
        return [out / "segmentation.nii.gz", out / "epistemic.nii.gz"]

    fake = SimpleNamespace(predict_scans=predict_scans)
    monkeypatch.setitem(sys.modules, "penumbra.inference.scan", fake)
    scan = tmp_path / "scan.nii.gz"
    scan.touch()
    words = ["predict", tmp_path, scan, "--out", tmp_path / "maps", "--draws", 4]
    words += ["--on", "processes", "--workers", 3]
    code, out, _ = call(capsys, *words)
    assert code == 0
    assert "epistemic.nii.gz" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--preset", "brain-mri", "--data", "NOWHERE"], 1, "NOWHERE: no such file"),
        (["run", "--preset", "brain-mri"], 2, "Missing option '--data'"),
        (["run", "--preset", "brain-mry", "--data", "SCANS"], 2, "did you mean 'brain-mri'"),
        (["run", "--presett", "brain-mri"], 2, "--presett"),
        (["fly"], 2, "fly"),
        (["run", "--preset", "brain-mri", "--data", "SCANS", "--size", "huge"], 2, "huge"),
        (["demo", "--seed", "-1"], 2, "--seed"),
        (["report", "SCANS", "--train.lr", "1"], 2, "--train.lr"),
        (["run", "--preset", "brain-mri", "--data", "SCANS", "--train.lr"], 2, "needs a value"),
        (["run", "--preset", "brain-mri", "--data", "SCANS", "--train.lr=[1"], 2, "train.lr: '[1'"),
        (["run", "--preset", "brain-mri", "--data", "SCANS", "--set", "seed"], 2, "NAME=VALUE"),
        (["predict", "SCANS"], 2, "Missing argument 'SCAN"),
        (["report", "SCANS"], 1, "SCANS: not a run folder"),
    ],
)
def test_a_mistake_ends_in_one_line_and_its_exit_code(
    words: list[str], code: int, message: str, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got, _, err = call(capsys, *[w.replace("SCANS", str(scans)) for w in words if w])
    assert got == code
    assert message.replace("SCANS", str(scans)) in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_every_wrong_setting_is_listed_with_its_path(
    scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--preset", "brain-mri", "--data", scans, "--train.lr=-1", "--train.bach", "2"]
    code, _, err = call(capsys, *words)
    assert code == 2
    assert "train.lr" in err
    assert "did you mean 'train.batch'" in err


def test_an_unwritable_output_folder_is_said_before_any_work(
    pipeline: Pipeline, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run"
    code, _, err = call(capsys, "run", "--preset", "brain-mri", "--data", scans, "--out", out)
    assert code == 2
    assert f"{out}: cannot be written" in err
    assert "choose another --out" in err
    assert pipeline.calls == []


def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(run: Path, *, data: Path | None) -> Path:
        raise DataError("case_7: image and label differ in shape")

    pipeline.evaluate = broken  # type: ignore[method-assign]
    code, _, err = call(capsys, "evaluate", tmp_path)
    assert (code, err) == (1, "penumbra: case_7: image and label differ in shape\n")
    code, _, err = call(capsys, "evaluate", tmp_path, "--debug")
    assert code == 1
    assert "Traceback" in err


def test_a_full_disk_names_the_file(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(run: Path, *, data: Path | None) -> Path:
        raise OSError(28, "No space left on device", str(run / "metrics.json"))

    pipeline.evaluate = broken  # type: ignore[method-assign]
    code, _, err = call(capsys, "evaluate", tmp_path)
    assert code == 1
    assert err == f"penumbra: {tmp_path / 'metrics.json'}: No space left on device\n"


def test_an_interrupt_says_that_the_same_command_continues(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(run: Path, *, data: Path | None) -> Path:
        raise KeyboardInterrupt

    pipeline.evaluate = interrupted  # type: ignore[method-assign]
    code, _, err = call(capsys, "evaluate", tmp_path)
    assert code == 130
    assert "the same command continues" in err


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90m", 5400), ("4h", 14400), ("3:50:00", 13800)]
)
def test_a_time_limit_counts_from_now(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    assert verbs._deadline(text) == 100 + seconds


@pytest.mark.parametrize("text", ["soon", "4", "", "1:x"])
def test_a_time_limit_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as 90m, 4h or 3:50:00"):
        verbs._deadline(text)
