"""What each of two processes does; the first one also runs the whole batch alone."""

import sys
from pathlib import Path

import torch
from torch import distributed, nn

from penumbra.config import Pretrain
from penumbra.pretrain.objective import SelfSupervised


class Pixels(nn.Module):
    """The smallest encoder: one linear map of all channels at every place."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 6, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.mix(x).tanh(),)


def gradients(rank: int, ranks: int, queue: int) -> dict[str, torch.Tensor]:
    """Loss and parameter gradients of this rank's share of one fixed batch of eight images."""
    torch.manual_seed(0)
    settings = Pretrain(queue=queue, protocol_mode="off", region=0, variance_guard=0)
    model = SelfSupervised(Pixels(), features=6, settings=settings, protocols=0, dim=2, seed=1)
    generator = torch.Generator().manual_seed(2)
    views = torch.rand(2, 8, 3, 4, 4, generator=generator)
    position = torch.rand(8, 2, generator=generator)
    patient = torch.tensor([0, 0, 1, -1, 0, -1, 1, 2])
    mine = slice(rank * 8 // ranks, (rank + 1) * 8 // ranks)
    result = {}
    for step in range(2):  # the second step sees the queue that the first one has filled
        model.zero_grad()
        loss = model(
            views[0, mine],
            views[1, mine],
            position=position[mine],
            protocol=torch.full((8,), -1)[mine],
            patient=patient[mine],
        )["contrast"]
        loss.backward()
        model.after_step()
        result[f"loss {step}"] = loss.detach()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and parameter.grad.any():
                result[f"{name} {step}"] = parameter.grad.clone()
    return result


def main(rank: int, ranks: int, folder: Path) -> None:
    if rank == 0:
        for queue in (0, 24):
            torch.save(gradients(0, 1, queue), folder / f"single-{queue}.pt")
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks
    )
    for queue in (0, 24):
        torch.save(gradients(rank, ranks, queue), folder / f"{rank}-{queue}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
