"""Is the representation alive? Guards and monitors of embeddings (METHOD 1.1)."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from penumbra.errors import TrainingError


def spread(z: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    r"""Standard deviation per dimension of the normalised embeddings, times $\sqrt d$.

    1 in every dimension for embeddings uniform on the sphere, 0 after a collapse.
    """
    unit = functional.normalize(z.float(), dim=1)
    return (unit.var(0, unbiased=False) * z.shape[1] + 1e-8).sqrt()


def variance_guard(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    r"""$\frac1d \sum_k \max(0, 1 - \sqrt d\,\sigma_k)$: the hinge std >= 1/sqrt(d), in 0..1.

    On normalised embeddings (METHOD 1.1; Bardes et al. 2022, whose target is 1 without the norm).
    """
    return functional.relu(1 - spread(z)).mean()


def effective_rank(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    r"""$\exp H(p)$, p the normalised singular values of the centred embeddings.

    Roy & Vetterli 2007. Between 1 and min(n - 1, d); 0 when all embeddings are equal, NaN when one
    is not finite.
    """
    if not bool(z.isfinite().all()):
        return torch.full((), torch.nan, device=z.device)
    centred = functional.normalize(z.detach().float(), dim=1)
    centred = centred - centred.mean(0)
    values = torch.linalg.eigvalsh(centred.T @ centred).clamp_min(0).sqrt()
    # Square roots of rounding errors are not rank: below 1e-3 of sqrt(n) counts as nothing.
    values = torch.where(values > 1e-3 * len(z) ** 0.5, values, 0)
    share = values / values.sum().clamp_min(1e-12)
    rank = torch.special.entr(share).sum().exp()
    return torch.where(values.sum() > 0, rank, 0.0)


def alignment(z_a: Float[Tensor, "b d"], z_b: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    r"""$E\,|z_a - z_b|^2$ of normalised pairs, in 0..4; lower is better aligned.

    Wang & Isola 2020.
    """
    a, b = (functional.normalize(z.detach().float(), dim=1) for z in (z_a, z_b))
    return (a - b).square().sum(1).mean()


def monitors(z: Float[Tensor, "n d"]) -> dict[str, Tensor]:
    """``effective_rank`` and mean ``spread`` of the embeddings, detached."""
    return {"effective_rank": effective_rank(z), "spread": spread(z.detach()).mean()}


def uniformity(z: Float[Tensor, "n d"], *, most: int = 1024) -> Float[Tensor, ""]:
    r"""$\log E\,e^{-2|z_i - z_j|^2}$ over pairs of normalised embeddings; 0 when collapsed.

    Wang & Isola 2020; lower is more uniform, about -4 on a sphere. Uses the first ``most`` rows.
    """
    unit = functional.normalize(z.detach().float(), dim=1)[:most]
    return (-2 * torch.pdist(unit).square()).exp().mean().log()


class CollapseWatch(nn.Module):
    """Counts for how many steps in a row the embeddings have been degenerate.

    Degenerate: an effective rank below a tenth of what the batch allows, or a mean spread below
    0.05. A fresh network may start so; hence the patience.
    """

    bad_steps: Tensor

    def __init__(self, *, patience: int = 100) -> None:
        super().__init__()
        self.patience = patience
        self.register_buffer("bad_steps", torch.zeros((), dtype=torch.int64))

    def update(self, monitors: Mapping[str, Tensor], *, ceiling: int) -> None:
        """Count one more step.

        Args:
            monitors: ``effective_rank`` and ``spread`` of the embeddings of this step.
            ceiling: the highest rank that they need have: min(n - 1, d), or less where the loss
                tells fewer images apart.

        Raises:
            TrainingError: the embeddings hold NaN or infinity, or patience is over.
        """
        rank, std = float(monitors["effective_rank"]), float(monitors["spread"])
        if not (math.isfinite(rank) and math.isfinite(std)):
            raise TrainingError(
                "the embeddings are not finite: lower pretrain.lr, or look for NaN in the images"
            )
        bad = rank < 0.1 * ceiling or std < 0.05
        self.bad_steps.copy_(self.bad_steps + 1 if bad else torch.zeros_like(self.bad_steps))
        if int(self.bad_steps) >= self.patience:
            raise TrainingError(
                f"the representation collapsed: for {self.patience} steps in a row the embeddings "
                f"were degenerate, now with effective rank {rank:.1f} of at most {ceiling} and "
                f"spread {std:.3f} (1 is healthy, 0 a single point). Raise pretrain.variance_guard "
                "or pretrain.batch, set pretrain.queue, lower pretrain.lr, or check that the "
                "images are not empty."
            )
