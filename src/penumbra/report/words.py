"""Metric and loss names as a reader sees them."""

from typing import Literal

Family = Literal["task", "calibration", "uncertainty", "localization", "robustness"]

_WORDS = {
    "dice": "Dice",
    "hd95": "HD95",
    "hd95_mm": "HD95 (mm)",
    "assd_mm": "ASSD (mm)",
    "surface_dice": "surface Dice",
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
    "fgsm": "FGSM",
    "pgd": "PGD",
    "mri": "MRI",
    "ct": "CT",
    "xray": "X-ray",
    "mm": "(mm)",
    "l2": "L2",
    "pretrain": "Pre-training",
    "train": "Training",
}
_FAMILIES: dict[Family, tuple[str, ...]] = {
    "robustness": ("attack", "shift", "fgsm", "pgd", "robust", "degradation", "severity", "noise"),
    "calibration": ("ece", "brier", "nll", "calibration", "temperature", "conformal", "mce"),
    "uncertainty": ("aurc", "risk", "error_auroc", "spearman", "ood", "audit", "review", "epi"),
    "localization": ("pointing", "hit", "localiz", "centroid", "insertion", "deletion", "faithful"),
}
_LOWER = ("ece", "brier", "nll", "aurc", "risk", "hd95", "assd", "centroid", "degradation", "mce")


def spell(name: str) -> str:
    """A name for readers.

    Example:
        >>> spell("surface_dice"), spell("ece_raw"), spell("dice_WT")
        ('surface Dice', 'ECE raw', 'Dice WT')
    """
    if name in _WORDS:
        return _WORDS[name]
    return " ".join(_WORDS.get(word, word) for word in name.replace("/", "_").split("_"))


def family(metric: str) -> Family:
    """The section of the report that a metric belongs to; ``task`` unless its name says else."""
    for name, parts in _FAMILIES.items():
        if any(part in metric.lower() for part in parts):
            return name
    return "task"


def lower_is_better(metric: str) -> bool:
    """Whether small values of a metric are good."""
    return any(part in metric.lower() for part in _LOWER)
