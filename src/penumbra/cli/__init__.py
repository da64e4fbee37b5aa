"""The command line: thin verbs, and mistakes that end in one line.

Every setting of a preset is also a word, ``--train.lr 3e-4`` or ``--train.lr=3e-4``, which is
spelled out as ``--set train.lr=3e-4`` before parsing, so that the parser stays strict.
"""

import re
import sys
import traceback
from collections.abc import Iterable, Sequence

import typer

from penumbra.cli import care as care  # registers its verb
from penumbra.cli import explain as explain  # registers its verbs
from penumbra.cli import judge as judge  # registers its verbs
from penumbra.cli import look as look  # registers its verbs
from penumbra.cli import predict as predict  # registers its verb
from penumbra.cli import robustness as robustness  # registers its verb
from penumbra.cli import share as share  # registers its verbs
from penumbra.cli import study as study  # registers its verbs
from penumbra.cli.verbs import app
from penumbra.errors import ConfigError, PenumbraError

# The parser's exceptions are click's or, in newer typer, a private copy; this base is in both.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
_DOTTED = re.compile(r"--([A-Za-z]\w*(?:\.\w+)+)(?:=(.*))?", re.DOTALL)
_CONFIGURED = {"run", "check", "pretrain", "train", "study", "labels-curve"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; every foreseen mistake ends in one line and exit code 1 or 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    try:
        if words[0] in _CONFIGURED:
            words = spell_out(words)
        code = app(words, prog_name="penumbra", standalone_mode=False)
    except (PenumbraError, OSError, _USAGE_ERROR) as error:
        if debug:
            traceback.print_exc()
        typer.echo(f"penumbra: {_explain(error)}", err=True)
        code = getattr(error, "exit_code", 1)
    if code == 130:
        typer.echo("penumbra: interrupted; the same command continues from there", err=True)
    sys.exit(code or 0)


def spell_out(words: Iterable[str]) -> list[str]:
    """The same words with every dotted setting as ``--set NAME=VALUE``.

    Raises:
        ConfigError: a setting stands without a value.

    Example:
        >>> spell_out(["run", "--train.lr", "3e-4", "--seed", "1", "--train.dice=-1"])
        ['run', '--set', 'train.lr=3e-4', '--seed', '1', '--set', 'train.dice=-1']
    """
    spelled: list[str] = []
    remaining = iter(words)
    for word in remaining:
        match = _DOTTED.fullmatch(word)
        if match is None:
            spelled.append(word)
            continue
        name, value = match.groups()
        value = next(remaining, None) if value is None else value
        if value is None or value.startswith("--"):
            raise ConfigError(f"--{name} needs a value: --{name} VALUE or --{name}=VALUE")
        spelled += ["--set", f"{name}={value}"]
    return spelled


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if not isinstance(error, _USAGE_ERROR):
        return str(error) or type(error).__name__
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "penumbra"
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    return f"{message.rstrip('.')}; see {command} --help"
