"""Where parameters live in a job of several processes: whole in each, or a slice in each.

Both layouts are used alike. From ``gather`` to ``sum_gradients`` a stage sees ordinary, whole
parameters in either, so it may read them outside its module's forward pass (the KL term),
differentiate twice (attacks) and replace them between two steps (a posterior).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from penumbra.pretrain.gather import world
from penumbra.training import ranks

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

Shard = Literal["none", "full"]
Slots = Mapping[int, Mapping[str, Any]]
"""An optimizer's state: of its parameters by number, by name."""
T = TypeVar("T")


@runtime_checkable
class Layout(Protocol):
    """What the loop asks of either."""

    sliced: bool

    def run(self, compute: Callable[[], T]) -> T:
        """What ``compute`` returns: a part of a step's loss."""

    def sum_gradients(self, scalars: Tensor) -> Tensor:
        """Sum gradients over processes, for the optimizer to read; returns the summed scalars."""

    def gather(self) -> None:
        """Make the module's parameters whole, as the optimizer has left them."""

    def release(self) -> None:
        """Give the module whole parameters of its own; an optimizer must be made anew."""

    def whole(self, value: Tensor) -> Tensor:
        """A tensor of which a process may hold a slice; all processes must ask."""

    def slots(self, optimizer: torch.optim.Optimizer) -> Slots:
        """The optimizer's state, whole; all processes must ask."""

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the optimizer's state, loaded whole, into this layout."""


def hold(module: nn.Module, shard: Shard) -> Layout:
    """Lay out a module's parameters over the processes of the job, in place."""
    return Slices(module) if shard == "full" and world()[1] > 1 else Copies(module)


class Copies:
    """Every process holds all parameters."""

    sliced = False

    def __init__(self, module: nn.Module) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]

    def run(self, compute: Callable[[], T]) -> T:
        return compute()

    def sum_gradients(self, scalars: Tensor) -> Tensor:
        return ranks.sum_gradients(self.parameters, scalars)

    def gather(self) -> None:
        pass

    def release(self) -> None:
        pass

    def whole(self, value: Tensor) -> Tensor:
        return value

    def slots(self, optimizer: torch.optim.Optimizer) -> Slots:
        return optimizer.state_dict()["state"]

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        pass


class Slices(nn.Module):
    """Every process holds, and optimizes, a slice of each parameter: torch's ``fully_shard``.

    It gathers parameters around the forward pass of a unit. Our unit is the loss of a step,
    whatever that computes, so parameters are whole until the step's gradients are summed; what is
    cut for good is the optimizer's state. Parameters without gradient (a momentum encoder) stay
    whole.
    """

    sliced = True

    def __init__(self, module: nn.Module) -> None:
        # Imported here: it takes half as long as all of torch, and few jobs have two processes.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        super().__init__()
        self.module = module
        mesh = init_device_mesh(next(module.parameters()).device.type, (world()[1],))
        frozen = {p for p in module.parameters() if not p.requires_grad}
        fully_shard(self, mesh=mesh, ignored_params=frozen, reshard_after_forward=False)
        self._unit.set_gradient_divide_factor(1.0)
        self._unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        self._unit.unshard()
        for child in module.modules():  # it would save and load slices; ours are whole by then
            child._state_dict_pre_hooks.clear()
            child._load_state_dict_pre_hooks.clear()
            child._load_state_dict_post_hooks.clear()
        self._unit.reshard()

    def forward(self, compute: Callable[[], T]) -> T:
        return compute()

    def run(self, compute: Callable[[], T]) -> T:
        self._sums(False)
        return self(compute)

    def sum_gradients(self, scalars: Tensor) -> Tensor:
        """The sum is taken by a last backward pass, of nothing.

        It gives a zero to a parameter that has a gradient elsewhere only, and none where there is
        none anywhere.
        """
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        touched = torch.tensor([float(p.grad is not None) for p in parameters])
        message = ranks.total(torch.cat([scalars.float(), touched.to(scalars.device)]))
        scalars, touched = message.split([len(scalars), len(touched)])
        used = [p for p, count in zip(parameters, touched.tolist(), strict=True) if count]
        self._sums(True)
        self(lambda: 0 * torch.stack([p.sum() for p in used]).sum()).backward()
        return scalars

    def gather(self) -> None:
        self._unit.unshard()

    def release(self) -> None:
        self.gather()
        for child in self.module.modules():
            for name, parameter in list(child.named_parameters(recurse=False)):
                own = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                setattr(child, name, own)

    def whole(self, value: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        return value.full_tensor() if isinstance(value, DTensor) else value

    def slots(self, optimizer: torch.optim.Optimizer) -> Slots:
        state = optimizer.state_dict()["state"]
        return {k: {n: self.whole(v) for n, v in each.items()} for k, each in state.items()}

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        from torch.distributed.tensor import DTensor, distribute_tensor

        for parameter, slots in optimizer.state.items():
            assert isinstance(parameter, DTensor)
            mesh, placements = parameter.device_mesh, parameter.placements
            for name, value in slots.items():
                if value.shape == parameter.shape and value.ndim:
                    slots[name] = distribute_tensor(value, mesh, placements, src_data_rank=None)

    @property
    def _unit(self) -> "FSDPModule":
        return cast("FSDPModule", self)  # fully_shard has changed the class

    def _sums(self, now: bool) -> None:
        self._unit.set_requires_gradient_sync(now)
        self._unit.set_reshard_after_backward(now)
