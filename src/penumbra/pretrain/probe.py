"""How much do frozen features know? k nearest neighbors and a linear probe, beside chance."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from penumbra.pretrain.region import majority_organ


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """Accuracies in 0..1; ``chance`` is what naming the most frequent test class would score."""

    accuracy: float
    balanced_accuracy: float
    chance: float
    n: int


@torch.no_grad()
def probe_scores(
    represent: Callable[[Tensor], Tensor],
    train: Iterable[Mapping[str, Tensor]],
    test: Iterable[Mapping[str, Tensor]],
    *,
    classes: int,
    halves: Callable[[Tensor], Mapping[str, Tensor]] | None = None,
) -> dict[str, float]:
    """Balanced accuracies of kNN and linear probes for everything that the batches are labelled by.

    Keys are ``knn/<what>``, ``linear/<what>`` and ``chance/<what>``, where <what> is ``structure``
    (the largest labelled class of the image, 0 for none), ``finding<j>`` (present or absent) or
    ``protocol``; chance is one over the number of classes in the test batches. ``score`` is the
    mean of the linear probes, protocol left out: a good encoder need not know its scanner. What
    has fewer than two classes on either side is left out; NaN when nothing else is there.

    Args:
        represent: images in display units -> features, e.g. ``SelfSupervised.represent``.
        train: batches of the loader with ``image`` in display units; other patients than ``test``.
        classes: number of segmentation classes with the background, 0 without a segmentation.
        halves: parts of the features by name, e.g. ``ProtocolTask.halves``: ``linear/protocol
            <name>`` says what each knows of the protocol.
    """
    x, known = _read(represent, train, classes)
    y, truth = _read(represent, test, classes)
    scores: dict[str, float] = {}
    for what, labels in known.items():
        a, b = labels >= 0, truth[what] >= 0
        count = int(truth[what][b].unique().numel())
        if count < 2 or labels[a].unique().numel() < 2:
            continue
        sides = (x[a], labels[a], y[b], truth[what][b])
        scores[f"knn/{what}"] = knn_probe(*sides).balanced_accuracy
        scores[f"linear/{what}"] = linear_probe(*sides).balanced_accuracy
        scores[f"chance/{what}"] = 1 / count
        if what == "protocol" and halves is not None:
            for name, part in halves(x[a]).items():
                probe = linear_probe(part, labels[a], halves(y[b])[name], truth[what][b])
                scores[f"linear/protocol {name}"] = probe.balanced_accuracy
    linear = [v for k, v in scores.items() if k.startswith("linear/") and "protocol" not in k]
    return scores | {"score": sum(linear) / len(linear) if linear else float("nan")}


def knn_predict(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> Int[Tensor, " m"]:
    r"""Class with most weight among the nearest by cosine, weights $e^{s/\tau}$ (Wu et al. 2018).

    Raises:
        ValueError: there is no training row.
    """
    if len(train) == 0:
        raise ValueError("a kNN probe needs training features, got none")
    a, b = (functional.normalize(x.float(), dim=1) for x in (test, train))
    similarity, index = (a @ b.T).topk(min(neighbours, len(train)), dim=1)
    votes = torch.zeros(len(test), int(labels.max()) + 1, device=test.device)
    votes.scatter_add_(1, labels[index], (similarity / temperature - 1 / temperature).exp())
    return votes.argmax(1)


def linear_predict(
    train: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    *,
    l2: float = 1e-3,
) -> Int[Tensor, " m"]:
    """Multinomial logistic regression on standardised features, by L-BFGS from zero in float64.

    The objective is convex and the start fixed, so the answer does not depend on a seed.

    Args:
        l2: weight of the squared norm of the weights (not of the bias), halved.

    Raises:
        ValueError: there is no training row.
    """
    if len(train) == 0:
        raise ValueError("a linear probe needs training features, got none")
    mean, std = train.double().mean(0), train.double().std(0, unbiased=False).clamp_min(1e-8)
    x, target = (train.double() - mean) / std, (test.double() - mean) / std
    weight = torch.zeros(int(labels.max()) + 1, x.shape[1] + 1, dtype=x.dtype, device=x.device)
    weight.requires_grad_()
    solver = torch.optim.LBFGS(
        [weight], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        logits = x @ weight[:, 1:].T + weight[:, 0]
        loss = functional.cross_entropy(logits, labels) + l2 / 2 * weight[:, 1:].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return (target @ weight[:, 1:].T + weight[:, 0]).argmax(1).detach()


def score(prediction: Int[Tensor, " m"], labels: Int[Tensor, " m"]) -> ProbeScore:
    """Accuracy of a probe beside its chance level.

    Raises:
        ValueError: there is nothing to score.
    """
    if len(labels) == 0:
        raise ValueError("no test labels to score a probe with")
    right = (prediction == labels).double()
    classes, counts = labels.unique(return_counts=True)
    recalls = [float(right[labels == c].mean()) for c in classes]
    return ProbeScore(
        accuracy=float(right.mean()),
        balanced_accuracy=sum(recalls) / len(recalls),
        chance=float(counts.max() / len(labels)),
        n=len(labels),
    )


def knn_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
) -> ProbeScore:
    """``score`` of ``knn_predict``; labels are 0..classes-1, unknown ones left out beforehand."""
    return score(knn_predict(train, train_labels, test), test_labels)


def linear_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
) -> ProbeScore:
    """``score`` of ``linear_predict``; labels are 0..classes-1, unknown ones left out beforehand.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]])
        >>> linear_probe(x, torch.tensor([0, 0, 1, 1]), x, torch.tensor([0, 0, 1, 1])).accuracy
        1.0
    """
    return score(linear_predict(train, train_labels, test), test_labels)


def _read(
    represent: Callable[[Tensor], Tensor], batches: Iterable[Mapping[str, Tensor]], classes: int
) -> tuple[Float[Tensor, "n d"], dict[str, Int[Tensor, " n"]]]:
    features, labels = [], []
    for batch in batches:
        features.append(represent(batch["image"]).float().cpu())
        labels.append({k: v.cpu() for k, v in _labels(batch, classes).items()})
    return torch.cat(features), {k: torch.cat([row[k] for row in labels]) for k in labels[0]}


def _labels(batch: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
    """One class per image and question; -1 where it is unknown."""
    labels = {"protocol": batch["protocol"]}
    if "segmentation" in batch:
        largest = majority_organ(batch["segmentation"], organs=classes - 1) + 1
        read = (batch["segmentation"] >= 0).flatten(1).any(1)
        labels["structure"] = torch.where(read, largest, -1)
    for j, finding in enumerate(batch["findings"].unbind(1) if "findings" in batch else ()):
        stated = (finding == 0) | (finding == 1)
        labels[f"finding{j}"] = torch.where(stated, finding.nan_to_num().long(), -1)
    return labels
