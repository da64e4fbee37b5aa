"""How far a scan's features lie from those of the training scans (Lee et al. 2018).

One Gaussian over one vector per scan; its covariance is shrunk, because there are fewer scans
than features.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class FeatureDensity:
    """Mean and inverse covariance of the training scans' features.

    Attributes:
        shrinkage: the weight of the scaled identity in the covariance, 0..1.
        scans: how many training scans are behind it.
    """

    mean: Float[np.ndarray, " d"]
    precision: Float[np.ndarray, "d d"]
    shrinkage: float
    scans: int

    def distance(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Mahalanobis distance over the root of d: about 1 for a scan like the training scans."""
        apart = features - self.mean
        squared = np.einsum("nd,de,ne->n", apart, self.precision, apart)
        return np.sqrt(np.maximum(squared, 0) / len(self.mean))


def fit_density(features: Float[np.ndarray, "n d"]) -> FeatureDensity:
    r"""The Gaussian of the training scans by oracle-approximating shrinkage (Chen et al. 2010).

    $$ \Sigma = (1 - \rho) S + \rho \frac{\mathrm{tr} S}{d} I $$

    with S the sample covariance and rho from n, d, tr S and tr S^2 alone.

    Raises:
        ValueError: fewer than two scans, or all of them equal.

    Example:
        >>> spread = np.random.default_rng(0).normal(size=(200, 3))
        >>> density = fit_density(spread)
        >>> bool(density.distance(np.full((1, 3), 9.0))[0] > 5)
        True
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
    # scikit-learn's form of equation 23: (mean of squares, of the trace) instead of traces
    rho = (squared + level**2) / ((n + 1) * (squared - level**2 / d)) if d > 1 else 1.0
    rho = float(np.clip(rho, 0, 1))
    shrunk = (1 - rho) * covariance + rho * level * np.eye(d)
    return FeatureDensity(mean, np.linalg.inv(shrunk), rho, n)
