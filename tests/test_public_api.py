import subprocess
import sys

import pytest

import penumbra


@pytest.mark.parametrize("name", penumbra.__all__)
def test_every_public_name_can_be_loaded(name: str) -> None:
    assert getattr(penumbra, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = penumbra.magic


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import penumbra, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
