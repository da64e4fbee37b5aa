"""The site builds, and every warning is an error: dead links, names that do not exist."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    method = (tmp_path / "method" / "index.html").read_text()
    assert "<math" in method
    assert "#penumbra.pretrain.contrastive.nt_xent" in method
