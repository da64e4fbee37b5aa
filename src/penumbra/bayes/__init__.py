"""Posteriors over decoder weights, their draws, and what the draws say (proposal 2.2)."""

from penumbra.bayes.bank import Bank, bank, to_probabilities
from penumbra.bayes.gaussian import convert, diagnostics, kl, rho_parameters
from penumbra.bayes.layer import sampling
from penumbra.bayes.uncertainty import Moments, decompose

__all__ = [
    "Bank",
    "Moments",
    "bank",
    "convert",
    "decompose",
    "diagnostics",
    "kl",
    "rho_parameters",
    "sampling",
    "to_probabilities",
]
