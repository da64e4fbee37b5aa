"""What the training scans look like to the encoder, so that a strange scan can be told."""

from collections.abc import Sequence

import torch
from torch import Tensor

from penumbra import progress
from penumbra.bayes.mahalanobis import Familiarity, fit_familiarity
from penumbra.data.store import Store
from penumbra.inference.features import scan_features
from penumbra.trained import Trained

LEAST_SCANS = 4
"""Of training and of validation scans each; fewer say nothing about what is usual."""


def familiarize(
    model: Trained, store: Store, train: Sequence[int], val: Sequence[int]
) -> Familiarity | None:
    """Mahalanobis distances in the encoder's features; None where there are too few scans.

    The Gaussian is fitted on training scans (labelled or not); validation scans set what distance
    is usual.
    """
    if min(len(train), len(val)) < LEAST_SCANS:
        return None
    with progress.bar("familiarize", len(train) + len(val)) as advance:

        def features(indices: Sequence[int]) -> Tensor:
            rows = []
            for index in indices:
                rows.append(scan_features(model.network, store[index], model.config))
                advance()
            return torch.stack(rows)

        return fit_familiarity(features(train), features(val))
