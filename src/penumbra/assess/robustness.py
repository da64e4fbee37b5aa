"""The robustness of a trained run, or of any predict function on its test patients."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from penumbra import trained
from penumbra.assess.hardship import Hardship, Subject, attack, planned, subject_of
from penumbra.config import Config, load
from penumbra.errors import ConfigError, DataError
from penumbra.evaluate.protocol import plain
from penumbra.files import locked, write_text
from penumbra.ground import Ground, data_folder, device, prepare
from penumbra.report.robustness import write_robustness
from penumbra.robust.ball import Norm, eps_from_hu
from penumbra.robust.ladder import Ladder, Method
from penumbra.robust.uncertainty import Draws

METHODS: tuple[Method, ...] = get_args(Method)
QUICK: tuple[Method, ...] = ("noise", "fgsm", "pgd", "pgd-balanced", "apgd", "square")


@dataclass(frozen=True)
class Asked:
    """What ``penumbra robustness`` was asked for.

    Attributes:
        eps: radii, each as text: ``4/255`` or ``0.01`` of the display range, ``4HU`` for CT.
        cases: test cases, one image each.
        draws: posterior draws behind the attacked prediction.
        samples: calls behind each gradient, for a function that draws anew on every call.
    """

    methods: tuple[str, ...] = QUICK
    eps: tuple[str, ...] = ("1/255", "2/255", "4/255")
    norm: Norm = "linf"
    steps: int = 10
    restarts: int = 1
    samples: int = 1
    cases: int = 8
    severities: tuple[int, ...] = (1, 3, 5)
    draws: int | None = None  # as the run's evaluation


def examine(
    run: Path, out: Path, asked: Asked, *, predict: Draws | None = None, data: Path | None = None
) -> tuple[dict[str, Any], list[Path]]:
    """Attack and shift the test patients of a run; returns the record and what was written.

    ``predict`` takes the place of the run's model: images ``[b c *space]`` in display units to
    probabilities ``[t b c *space]`` (or ``[t b f]``), differentiably.

    Raises:
        ConfigError: a method, radius or severity makes no sense, or ``predict`` does not answer
            as it should.
    """
    methods = _methods(asked.methods)
    model = None if predict else trained.load(run, device=device(load(run / "config.yaml")))
    config = model.config if model else load(run / "config.yaml")
    if not all(1 <= severity <= 5 for severity in asked.severities):
        raise ConfigError(f"severities are 1 to 5, got {list(asked.severities)}")
    radii = tuple(_radius(text, config) for text in asked.eps)
    with locked(run):
        ground = prepare(config, data_folder(run, data), run, visiting=data is not None)
    asked = replace(asked, draws=asked.draws or config.evaluate.attack_draws)
    settings = config.evaluate.model_copy(
        update={
            "attack_cases": asked.cases,
            "attack_draws": asked.draws,
            "severities": asked.severities,
            "attack_eps": radii,
        }
    )
    config = config.model_copy(update={"evaluate": settings})
    ladder = Ladder(methods, asked.norm, asked.steps, asked.restarts, asked.samples)
    if model:
        subject = subject_of(model, draws=config.evaluate.attack_draws)
    else:
        assert predict is not None
        subject = Subject(_checked(predict, ground))
        if "transfer" in methods:
            ladder = replace(ladder, methods=tuple(m for m in methods if m != "transfer"))
    task, test = ground.store.task, ground.parts["test"]
    found = attack(subject, config, task, ground.store, test, planned(config, ladder))
    record = _record(run, asked, found) | {"eps": list(radii)}
    write_text(out / "robustness.json", json.dumps(record, indent=1) + "\n")
    return record, [out / "robustness.json", *write_robustness(out, record)]


def _methods(names: Sequence[str]) -> tuple[Method, ...]:
    if tuple(names) == ("all",):
        return METHODS
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ConfigError(
            f"no attack is called {', '.join(unknown)}; known: all, {', '.join(METHODS)}"
        )
    return tuple(name for name in METHODS if name in names)


def _radius(text: str, config: Config) -> float:
    """A share of the display range from ``4/255``, ``0.01`` or ``4HU``."""
    try:
        if text.upper().endswith("HU"):
            if config.modality != "ct":
                raise ConfigError(f"--eps {text}: Hounsfield units are for CT")
            return eps_from_hu(float(text[:-2]), window_hu=config.data.window_hu)
        top, _, bottom = text.partition("/")
        eps = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--eps {text}: write it as 4/255, 0.01 or 4HU") from None
    if not 0 < eps <= 1:
        raise ConfigError(f"--eps {text}: a radius lies in (0, 1] of the display range")
    return eps


def _checked(predict: Draws, ground: Ground) -> Draws:
    """The function, with its answers' shape and range looked at."""
    task = ground.store.task
    labels = len(task.classes) or len(task.findings)
    asked = "[t b c *space], softmax over c" if task.classes else "[t b f]"

    def draws(image: torch.Tensor) -> torch.Tensor:
        answer = predict(image)
        space = image.shape[2:] if task.classes else ()
        expected = (len(image), labels, *space)
        if not isinstance(answer, torch.Tensor) or tuple(answer.shape[1:]) != expected:
            came = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer)
            raise ConfigError(
                f"--predict answered {came} to images {tuple(image.shape)}; expected "
                f"probabilities (t, {', '.join(map(str, expected))}), that is {asked}"
            )
        sums = answer.detach().sum(2) if task.classes else torch.ones(())
        inside = (answer.detach() >= 0) & (answer.detach() <= 1 + 1e-3)
        if not bool(inside.all()) or float((sums - 1).abs().max()) > 1e-3:
            raise ConfigError("--predict gave logits, not probabilities: apply softmax or sigmoid")
        return answer

    return draws


def _record(run: Path, asked: Asked, found: Hardship) -> dict[str, Any]:
    if not found.probes:
        raise DataError(f"{run}: there is no test case to attack; see --cases")
    return {
        "run": run.name,
        "asked": asdict(asked),
        "trustworthy": all(gate["passed"] for gate in found.gates),
        "gates": found.gates,
        "rows": plain(found.rows),
        "series": found.series,
        "probes": found.probes,
    }
