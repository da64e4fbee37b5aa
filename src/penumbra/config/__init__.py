"""The settings of a run and where they come from.

A run's configuration is a preset (YAML), its ``size`` section, then dotted overrides, in order;
``resolve`` merges and validates them and reports every mistake with its path.
"""

from penumbra.config.resolve import load, preset_names, resolve, validate
from penumbra.config.schema import (
    Adversarial,
    Attention,
    Bayes,
    Config,
    Data,
    Evaluate,
    Model,
    Pretrain,
    Size,
    Train,
)

__all__ = [
    "Adversarial",
    "Attention",
    "Bayes",
    "Config",
    "Data",
    "Evaluate",
    "Model",
    "Pretrain",
    "Size",
    "Train",
    "load",
    "preset_names",
    "resolve",
    "validate",
]
