"""Probes: by hand, against scikit-learn, and on batches of the loader."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from penumbra.pretrain.probe import (
    knn_predict,
    knn_probe,
    linear_predict,
    linear_probe,
    probe_scores,
    score,
)

Batch = dict[str, torch.Tensor]


def clusters(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.randint(0, 3, (n,), generator=generator)
    centres = torch.tensor([[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    return centres[labels] + torch.randn(n, 4, generator=generator), labels


def test_the_nearest_neighbour_names_the_class() -> None:
    train = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    test = torch.tensor([[5.0, 1], [-0.1, 0.01], [0.1, 3]])
    assert knn_predict(train, torch.tensor([4, 0, 2]), test, neighbours=1).tolist() == [4, 2, 0]


def test_close_neighbours_outvote_a_far_majority() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([1, 0, 0, 0])
    assert knn_predict(train, labels, torch.tensor([[1.0, 0.1]])).tolist() == [1]


def test_the_linear_probe_is_a_logistic_regression(generator: torch.Generator) -> None:
    (train, labels), (test, truth) = clusters(150, generator), clusters(300, generator)
    ours = linear_predict(train, labels, test, l2=1e-2)
    scaler = StandardScaler().fit(train.numpy())
    reference = LogisticRegression(C=1 / (1e-2 * len(train)), tol=1e-8, max_iter=1000)
    reference.fit(scaler.transform(train.numpy()), labels.numpy())
    theirs = reference.predict(scaler.transform(test.numpy()))
    assert (ours.numpy() == theirs).mean() > 0.995
    assert score(ours, truth).accuracy > 0.75


def test_scores_by_hand() -> None:
    result = score(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]))
    assert result.accuracy == 0.75
    assert result.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert result.chance == 0.75
    assert result.n == 4


def test_features_of_noise_know_nothing(generator: torch.Generator) -> None:
    train, test = torch.randn(2, 300, 4, generator=generator)
    labels, truth = torch.randint(0, 3, (2, 300), generator=generator)
    for probe in (knn_probe, linear_probe):
        assert abs(probe(train, labels, test, truth).accuracy - 1 / 3) < 0.1


def test_nothing_to_learn_from_or_to_score_is_refused() -> None:
    empty, none = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="kNN probe needs training features"):
        knn_predict(empty, none, torch.ones(1, 2))
    with pytest.raises(ValueError, match="linear probe needs training features"):
        linear_predict(empty, none, torch.ones(1, 2))
    with pytest.raises(ValueError, match="no test labels"):
        score(none, none)


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


def represent(image: torch.Tensor) -> torch.Tensor:
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
