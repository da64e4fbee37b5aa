"""One number that makes averaged probabilities as sure as they are right (Guo et al. 2017).

Scaling comes *after* averaging: ``p_T = softmax(log(pbar) / T)``. Scaling each draw's logits before
averaging would change the disagreement between draws, which is the epistemic part.
"""

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from penumbra.bayes.uncertainty import Kind

RANGE = (0.05, 20.0)
TINY = 1e-12
"""Probabilities are raised to this before the logarithm: float32 softmax underflows to 0."""


def fit_temperature(
    mean_log_probabilities: Float[Tensor, "n c"], labels: Int[Tensor, " n"]
) -> float:
    """The temperature with the least negative log-likelihood, within ``RANGE``.

    ``NLL(T) = -mean log softmax(log pbar / T)[label]`` has one minimum. Rows with a negative label
    do not count. A finding's coin is a categorical of two: pass ``log [1 - p, p]``.

    Raises:
        ValueError: no row has a label.

    Example:
        >>> p = torch.tensor([[0.99, 0.01]] * 10)  # 99 % sure, 9 times out of 10 right
        >>> t = fit_temperature(p.log(), torch.tensor([0] * 9 + [1]))
        >>> round(float(apply_temperature(p, t)[0, 0]), 3)
        0.9
    """
    known = labels >= 0
    if not bool(known.any()):
        raise ValueError("temperature: no labelled sample to fit on")
    logs = mean_log_probabilities[known].double().clamp_min(torch.tensor(TINY).log().item())
    target = labels[known].long()

    def nll(log_t: float) -> float:
        scaled = (logs / torch.tensor(log_t).exp()).log_softmax(1)
        return -float(scaled.gather(1, target[:, None]).mean())

    bounds = torch.tensor(RANGE).log().tolist()
    found = minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(torch.tensor(found.x).exp())


def apply_temperature(
    probabilities: Float[Tensor, "b c *space"], temperature: float, kind: Kind = "categorical"
) -> Float[Tensor, "b c *space"]:
    """Averaged probabilities at another temperature; the ranking of classes does not change.

    Categorical: over axis 1. Bernoulli: every element a coin, ``sigmoid(logit(p) / T)``.

    Raises:
        ValueError: ``temperature`` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: must be positive")
    if kind == "bernoulli":
        return torch.special.logit(probabilities, TINY).div(temperature).sigmoid()
    return probabilities.clamp_min(TINY).log().div(temperature).softmax(1)
