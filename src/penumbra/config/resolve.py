"""Files and overrides -> one validated configuration, with every mistake named by its path."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from penumbra.config.schema import Config, Size
from penumbra.errors import ConfigError, first_line


def preset_names() -> list[str]:
    """Names accepted by ``--preset``."""
    folder = resources.files("penumbra") / "presets"
    return sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )


def resolve(
    preset: str, *, size: Size | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Merge a preset, its size section and dotted overrides into one validated configuration.

    Args:
        preset: a shipped preset's name or the path of a YAML file.
        overrides: dotted path -> value, e.g. ``{"train.lr": "3e-4"}``; text is read as YAML.

    Raises:
        ConfigError: the preset is unknown, or any setting is; all mistakes are listed.
    """
    tree = _read_preset(preset)
    sizes = tree.pop("sizes", {})
    tree["size"] = chosen = size or tree.get("size", "small")
    section = sizes.get(str(chosen), {}) if isinstance(sizes, dict) else None
    if not isinstance(section, dict):
        raise ConfigError(f"{preset}: sizes must map tiny, small and full to mappings of settings")
    _merge(tree, section)
    for dotted, value in (overrides or {}).items():
        _merge(tree, _nest(dotted, _read_text(dotted, value) if isinstance(value, str) else value))
    return validate(tree, source=preset)


def load(path: Path) -> Config:
    """Read a resolved ``config.yaml``.

    Raises:
        ConfigError: it cannot be read, or holds a setting that is not valid.
    """
    return validate(_parsed(_text(path), str(path)), source=str(path))


def validate(tree: object, *, source: str) -> Config:
    """Check a plain tree against ``Config``.

    Raises:
        ConfigError: lists every mistake with its path, and "did you mean" for unknown keys.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        known = _dotted_fields(Config)
        lines = [_explain(e["loc"], e["type"], e["msg"], e["input"], known) for e in error.errors()]
        raise ConfigError(
            f"{source}: {len(lines)} invalid setting(s)\n" + "\n".join(lines)
        ) from None


def _explain(
    loc: Sequence[str | int], kind: str, message: str, value: object, known: list[str]
) -> str:
    path = ".".join(str(part) for part in loc)
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(path, known, n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"  {path}: no such setting{hint}"
    return f"  {path}: {message} (got {reprlib.repr(value)})"


def _dotted_fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, info in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names += _dotted_fields(info.annotation, f"{prefix}{name}.")
    return names


def _read_preset(preset: str) -> dict[str, Any]:
    path = Path(preset)
    if path.suffix in {".yaml", ".yml"}:
        text = _text(path)
    elif preset in preset_names():
        text = (resources.files("penumbra") / "presets" / f"{preset}.yaml").read_text()
    else:
        close = difflib.get_close_matches(preset, preset_names(), n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(preset_names())}"
        raise ConfigError(f"preset '{preset}' does not exist; {hint}")
    tree = _parsed(text, preset)
    if not isinstance(tree, dict):
        raise ConfigError(f"{preset}: expected a mapping of settings, got {type(tree).__name__}")
    return tree


def _read_text(dotted: str, text: str) -> Any:
    if text.lower() in {"on", "off", "yes", "no"}:
        return text  # words here, as in YAML 1.2; PyYAML would make booleans of them
    return _parsed(text, f"{dotted}: {text!r}")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({first_line(error)})") from error


def _parsed(text: str, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date in month 13, say
        raise ConfigError(
            f"{source}: not valid YAML ({first_line(error)}); quote it, or mend it"
        ) from error


def _nest(dotted: str, value: Any) -> dict[str, Any]:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return value


def _merge(tree: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value
