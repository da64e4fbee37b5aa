"""Penumbra: medical-image models that say what they see and draw the half-shadow honestly.

The public names are loaded on first use, so that ``import penumbra`` costs nothing.

Example:
    >>> import penumbra as pn
    >>> pn.resolve("brain-mri", size="tiny").train.steps
    12
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penumbra.config import resolve
    from penumbra.data.cohort import read_cohort
    from penumbra.data.phantom import write_phantom
    from penumbra.inference.case import predict
    from penumbra.inference.prediction import Prediction
    from penumbra.pipeline import evaluate as evaluate_model
    from penumbra.pipeline import pretrain as pretrain_encoder
    from penumbra.pipeline import run
    from penumbra.pipeline import train as train_model
    from penumbra.trained import load as load_model
    from penumbra.types import Case, Uncertainty

__version__ = "0.1.0"

_HOME = {
    "write_phantom": "penumbra.data.phantom:write_phantom",
    "read_cohort": "penumbra.data.cohort:read_cohort",
    "resolve": "penumbra.config:resolve",
    "run": "penumbra.pipeline:run",
    "pretrain_encoder": "penumbra.pipeline:pretrain",
    "train_model": "penumbra.pipeline:train",
    "evaluate_model": "penumbra.pipeline:evaluate",
    "load_model": "penumbra.trained:load",
    "predict": "penumbra.inference.case:predict",
    "Case": "penumbra.types:Case",
    "Prediction": "penumbra.inference.prediction:Prediction",
    "Uncertainty": "penumbra.types:Uncertainty",
}

__all__ = [
    "Case",
    "Prediction",
    "Uncertainty",
    "evaluate_model",
    "load_model",
    "predict",
    "pretrain_encoder",
    "read_cohort",
    "resolve",
    "run",
    "train_model",
    "write_phantom",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'penumbra' has no attribute '{name}'")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
