"""Probes while pre-training: what can be read from the frozen encoder, beside chance."""

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from penumbra.pretrain.probe import knn_probe, linear_probe
from penumbra.pretrain.region import majority_organ


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
