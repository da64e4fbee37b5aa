"""Self-supervised objectives: contrast, region and protocol (proposal 2.1)."""

from penumbra.pretrain.objective import SelfSupervised
from penumbra.pretrain.probe import ProbeScore, knn_probe, linear_probe

__all__ = ["ProbeScore", "SelfSupervised", "knn_probe", "linear_probe"]
