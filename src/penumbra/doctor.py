"""What this installation can do here: versions, devices, extras, disk, and a self-test."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from penumbra.errors import PenumbraError
from penumbra.files import cache_folder

Verdict = Literal["ok", "absent", "problem"]

CORE = ("torch", "monai", "numpy", "scipy", "nibabel", "scikit-image", "pydantic", "safetensors")
EXTRAS = {
    "dicom": ("pydicom", "highdicom", "dicomweb_client"),
    "serve": ("fastapi", "uvicorn", "multipart"),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "ray": ("ray",),
}
"""Extra -> the modules that it brings."""

ENOUGH_GIB = 2.0
"""Free disk below which a run of a small cohort may fail."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination; ``remedy`` says what to do about a problem or an absence."""

    name: str
    verdict: Verdict
    said: str
    remedy: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """Look at the interpreter, the packages, the devices and the disks behind ``folder``."""
    yield _python()
    yield from (_package(name) for name in CORE)
    yield from _devices()
    yield from (_extra(name, modules) for name, modules in EXTRAS.items())
    yield _browser()
    yield _disk("disk for runs", folder, "choose another --out")
    yield _disk("disk for prepared scans", cache_folder(), "set PENUMBRA_CACHE to a larger disk")
    yield _shared_memory()


def self_test() -> Path:
    """The whole method at size tiny on a dozen phantoms, then one prediction; the report.

    Raises:
        PenumbraError: a stage did not do what it should.
    """
    from penumbra import pipeline
    from penumbra.config import resolve
    from penumbra.data.phantom import write_phantom
    from penumbra.inference.scan import predict_scans

    folder = Path(tempfile.mkdtemp(prefix="penumbra-doctor-"))
    phantoms = folder / "phantoms"
    write_phantom(phantoms, modality="mri", cases=12, seed=0)
    report = pipeline.run(resolve("phantom-mri", size="tiny"), phantoms, folder / "run")
    scan = next(path for path in sorted(phantoms.iterdir()) if path.is_dir())
    wrote = predict_scans(folder / "run", [scan], folder / "pred", draws=2)
    missing = [path for path in (report, *wrote) if not path.exists()]
    if missing:
        raise PenumbraError(f"self-test: {missing[0]} was not written; see {folder}")
    return report


def _python() -> Finding:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", said)


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "problem", "not installed", "pip install penumbra-imaging")


def _extra(name: str, modules: tuple[str, ...]) -> Finding:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        remedy = f"pip install 'penumbra-imaging[{name}]'"
        return Finding(f"[{name}]", "absent", f"without {', '.join(missing)}", remedy)
    return Finding(f"[{name}]", "ok", "installed")


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding("cpu", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads")
    if not torch.cuda.is_available():
        yield Finding("gpu", "absent", "torch sees none", "--size small is made for CPU cores")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        said = f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
        yield Finding(f"gpu {index}", "ok", said)


def _browser() -> Finding:
    from penumbra.report.pdf import browser

    path = browser()
    if path is None:
        return Finding("browser", "absent", "for PDF reports", "install Chromium or Chrome")
    return Finding("browser", "ok", path)


def _disk(name: str, folder: Path, remedy: str) -> Finding:
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 2**30
    said = f"{free:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        return Finding(name, "problem", f"{place} cannot be written", remedy)
    return Finding(name, "ok" if free >= ENOUGH_GIB else "problem", said, remedy)


def _shared_memory() -> Finding:
    """Loader processes hand batches over through ``/dev/shm``; containers often give it 64 MiB."""
    place = Path("/dev/shm")
    if not place.exists():
        return Finding("shared memory", "ok", "not limited on this system")
    free = shutil.disk_usage(place).free / 2**20
    remedy = "start the container with --shm-size 2g, or keep --data.workers 0"
    verdict: Verdict = "ok" if free >= 512 else "absent"
    return Finding("shared memory", verdict, f"{free:.0f} MiB free", remedy)
