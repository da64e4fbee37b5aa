"""Probes on batches of the loader."""

import math

import torch
from torch import Tensor

from penumbra.pretrain.monitor import probe_scores

Batch = dict[str, Tensor]


def batches(seed: int) -> list[Batch]:
    """The mean grey value tells the structure, and nothing tells the finding."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for _ in range(4):
        structure = torch.randint(0, 3, (16,), generator=generator)
        maps = structure[:, None, None].repeat(1, 6, 6)
        maps[:, 0] = -1
        finding = torch.randint(-1, 2, (16, 1), generator=generator).float()
        finding[0] = torch.nan
        noise = 0.1 * torch.randn(16, 1, 6, 6, generator=generator)
        image = structure[:, None, None, None] + noise
        result.append(
            {
                "image": image,
                "segmentation": maps,
                "findings": finding,
                "protocol": torch.full((16,), -1),
            }
        )
    return result


def represent(image: Tensor) -> Tensor:
    grey = image.flatten(1).mean(1)
    return torch.stack([grey, grey.square(), torch.ones_like(grey)], 1)


def test_probes_find_what_the_features_tell_and_nothing_else() -> None:
    scores = probe_scores(represent, batches(0), batches(1), classes=3)
    assert scores["linear/structure"] > 0.95
    assert scores["knn/structure"] > 0.8
    assert math.isclose(scores["chance/structure"], 1 / 3)
    assert abs(scores["linear/finding0"] - 0.5) < 0.25
    assert math.isclose(
        scores["score"], (scores["linear/structure"] + scores["linear/finding0"]) / 2
    )
    assert "linear/protocol" not in scores  # unknown everywhere


def test_without_labels_the_score_is_not_a_number() -> None:
    bare = [{"image": torch.rand(4, 1, 6, 6), "protocol": torch.tensor([0, 1, 0, 1])}]
    scores = probe_scores(represent, bare, bare, classes=0)
    assert math.isnan(scores["score"])
    assert "linear/protocol" in scores
