"""Judge probabilities that you already have; no network of ours is involved."""

import numpy as np

from penumbra.evaluate import protocol, segmentation

rng = np.random.default_rng(0)
rows, columns = np.mgrid[:32, :32]
cases = []
for patient in range(8):
    reference = (np.hypot(rows - 16, columns - 16) < 8).astype(np.int64)
    blur = 1.0 + patient / 2  # later patients are harder
    logit = (8 - np.hypot(rows - 16 - patient / 4, columns - 16)) / blur
    foreground = 1 / (1 + np.exp(-logit - 0.3 * rng.standard_normal(logit.shape)))
    probability = np.stack([1 - foreground, foreground])
    scores = segmentation.score_segmentation(
        probability,
        reference,
        regions={"lesion": (1,)},
        spacing_mm=(1.0, 1.0),
        uncertainty={"entropy": -(probability * np.log(probability)).sum(0)},
    )
    cases.append(protocol.CaseScores(f"case{patient}", f"patient{patient}", scores))

found = protocol.summarise(cases, part="test") + protocol.summarise_selective(cases, part="test")
for row in found:
    if row.metric in ("dice", "ece", "aurc", "spearman_risk"):
        print(f"{row.metric:14} {row.label:28} {row.value:.3f} ({row.low:.3f} to {row.high:.3f})")
