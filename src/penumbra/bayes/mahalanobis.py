"""How far a scan's features lie from those of the training scans (Lee et al. 2018).

One Gaussian over one vector per scan; its covariance is shrunk, because there are fewer scans
than features. What distance is far is read from validation scans, which the Gaussian has not seen.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Strangeness:
    """How unlike the training scans a scan is.

    Attributes:
        distance: Mahalanobis distance over the root of the number of features; about 1 for a
            training scan.
        nearer: how many of the validation ``scans`` lie nearer to the training scans.
    """

    distance: float
    nearer: int
    scans: int

    @property
    def p_value(self) -> float:
        """Share of familiar scans that look at least as strange: conformal, never 0."""
        return (1 + self.scans - self.nearer) / (1 + self.scans)


class Familiarity(nn.Module):
    """The training scans' mean and inverse covariance, and the validation scans' distances."""

    mean: Tensor
    precision: Tensor
    validation: Tensor

    def __init__(
        self,
        mean: Float[Tensor, " d"],
        precision: Float[Tensor, "d d"],
        validation: Float[Tensor, " n"],
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("precision", precision)
        self.register_buffer("validation", validation)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Distances, over the root of d."""
        apart = features.to(self.mean) - self.mean
        squared = torch.einsum("nd,de,ne->n", apart, self.precision, apart)
        return (squared.clamp_min(0) / len(self.mean)).sqrt()

    def judge(self, features: Float[Tensor, " d"]) -> Strangeness:
        """One scan against the validation scans."""
        distance = self(features[None])[0]
        return Strangeness(
            float(distance), int((self.validation < distance).sum()), len(self.validation)
        )


def fit_familiarity(
    training: Float[Tensor, "n d"], validation: Float[Tensor, "m d"]
) -> Familiarity:
    """The Gaussian of the training scans, with the distances of the validation scans.

    Raises:
        ValueError: fewer than two training scans, or all of them equal.

    Example:
        >>> scans = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
        >>> known = fit_familiarity(scans[:40], scans[40:])
        >>> known.judge(torch.full((3,), 9.0)).nearer
        20
    """
    mean, precision, _ = shrunk_gaussian(training.double().numpy())
    known = Familiarity(torch.from_numpy(mean), torch.from_numpy(precision), torch.zeros(0))
    known.validation = known(validation).sort().values
    return known


def shrunk_gaussian(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"], float]:
    r"""Mean, inverse covariance and shrinkage by oracle approximation (OAS, Chen et al. 2010).

    $$ \Sigma = (1 - \rho) S + \rho \frac{\mathrm{tr} S}{d} I $$

    with S the sample covariance and rho from n, d, tr S and tr S^2 alone.

    Raises:
        ValueError: fewer than two scans, or all of them equal.
    """
    n, d = features.shape
    if n < 2:
        raise ValueError(f"{n} scan(s): a spread needs two at least")
    mean = features.mean(0)
    apart = features - mean
    covariance = apart.T @ apart / n
    level = float(np.trace(covariance)) / d
    if level <= 0:
        raise ValueError("all scans have equal features; their spread is zero")
    squared = float((covariance**2).mean())
    # scikit-learn's form of equation 23: means of squares in place of traces
    rho = (squared + level**2) / ((n + 1) * (squared - level**2 / d)) if d > 1 else 1.0
    rho = float(np.clip(rho, 0, 1))
    shrunk = (1 - rho) * covariance + rho * level * np.eye(d)
    return mean, np.linalg.inv(shrunk), rho
