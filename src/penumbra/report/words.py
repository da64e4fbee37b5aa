"""Metric and loss names as a reader sees them."""

import re
from typing import Literal

Family = Literal["task", "calibration", "uncertainty", "amount", "localization", "robustness"]

_WORDS = {
    "dice": "Dice",
    "hd95": "HD95",
    "iou": "IoU",
    "auroc": "AUC",
    "auc": "AUC",
    "auprc": "AUPRC",
    "f1": "F1",
    "ece": "ECE",
    "brier": "Brier",
    "nll": "NLL",
    "aurc": "AURC",
    "eaurc": "excess AURC",
    "e_aurc": "excess AURC",
    "ood": "OOD",
    "spearman": "Spearman",
    "kl": "KL",
    "apgd": "APGD",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "mri": "MRI",
    "ct": "CT",
    "xray": "X-ray",
    "mm": "(mm)",
    "l2": "L2",
    "uncertainty": "",
    "attention": "",
    "hit": "pointing hit",
    "otsu": "(Otsu)",
    "tuned": "(tuned)",
    "gibbs": "Gibbs",
    "rician": "Rician",
    "probe": "one-image",
    "pretrain": "Pre-training",
    "train": "Training",
}
_FAMILIES: dict[Family, tuple[str, ...]] = {
    "amount": ("uncertainty/",),
    "localization": ("attention/", "pointing", "localiz", "centroid", "insertion", "deletion"),
    "robustness": ("probe_", "attack", "shift", "fgsm", "pgd", "robust", "degradation"),
    "calibration": (
        "ece",
        "brier",
        "nll",
        "calibration",
        "temperature",
        "coverage/",
        "_set",
        "width_ml/",
    ),
    "uncertainty": ("aurc", "risk", "error_auroc", "spearman", "ood", "audit", "review"),
}
_LOWER = ("ece", "brier", "nll", "aurc", "risk", "hd95", "assd", "centroid", "degradation")
_LOWER_COUNTS = ("missed", "false_alarm", "review", "uncertainty")


def spell(name: str) -> str:
    """A name for readers.

    Example:
        >>> spell("surface_dice"), spell("hd95_mm"), spell("uncertainty/epistemic"), spell("pgd-10")
        ('surface Dice', 'HD95 (mm)', 'epistemic', 'PGD-10')
    """
    words = (_word(word) for word in re.split(r"[_/\s]+", name))
    return " ".join(filter(None, words)) or name


def _word(word: str) -> str:
    stem, dash, rest = word.partition("-")  # pgd-10
    return _WORDS.get(stem, stem) + dash + rest


def family(metric: str) -> Family:
    """The section of the report that a metric belongs to; ``task`` unless its name says else."""
    for name, parts in _FAMILIES.items():
        if any(part in metric.lower() for part in parts):
            return name
    return "task"


def lower_is_better(metric: str) -> bool:
    """Whether small values of a metric are good."""
    return any(part in metric.lower() for part in _LOWER + _LOWER_COUNTS)
