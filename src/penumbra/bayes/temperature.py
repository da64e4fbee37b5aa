"""Temperature scaling after averaging: one number, fitted on validation data."""

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional


def fit_temperature(log_probabilities: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> float:
    """The temperature in 0.05..20 with the least negative log-likelihood (Guo et al. 2017).

    ``log_probabilities`` are logs of the *averaged* prediction; their rows need not be normalised.
    """
    logs = log_probabilities.double()

    def loss(log_temperature: float) -> float:
        scaled = logs / float(torch.tensor(log_temperature).exp())
        return float(functional.cross_entropy(scaled, labels))

    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return float(torch.tensor(found.x).exp())


def apply_temperature(
    probability: Float[Tensor, "b c *space"], temperature: float
) -> Float[Tensor, "b c *space"]:
    """``softmax(log p / T)`` over axis 1; T = 1 changes nothing."""
    return (probability.clamp(min=1e-12).log() / temperature).softmax(1)
