"""What gates and the composite map cost at prediction, against the same network without them.

Run: ``OMP_NUM_THREADS=1 python benchmarks/attention.py``. Candidates take turns in every round;
the ratio is the median over rounds of CPU seconds. Bars: below 5 % time, below 2 % parameters.
"""

import statistics
import time

import torch

from penumbra.attend.composite import composite
from penumbra.model import Network

ROUNDS = 15


def build(findings: int, gates: bool) -> Network:
    return Network(
        channels=1,
        classes=0 if findings else 4,
        findings=findings,
        dim=2,
        widths=(16, 32, 64, 128),
        gates=gates,
    ).eval()


@torch.inference_mode()
def seconds(network: Network, image: torch.Tensor) -> float:
    start = time.process_time()
    output = network(image)
    if output.attention:
        composite(output.attention, network.beta, image.shape[2:])
    return time.process_time() - start


def main() -> None:
    image = torch.rand((8, 1, 128, 128), generator=torch.Generator().manual_seed(0))
    for findings in (0, 1, 14):
        gated, plain = build(findings, True), build(findings, False)
        seconds(gated, image), seconds(plain, image)
        ratios = [seconds(gated, image) / seconds(plain, image) for _ in range(ROUNDS)]
        counts = [sum(p.numel() for p in net.parameters()) for net in (gated, plain)]
        task = f"{findings} findings" if findings else "4 classes"
        print(
            f"{task:12s} time +{100 * (statistics.median(ratios) - 1):.1f} %  "
            f"parameters +{100 * (counts[0] / counts[1] - 1):.2f} %"
        )


if __name__ == "__main__":
    main()
