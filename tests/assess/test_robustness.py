"""The verb that attacks, on an untrained network and on a function that is not ours."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from penumbra import cli, trained
from penumbra.assess.robustness import Asked, examine
from penumbra.config import resolve
from penumbra.data.phantom import write_phantom
from penumbra.errors import ConfigError
from penumbra.ground import prepare
from penumbra.trained import Trained

SMALL = Asked(
    methods=("noise", "pgd", "transfer", "raise"),
    eps=("4/255",),
    steps=2,
    cases=2,
    severities=(5,),
    draws=2,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("robust")
    write_phantom(root / "data", modality="mri", cases=8, seed=0, shape=(32, 32, 8))
    held_out = {"train.held_out": ["motion", "spike"]}
    config = resolve("phantom-mri", size="tiny", overrides=held_out)
    ground = prepare(config, root / "data", root / "run")
    network = trained.build(config, ground.store.task)
    trained.convert(network, config)
    Trained(network.eval(), ground.store.task, config).save(root / "run" / "model")
    return root / "run"


def threshold(image: Tensor) -> Tensor:
    """Two draws of a network of one parameter: bright is tumor, by one threshold or another."""
    draws = []
    for cut in (0.6, 0.7):
        logit = 20 * (image[:, 0] - cut)
        rest = torch.full_like(logit, -9.0)
        draws.append(torch.stack([-logit, logit, rest, rest], 1).softmax(1))
    return torch.stack(draws)


def test_the_record_holds_curves_gates_and_what_was_held_out(run: Path, tmp_path: Path) -> None:
    record, wrote = examine(run, tmp_path, SMALL)
    assert [path.name for path in wrote] == [
        f"robustness.{kind}" for kind in ("json", "html", "svg", "png")
    ]
    assert json.loads(wrote[0].read_text()) == json.loads(json.dumps(record))
    assert len(record["gates"]) == 8
    named = {p.get("attack") for p in record["series"]} - {None}
    assert named == {"noise", "pgd", "transfer", "raise", "worst"}
    new = {p["family"] for p in record["series"] if "family" in p and not p["seen"]}
    assert new == {"motion", "spike", "clean"}
    parts = {row["part"] for row in record["rows"] if row["metric"] == "mean_degradation"}
    assert parts == {"test/shifts seen", "test/shifts held out"}
    assert all(gate["name"] in wrote[1].read_text() for gate in record["gates"])


def test_a_foreign_function_is_attacked_through_the_shell(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.robustness, "_function", lambda spelled: threshold)
    words = "--predict x:y --methods noise,pgd --eps 8/255 --steps 2 --cases 2 --severities 5"
    with pytest.raises(SystemExit) as exit_code:
        cli.main(["robustness", str(run), "--out", str(tmp_path), *words.split()])
    assert exit_code.value.code == 0
    said = capsys.readouterr().out
    assert "motion (held out)" in said
    assert "a huge eps destroys the model" in said


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda image: threshold(image)[0], r"answered \(\d+, 4"),
        (lambda image: 3 * threshold(image), "logits, not probabilities"),
        (lambda image: threshold(image).numpy(), "numpy"),
    ],
)
def test_a_function_that_answers_wrongly_is_told_how(
    run: Path, tmp_path: Path, answer: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        examine(run, tmp_path, SMALL, predict=answer)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(methods=("pdg",)), "no attack is called pdg"),
        (Asked(eps=("4HU",)), "Hounsfield units are for CT"),
        (Asked(eps=("four",)), "write it as 4/255"),
        (Asked(eps=("2",)), "radius lies in"),
        (Asked(severities=(6,)), "severities are 1 to 5"),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Path, tmp_path: Path, asked: Asked, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        examine(run, tmp_path, asked)


@pytest.mark.parametrize("spelled", ["nowhere:predict", "math:nothing", "math:pi", "math"])
def test_a_function_that_is_not_there_is_named(spelled: str) -> None:
    with pytest.raises(ConfigError, match=spelled):
        cli.robustness._function(spelled)
