"""``python -m penumbra`` is ``penumbra``."""

from penumbra.cli import main

main()
