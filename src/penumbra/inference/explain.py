"""One question to every explainer: where in this image is the evidence for this structure?

Attention is the mean composite map of the posterior's draws; post-hoc methods explain the network
with its mean weights; priors look at no network at all. All maps are on the grid of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from penumbra.attend import explain as post_hoc
from penumbra.attend.composite import composite
from penumbra.attend.modulate import modulate
from penumbra.attend.reliability import Edges, calibrated
from penumbra.bayes.bank import Bank
from penumbra.bayes.uncertainty import Moments
from penumbra.data.preprocess import Prepared
from penumbra.errors import ConfigError
from penumbra.inference.levels import cam_level, levels_of
from penumbra.inference.windows import windows
from penumbra.model import Network
from penumbra.trained import Trained
from penumbra.types import Task

Explainer = Literal[
    "attention",
    "modulated",
    "grad_cam",
    "grad_cam_pp",
    "integrated_gradients",
    "smooth_grad",
    "occlusion",
    "centre_prior",
    "organ_prior",
]
EXPLAINERS: tuple[Explainer, ...] = get_args(Explainer)
POST_HOC: tuple[post_hoc.Method, ...] = get_args(post_hoc.Method)
CAMS: tuple[Explainer, ...] = ("grad_cam", "grad_cam_pp")
"""The methods that read the features of one level."""
PRIORS: tuple[Explainer, ...] = ("centre_prior", "organ_prior")
"""The methods that look at no network."""


@dataclass(frozen=True)
class Attended:
    """Attention and its doubt, map by map, over the posterior's draws.

    Attributes:
        attention: mean composite map, in [0, 1].
        uncertainty: map 0 of a segmentation: epistemic variance of the voxel's class; else the
            variance of the map itself between draws.
        findings: mean probability of each finding.
    """

    attention: Float[Tensor, "b m *space"]
    uncertainty: Float[Tensor, "b m *space"]
    findings: Float[Tensor, "b f"]


@dataclass(frozen=True)
class Explanation:
    """What every method shows of one case, in the grid of the prepared image.

    Attributes:
        names: of the maps: the segmentation's foreground, then findings.
        rows: index of each of them among the network's maps.
        maps: method -> one map per name, in [0, 1].
        uncertainty: of the attention, one map per name.
        u_ref: reference uncertainty per name; from the model, so that scans compare.
        findings: probability of each finding, where in the case it is most probable.
        level: whose features the CAMs read (``levels.levels_of``).
        relevance: how much of the regions shown like this voxel's experts marked, on validation
            patients; none for a model that has seen no expert masks.
    """

    names: tuple[str, ...]
    rows: tuple[int, ...]
    maps: dict[Explainer, Float[Tensor, "m *space"]]
    uncertainty: Float[Tensor, "m *space"]
    u_ref: tuple[float, ...]
    findings: tuple[float, ...]
    level: int
    relevance: Float[Tensor, "m *space"] | None = None


def methods_of(text: str) -> tuple[Explainer, ...]:
    """The methods that a comma-separated list names; ``all`` names every one.

    Raises:
        ConfigError: a name is unknown.

    Example:
        >>> methods_of("attention,grad_cam")
        ('attention', 'grad_cam')
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["all"]:
        return EXPLAINERS
    unknown = [name for name in names if name not in EXPLAINERS]
    if unknown or not names:
        raise ConfigError(
            f"--methods {text}: {', '.join(unknown) or 'nothing'} is no explainer; choose from "
            f"{', '.join(EXPLAINERS)}, or all"
        )
    return tuple(cast(Explainer, name) for name in dict.fromkeys(names))


def map_names(task: Task) -> dict[int, str]:
    """Map index -> what it answers for: 0 the foreground of a segmentation, 1 + j finding j."""
    names = {0: "foreground"} if task.classes else {}
    return names | {1 + j: finding for j, finding in enumerate(task.findings)}


def reference(model: Trained, row: int) -> float:
    """u_ref of one map, from validation: of the voxels' epistemic variance, or of the maps' own."""
    voxels = row == 0 and model.task.classes
    return model.calibration.u_ref if voxels else model.calibration.attention_u_ref


@torch.inference_mode()
def attend(network: Network, posterior: Bank, image: Float[Tensor, "b c *space"]) -> Attended:
    """Mean and doubt of the composite maps over the posterior's draws.

    Raises:
        ConfigError: the network has no gates.
    """
    if not network.gated:
        raise ConfigError("this model has no attention gates (attention.gates was false)")
    voxels, size = Moments("categorical"), (len(image), 1 + network.findings, *image.shape[2:])
    findings = image.new_zeros(len(image), network.findings)
    mean, spread = image.new_zeros(size), image.new_zeros(size)
    features = posterior.encode(image)
    for t in range(len(posterior)):
        output = posterior.decode(features, t)
        maps = composite(output.attention, network.beta, image.shape[2:]).float()
        delta = maps - mean  # Welford
        mean = mean + delta / (t + 1)
        spread = spread + delta * (maps - mean)
        if output.segmentation is not None:
            voxels.update(output.segmentation.float().softmax(1))
        if output.findings is not None:
            findings += output.findings.float().sigmoid() / len(posterior)
    uncertainty = spread / len(posterior)
    if network.classes:
        uncertainty[:, 0] = voxels.uncertainty().epistemic
    return Attended(mean, uncertainty, findings)


def explain_images(
    model: Trained,
    posterior: Bank,
    image: Float[Tensor, "b c *space"],
    body: Bool[Tensor, "b *space"],
    *,
    row: int,
    method: Explainer,
    level: int | None = None,
) -> Float[Tensor, "b *space"]:
    """One method's maps for map ``row``, of images in display units; in [0, 1].

    For the foreground of a segmentation, classes above 0 are one class with the log-sum-exp of
    their logits. The noise of SmoothGrad follows from the model's seed.

    Args:
        level: whose features CAMs read (``levels.levels_of``).
    """
    match method:
        case "attention":
            return attend(model.network, posterior, image).attention[:, row]
        case "modulated":
            seen = attend(model.network, posterior, image)
            doubt = seen.uncertainty[:, row]
            return modulate(
                seen.attention[:, row],
                doubt,
                kappa=model.config.attention.kappa,
                u_ref=reference(model, row),
            )
        case "centre_prior":
            return post_hoc.centre_prior(image)
        case "organ_prior":
            return post_hoc.organ_prior(body)
    network, layer = model.network, None
    if method in CAMS:
        layer = levels_of(network)[cam_level(network, level)]
    return post_hoc.explain(
        logits_of(network, row),
        image,
        target=1 if row == 0 else row - 1,
        method=method,
        generator=torch.Generator().manual_seed(model.config.seed),
        layer=layer,
    )


def logits_of(network: Network, row: int) -> post_hoc.Logits:
    """Images -> [background, foreground] voxel logits for map 0, else the findings' logits."""

    def foreground(image: Tensor) -> Tensor:
        logits = network(image).segmentation
        assert logits is not None
        return torch.stack([logits[:, 0], logits[:, 1:].logsumexp(1)], 1)

    def findings(image: Tensor) -> Tensor:
        logits = network(image).findings
        assert logits is not None
        return logits

    return foreground if row == 0 else findings


def explain_case(
    model: Trained,
    posterior: Bank,
    prepared: Prepared,
    *,
    methods: Sequence[Explainer],
    level: int | None = None,
) -> Explanation:
    """Every method's maps of a whole case; windows are blended as in prediction.

    Priors are of what a slice-wise network sees at once, a slice, and else of the whole case.
    """
    named, level = map_names(model.task), cam_level(model.network, level)
    shape, rows = prepared.image.shape[1:], tuple(named)
    maps = {method: torch.zeros(len(rows), *shape) for method in methods}
    attention, doubt = torch.zeros(len(rows), *shape), torch.zeros(len(rows), *shape)
    total, stated = torch.zeros(shape), torch.zeros(len(model.task.findings))
    device = next(model.network.parameters()).device
    whole_body = torch.from_numpy(np.array(prepared.body))
    sliced = len(shape) > model.config.data.dim
    for window in windows(prepared, model.config):
        image = window.image.to(device)
        place: tuple[Any, ...] = (..., *window.place)
        body = whole_body[window.place]
        body = (body.movedim(-1, 0) if window.stacked else body[None]).to(device)
        seen = attend(model.network, posterior, image)
        total[window.place] += window.weight
        stated = torch.maximum(stated, seen.findings.amax(0).cpu())
        for k, row in enumerate(rows):
            attention[k][place] += window.laid(seen.attention[:, row]) * window.weight
            doubt[k][place] += window.laid(seen.uncertainty[:, row]) * window.weight
            for method in methods:
                if method not in ("attention", "modulated") and (sliced or method not in PRIORS):
                    shown = explain_images(
                        model, posterior, image, body, row=row, method=method, level=level
                    )
                    maps[method][k][place] += window.laid(shown) * window.weight
    for each in (attention, doubt, *maps.values()):
        each /= total
    if not sliced:
        whole, bodies = torch.zeros(1, 1, *shape), whole_body[None]
        for method in maps.keys() & set(PRIORS):
            maps[method][:] = explain_images(
                model, posterior, whole, bodies, row=rows[0], method=method
            )
    u_ref = tuple(reference(model, row) for row in rows)
    over = doubt / torch.tensor(u_ref).reshape(-1, *[1] * len(shape))
    if "attention" in maps:
        maps["attention"] = attention
    if "modulated" in maps:
        kappa = model.config.attention.kappa
        maps["modulated"] = modulate(attention, over, kappa=kappa, u_ref=1.0)
    table = model.calibration.relevance
    relevance = (
        None if table is None else calibrated(attention, over, torch.tensor(table), edges=Edges())
    )
    names, found = tuple(named.values()), tuple(stated.tolist())
    return Explanation(names, rows, maps, doubt, u_ref, found, level, relevance)
