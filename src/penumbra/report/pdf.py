"""The report as a PDF, printed by a browser that is on the machine: the same page, on paper."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from penumbra.errors import DataError
from penumbra.files import atomic

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
    "microsoft-edge",
)
MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
QUIET = (
    "--headless",
    "--no-sandbox",  # it opens one local page, which has no script from elsewhere
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-pdf-header-footer",
)
PATIENCE_S = 120


def browser() -> str | None:
    """Path of a Chromium-like browser, or none."""
    found = (shutil.which(name) for name in BROWSERS)
    return next(filter(None, found), MACOS if Path(MACOS).exists() else None)


def print_pdf(page: Path) -> Path:
    """Print an HTML page beside itself; the PDF's path.

    Raises:
        DataError: no browser is there, or it did not print.
    """
    program = browser()
    if program is None:
        raise DataError(
            f"{page}: a PDF is printed by Chromium, Chrome or Edge, and none was found; install "
            "one, or print the page from any browser"
        )
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile, atomic(target) as part:
        command = [program, *QUIET, f"--user-data-dir={profile}", f"--print-to-pdf={part}"]
        try:
            ended = subprocess.run(
                [*command, page.resolve().as_uri()],
                capture_output=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DataError(f"{page}: {program} did not print it in {PATIENCE_S} s") from None
        if not part.exists() or not part.read_bytes().startswith(b"%PDF"):
            last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise DataError(f"{page}: {program} printed nothing ({' '.join(last)})")
    return target
