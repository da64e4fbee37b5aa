"""Fixtures of the fault suite; its tools are in jobs.py and ../training/toys.py."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from penumbra import pipeline
from penumbra.data.phantom import write_phantom

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from jobs import Job, Start


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Begin a job; what it said last, if it failed, is in ``job.said``."""
    count = iter(range(10_000))
    return lambda work: Job(work, said=tmp_path / f"said-{next(count)}.txt")


@pytest.fixture(autouse=True, scope="session")
def _forkable() -> Iterator[None]:
    """One thread, and a small probe, which else is most of a tiny pre-training."""
    with pytest.MonkeyPatch.context() as patch:
        torch.set_num_threads(1)  # a forked process cannot use the threads of its parent
        patch.setattr(pipeline, "PROBED", 16)
        patch.setattr(pipeline, "POSITIONS", 64)
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("PENUMBRA_CACHE", str(cache))


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "xray"
    write_phantom(root, modality="xray", cases=12, seed=0, shape=(48, 48))
    return root
