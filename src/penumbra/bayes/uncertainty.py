"""What draws of probabilities say: the law of total variance and the entropy family."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from penumbra.types import Uncertainty

Kind = Literal["categorical", "bernoulli"]
SUM_TOLERANCE = 1e-3
TINY = 1e-38


def surprise(p: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``-p log p``, 0 at 0: as ``torch.special.entr``, whose CPU loop takes seven times as long."""
    return torch.clamp_min(p, TINY, out=out).log_().mul_(p).neg_()


def entropy_of(
    p: Float[Tensor, "b c *space"], kind: Kind, *, spare: Tensor | None = None
) -> Tensor:
    """Entropy in nats: over axis 1, or of every element's coin; ``spare`` is overwritten."""
    if kind == "categorical":
        return surprise(p, out=spare).sum(1)
    return surprise(p, out=spare) + surprise(1 - p)


class Moments:
    """Running moments of probability draws; memory does not grow with their number.

    Float32, Welford's update. ``categorical`` draws sum to one over axis 1, which the maps lose;
    ``bernoulli`` draws are one probability per finding, and the maps keep the axis.

    Example:
        >>> moments = Moments("categorical")
        >>> for p in ([[1.0, 0.0]], [[0.0, 1.0]]):  # two draws, sure of different classes
        ...     moments.update(torch.tensor(p))
        >>> float(moments.uncertainty().epistemic), float(moments.uncertainty().aleatoric)
        (0.5, 0.0)
    """

    def __init__(self, kind: Kind = "categorical") -> None:
        self.kind = kind
        self.draws = 0
        self._mean: Tensor | None = None
        self._scatter: Tensor | None = None
        self._expected_entropy: Tensor | None = None
        self._expected_aleatoric: Tensor | None = None
        # One array for all that is thrown away: new ones cost more to map than to compute.
        self._spare: Tensor | None = None

    def update(self, probabilities: Float[Tensor, "b c *space"]) -> None:
        """Add one draw.

        Raises:
            ValueError: the draw's shape differs from the first one's, or a categorical draw does
                not sum to one over axis 1, or a value is outside [0, 1].
        """
        p = probabilities.detach().float()
        self._check(p)
        self._spare = torch.empty_like(p) if self._spare is None else self._spare
        entropy = entropy_of(p, self.kind, spare=self._spare)
        aleatoric = self._gini(p, spare=self._spare)
        self.draws += 1
        if self._mean is None:
            self._mean = p.clone()
            self._scatter = torch.zeros_like(aleatoric)
            self._expected_entropy = entropy
            self._expected_aleatoric = aleatoric
            return
        assert self._scatter is not None
        assert self._expected_entropy is not None
        assert self._expected_aleatoric is not None
        before = torch.sub(p, self._mean, out=self._spare)
        self._mean.add_(before, alpha=1 / self.draws)
        square = before.square_()
        square = square.sum(1) if self.kind == "categorical" else square
        self._scatter.add_(square, alpha=1 - 1 / self.draws)
        self._expected_entropy += (entropy - self._expected_entropy) / self.draws
        self._expected_aleatoric += (aleatoric - self._expected_aleatoric) / self.draws

    def uncertainty(self) -> Uncertainty:
        """The maps of all draws so far.

        Raises:
            ValueError: there was no draw.
        """
        if self._mean is None or self._scatter is None:
            raise ValueError("no draw was given yet; call update first")
        assert self._expected_entropy is not None
        assert self._expected_aleatoric is not None
        entropy = entropy_of(self._mean, self.kind, spare=self._spare)
        return Uncertainty(
            probability=self._mean.clone(),
            epistemic=self._scatter / self.draws,
            aleatoric=self._expected_aleatoric.clone(),
            total=self._gini(self._mean, spare=self._spare),
            entropy_nats=entropy,
            expected_entropy_nats=self._expected_entropy.clone(),
            mutual_information_nats=(entropy - self._expected_entropy).clamp_min_(0),
        )

    def _check(self, p: Tensor) -> None:
        if self._mean is not None and p.shape != self._mean.shape:
            raise ValueError(f"draw of shape {tuple(p.shape)}, expected {tuple(self._mean.shape)}")
        low, high = torch.aminmax(p)
        if not bool((low >= 0) & (high <= 1 + SUM_TOLERANCE)):  # nor is NaN
            raise ValueError(
                f"values in [{low:.3g}, {high:.3g}]: probabilities, not logits, are averaged"
            )
        if self.kind == "categorical":
            worst = float((p.sum(1) - 1).abs().max())
            if worst > SUM_TOLERANCE:
                raise ValueError(f"a draw's classes sum to 1 within {worst:.3g} only")

    def _gini(self, p: Tensor, *, spare: Tensor | None = None) -> Tensor:
        if self.kind == "categorical":
            return 1 - torch.square(p, out=spare).sum(1)
        return p * (1 - p)


def decompose(
    probabilities: Float[Tensor, "t b c *space"], kind: Kind = "categorical"
) -> Uncertainty:
    r"""Split the predictive covariance of draws by the law of total variance.

    $$ \underbrace{\mathrm{diag}(\bar p) - \bar p \bar p^\top}_{\text{total}}
       = \underbrace{\tfrac1T\sum_t \mathrm{diag}(p_t) - p_t p_t^\top}_{\text{aleatoric}}
       + \underbrace{\tfrac1T\sum_t p_t p_t^\top - \bar p \bar p^\top}_{\text{epistemic}} $$

    Proposal 2.2.2; Kwon et al. 2020. Only the diagonals are kept, summed over classes:
    ``U_epi = sum_c Var_t(p_tc)``, ``U_ale = 1 - mean_t |p_t|^2``, ``U_tot = 1 - |pbar|^2``.

    Raises:
        ValueError: a draw does not sum to one over classes.

    Example:
        >>> agree = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])  # two draws, sure of the same class
        >>> float(decompose(agree).epistemic.sum())
        0.0
    """
    moments = Moments(kind)
    for draw in probabilities:
        moments.update(draw)
    return moments.uncertainty()
