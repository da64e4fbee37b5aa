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
    from penumbra.inference.scan import predict_scans
    from penumbra.pipeline import run
    from penumbra.trained import load as load_model
    from penumbra.types import Case, Cohort, Task, Uncertainty

__version__ = "0.1.0"

_HOME = {
    "resolve": "penumbra.config:resolve",
    "read_cohort": "penumbra.data.cohort:read_cohort",
    "write_phantom": "penumbra.data.phantom:write_phantom",
    "run": "penumbra.pipeline:run",
    "load_model": "penumbra.trained:load",
    "predict_scans": "penumbra.inference.scan:predict_scans",
    "Case": "penumbra.types:Case",
    "Cohort": "penumbra.types:Cohort",
    "Task": "penumbra.types:Task",
    "Uncertainty": "penumbra.types:Uncertainty",
}

__all__ = [
    "Case",
    "Cohort",
    "Task",
    "Uncertainty",
    "load_model",
    "predict_scans",
    "read_cohort",
    "resolve",
    "run",
    "write_phantom",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'penumbra' has no attribute '{name}'")
    module, _, attribute = _HOME[name].partition(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
