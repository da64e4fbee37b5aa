"""What is compared: an arm is a named set of settings on top of one preset.

Architecture, steps, augmentation and tuning are the same in every arm; an arm changes only what its
name says (METHOD section 5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from penumbra.errors import ConfigError
from penumbra.types import Modality

_BARE: dict[str, Any] = {
    "bayes.posterior": "none",
    "adversarial.weight": 0.0,
    "attention.gates": False,
    "attention.weight": 0.0,
    "attention.clinical": 0.0,
    "attention.anatomy": 0.0,
}
"""A deterministic network without gates and with the task's loss alone."""


def _bare_but(*kept: str) -> dict[str, Any]:
    """The bare network with these settings as the preset has them."""
    return {key: value for key, value in _BARE.items() if key not in kept}


@dataclass(frozen=True)
class Arm:
    """One row of the study.

    Attributes:
        settings: dotted overrides of the preset.
        pretrained: starts from the seed's self-supervised encoder.
        members: arm whose seeds are evaluated together instead of training anything.
        answers: ``segmentation`` or ``findings`` where the arm can give only one of the two;
            ``both`` where it needs a cohort that has both kinds of labels.
    """

    name: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    pretrained: bool = True
    members: str | None = None
    answers: Literal["segmentation", "findings", "both", "either"] = "either"


STRONG = 0.8
"""Chance of each augmentation family where the published recipe augments heavily."""

ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("supervised", "deterministic, from random weights", _BARE, pretrained=False),
        Arm("ssl", "pre-trained, deterministic", _BARE),
        Arm(
            "mc-dropout",
            "pre-trained, dropout at prediction",
            {**_BARE, "bayes.posterior": "dropout"},
        ),
        Arm(
            "decoder-ensemble",
            "pre-trained, four decoders on one encoder",
            {**_BARE, "bayes.decoders": 4},
        ),
        Arm("variational", "pre-trained, with a posterior alone", _bare_but("bayes.posterior")),
        Arm("seed-ensemble", "all supervised seeds together", _BARE, False, "supervised"),
        Arm(
            "adversarial",
            "pre-trained, deterministic, adversarially trained with the same budget",
            {**_bare_but("adversarial.weight"), "adversarial.gamma": 0.0},
        ),
        Arm(
            "plain",
            "pre-trained, deterministic, without augmentation",
            {**_BARE, "train.augment": 0.0},
        ),
        Arm(
            "variational-adversarial-unweighted",
            "with a posterior and L_adv, every image weighing the same",
            {
                **_bare_but("bayes.posterior", "adversarial.weight"),
                "adversarial.gamma": 0.0,
            },
        ),
        Arm(
            "variational-adversarial",
            "with a posterior and uncertainty-weighted L_adv",
            _bare_but("bayes.posterior", "adversarial.weight"),
        ),
        Arm(
            "nnunet-style",
            "residual U-Net with deep supervision and strong augmentation (DynUNet)",
            {**_BARE, "model.architecture": "dynunet", "train.augment": STRONG},
            pretrained=False,
            answers="segmentation",
        ),
        Arm(
            "swin-unetr",
            "Swin UNETR with strong augmentation",
            {**_BARE, "model.architecture": "swin-unetr", "train.augment": STRONG},
            pretrained=False,
            answers="segmentation",
        ),
        Arm(
            "densenet121",
            "DenseNet-121",
            {**_BARE, "model.architecture": "densenet121"},
            pretrained=False,
            answers="findings",
        ),
        *(
            Arm(
                f"{head}-alone",
                f"supervised, a network of its own for the {head}",
                {**_BARE, "data.heads": head},
                pretrained=False,
                answers="both",
            )
            for head in ("segmentation", "findings")
        ),
        Arm("ours", "the whole method"),
        Arm("ours-ensemble", "all seeds of the whole method together", {}, False, "ours"),
        Arm("ours-minus-ssl", "without pre-training", pretrained=False),
        Arm(
            "ours-minus-bayes",
            "without a posterior",
            {"bayes.posterior": "none", "adversarial.gamma": 0.0, "attention.weight": 0.0},
        ),
        Arm("ours-minus-adversarial", "without L_adv", {"adversarial.weight": 0.0}),
        Arm(
            "ours-minus-attention",
            "without gates and their losses",
            {key: v for key, v in _BARE.items() if key.startswith("attention.")},
        ),
        Arm("ours-minus-region", "pre-trained without regions", {"pretrain.region": 0.0}),
        Arm(
            "ours-minus-protocol",
            "pre-trained without protocols",
            {"pretrain.protocol": 0.0, "pretrain.protocol_mode": "off"},
        ),
        Arm("ours-minus-views", "pre-trained on generic views", {"pretrain.views": "generic"}),
        *(
            Arm(
                f"ours-uncertain-{policy}",
                f"labels called uncertain count as: {policy}",
                {"data.uncertain": policy},
                answers="findings",
            )
            for policy in ("ones", "zeros", "ignore")
        ),
    )
}

SCALED = "+temperature"
"""Suffix of the temperature-scaled rows of an arm: the same run, its probabilities rescaled."""

ROBUSTNESS = (
    "plain",
    "ssl",
    "adversarial",
    "variational",
    "variational-adversarial-unweighted",
    "variational-adversarial",
)
"""From one encoder per seed: what augmentation, L_adv, the posterior and the weights each add."""

MAIN = ("supervised", "ssl", "mc-dropout", "seed-ensemble", "adversarial", "ours")


def chosen(names: Sequence[str], *, modality: Modality = "mri") -> list[Arm]:
    """The arms of these names; ``main`` stands for the six that the claims need, ``robustness`` for
    those that take robustness apart, ``all`` for all that can answer in this modality.
    ``multitask`` is for cohorts with both kinds of labels: one network with two heads against two.

    Raises:
        ConfigError: a name is not an arm, or gives what this modality does not ask for.
    """
    asked = "findings" if modality == "xray" else "segmentation"
    suited = [arm.name for arm in ARMS.values() if arm.answers in (asked, "either")]
    two = [arm.name for arm in ARMS.values() if arm.answers == "both"]
    spelled: list[str] = []
    for name in names:
        match name:
            case "main":
                spelled += MAIN
            case "robustness":
                spelled += ROBUSTNESS
            case "all":
                spelled += suited
            case "multitask":
                spelled += ("supervised", *two)
            case "temperature":  # rows of these two runs
                spelled += ("supervised", "ssl")
            case _:
                spelled.append(name)
    unknown = [name for name in spelled if name not in ARMS]
    if unknown:
        known = ", ".join(("main", "robustness", "multitask", "all", "temperature", *ARMS))
        raise ConfigError(f"no arm is called {', '.join(unknown)}; known: {known}")
    if unsuited := [name for name in spelled if name not in suited + two]:
        raise ConfigError(f"{', '.join(unsuited)}: gives no {asked}; suited: {', '.join(suited)}")
    return [ARMS[name] for name in dict.fromkeys(spelled)]
