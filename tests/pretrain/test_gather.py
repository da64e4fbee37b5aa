"""Two processes see the negatives of each other, and their gradients agree with one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    source = str(HERE.parents[1] / "src")
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ranks.py"), str(rank), "2", str(path)],
            env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    return path


@pytest.mark.parametrize("queue", [0, 24])
def test_two_processes_compute_the_loss_and_gradient_of_one(folder: Path, queue: int) -> None:
    single, first, second = (torch.load(folder / f"{who}-{queue}.pt") for who in ("single", 0, 1))
    assert first.keys() == single.keys()
    for name, expected in single.items():
        # As a data-parallel trainer averages them.
        torch.testing.assert_close((first[name] + second[name]) / 2, expected, msg=name)
