"""Every command that a page shows is given, as it stands there, to small phantoms.

What differs: sizes and steps, and the folders that stand for the reader's own data. Not run here:
servers (tests/serve starts them), what needs a PACS (tests/export), launchers of other machines
(tests/faults), and `make`, which CI runs itself.
"""

import re
import shlex
from pathlib import Path

import pytest

from penumbra import cli, pipeline
from penumbra.config import resolve
from penumbra.data.phantom import write_phantom

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
ELSEWHERE = ("view", "serve", "demo", "doctor")
OTHERS = (
    "URL",
    "dicomweb",
    "dicom",
    "series/",
    "scans/*.zip",
    "--predictions",
    "--data.holdout_site",
)
SHORT = {
    "train.steps": 4,
    "pretrain.steps": 2,
    "evaluate.attack_cases": 0,
    "evaluate.bootstrap": 100,
    "evaluate.draws": 2,
}
FEWER = {"study": ["--arms", "supervised"], "labels-curve": []}


def commands(page: Path) -> list[list[str]]:
    """The words of each `penumbra` command in a page's shell blocks that can run here."""
    found = []
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            found += [shlex.split(line, comments=True)[1:]] if line.startswith("penumbra ") else []
    return [words for words in found if words[0] not in ELSEWHERE and not _needs_others(words)]


def _needs_others(words: list[str]) -> bool:
    """Whether a command needs a PACS, the reader's own program, scans or sites."""
    return any("://" in w or w in OTHERS or w.startswith("mine:") for w in words)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms and a run on them, made once."""
    folder = tmp_path_factory.mktemp("finished")
    write_phantom(folder / "DATA", modality="mri", cases=10, seed=0, shape=(48, 48, 8))
    config = resolve("phantom-mri", size="tiny", overrides=SHORT)
    pipeline.run(config, folder / "DATA", folder / "run")
    return folder


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.stem)
def test_commands_of_a_page_run_in_their_order(
    page: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATA", "FOLDER", "runs/demo/phantoms"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).symlink_to(finished / "DATA")
    flair = "DATA/phantom_0000/phantom_0000_flair.nii.gz"
    Path("cases.csv").write_text(f"case,flair\nfirst,{flair}\n")
    for words in commands(page):
        with pytest.raises(SystemExit) as stop:
            cli.main(_small(words, finished))
        assert not stop.value.code, f"penumbra {shlex.join(words)}"


def _small(words: list[str], finished: Path) -> list[str]:
    """The same command on phantoms: shorter, and with a run or a scan where it names one."""
    verb = words[0]
    made = {words[i + 1] for i, word in enumerate(words[:-1]) if word == "--out"}
    words = [word if word in made else _real(word, finished) for word in words]
    if "--size" in words:
        words[words.index("--size") + 1] = "tiny"
    elif verb in cli._CONFIGURED:
        words += ["--size", "tiny"]
    if verb in cli._CONFIGURED and verb != "check":
        words += [word for name, value in SHORT.items() for word in (f"--{name}", str(value))]
    if "--train.compile" in words:  # a minute of the compiler's time; tests/training has it
        words[words.index("--train.compile") + 1] = "false"
    if verb in FEWER:
        words += ["--seeds", "1", "--fractions", "1", *FEWER[verb]]
    return words


def _real(word: str, finished: Path) -> str:
    if word in ("SCAN", "SCANS/*", "scan.nii.gz") or word.startswith("runs/demo/phantoms/"):
        return str(next(p for p in sorted((finished / "DATA").iterdir()) if p.name[-1].isdigit()))
    borrowed = re.fullmatch(r"runs/\w+", word) and not (Path(word) / "config.yaml").exists()
    return str(finished / "run") if borrowed else word  # a run that the page has not made
