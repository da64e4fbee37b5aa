"""Architectures of others, trained by the same loop on the same batches, judged the same way."""

from pathlib import Path

from penumbra.config import Config
from penumbra.errors import ConfigError


def run(network: str, config: Config, data: Path, folder: Path) -> None:
    """Train and judge a network of MONAI's."""
    raise ConfigError(f"{network}: not built yet")
