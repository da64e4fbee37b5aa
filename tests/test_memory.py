"""What a step frees is there for the next one."""

import subprocess
import sys

import pytest
import torch

from penumbra.memory import give_back, zeros

STEPS = """
import resource

def step():
    return [bytearray(2**21) for _ in range(64)] + [bytearray(2**26) for _ in range(4)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step()
before = faults()
step()
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a property of glibc")
def test_kept_memory_is_not_mapped_a_second_time() -> None:
    def faults(before: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", before + STEPS], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    kept = faults("from penumbra.memory import keep_freed\nkeep_freed()\n")
    assert kept < 0.1 * faults("")


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (0, 5), ()])
def test_zeros_outside_the_heap_are_zeros(shape: tuple[int, ...]) -> None:
    found = zeros(*shape)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.zeros(shape))
    found += 1
    give_back()
    torch.testing.assert_close(found, torch.ones(shape))
