"""Self-supervised objectives: contrast, region and protocol (proposal 2.1)."""

from penumbra.pretrain.monitor import probe_scores
from penumbra.pretrain.objective import SelfSupervised
from penumbra.pretrain.probe import ProbeScore, knn_probe, linear_probe
from penumbra.pretrain.transfer import LoadReport, adapt

__all__ = [
    "LoadReport",
    "ProbeScore",
    "SelfSupervised",
    "adapt",
    "knn_probe",
    "linear_probe",
    "probe_scores",
]
