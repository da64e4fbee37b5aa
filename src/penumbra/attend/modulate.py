"""The map that is shown: attention, dimmed where the posterior does not know (proposal 2.3.2)."""

from jaxtyping import Float
from torch import Tensor


def modulate(
    attention: Float[Tensor, "*maps"],
    uncertainty: Float[Tensor, "*maps"],
    *,
    kappa: float,
    u_ref: float,
) -> Float[Tensor, "*maps"]:
    r"""``A (1 - kappa min(1, U / u_ref))``, in [0, 1] for attention in [0, 1].

    ``u_ref`` is a fixed validation quantile, so two scans are dimmed by one scale; at or above it
    the map keeps the share ``1 - kappa``. No gradient passes through the uncertainty.

    Raises:
        ValueError: ``kappa`` is outside [0, 1], or ``u_ref`` is not positive.

    Example:
        >>> import torch
        >>> modulate(torch.ones(3), torch.tensor([0.0, 0.1, 9.0]), kappa=0.5, u_ref=0.2)
        tensor([1.0000, 0.7500, 0.5000])
    """
    if not 0 <= kappa <= 1:
        raise ValueError(f"kappa is a share in [0, 1], got {kappa}")
    if not u_ref > 0:
        raise ValueError(f"u_ref must be a positive reference uncertainty, got {u_ref}")
    return attention * (1 - kappa * (uncertainty.detach() / u_ref).clamp(max=1))
