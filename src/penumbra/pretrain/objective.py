"""L_self = L_con + lambda1 L_region + lambda2 L_protocol (proposal 2.1, METHOD 1.3)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from penumbra.config import Pretrain
from penumbra.pretrain.collapse import (
    CollapseWatch,
    alignment,
    monitors,
    uniformity,
    variance_guard,
)
from penumbra.pretrain.contrastive import contrast, image_ids, nt_xent
from penumbra.pretrain.dense import DenseTask, Places
from penumbra.pretrain.gather import gather_rows, world
from penumbra.pretrain.heads import accuracy, masked_cross_entropy, seeded_mlp
from penumbra.pretrain.protocol import LEAK_WEIGHT, ProtocolTask, reversal_ramp
from penumbra.pretrain.queue import KeyQueue, follow, frozen_copy
from penumbra.pretrain.region import balanced_edges, bin_labels, overlap_targets, uniform_edges

EMBEDDING = 128
"""Width of the contrasted embeddings."""


class SelfSupervised(nn.Module):
    """The encoder under pre-training with its projector and heads.

    Call, step the optimizer over ``parameters()``, then call ``after_step()``. All that training
    changes (encoder, heads, momentum copy, queue, step, class counts) is in the state dict, so a
    resumed run continues bit for bit.

    Args:
        encoder: returns a tuple of features, the coarsest last; it normalises its own input.
        features: channels of the coarsest features.
        protocols: number of known acquisition classes; below 2 the protocol task is off.
        dim: axes of a position; three for slices of a volume too.
        seed: of the first weights of all heads.
        regions: number of region classes when ``forward`` receives its own region targets (organs,
            lung zones); none: ``region_bins ** dim`` position bins.

    Set ``dense`` to a ``DenseTask`` before the first step to have its two extensions as well.
    """

    step: Tensor
    region_edges: Tensor
    region_counts: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int,
        settings: Pretrain,
        protocols: int,
        dim: int,
        seed: int,
        regions: int | None = None,  # a seventh: only data with atlases or labels need it
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.settings = settings
        self.encoder = encoder
        self.protocol = ProtocolTask(
            features, protocols, mode=settings.protocol_mode, generator=generator
        )
        width = self.protocol.anatomy_features
        hidden = max(width, EMBEDDING)
        self.projector = seeded_mlp(width, hidden, EMBEDDING, generator=generator)
        classes = regions or settings.region_bins**dim
        self.region_head = seeded_mlp(width, width, classes, generator=generator)
        self.register_buffer("region_edges", uniform_edges(settings.region_bins, dim))
        self.register_buffer("region_counts", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.watch = CollapseWatch()
        self.queue: KeyQueue | None = None
        if settings.queue:
            self.queue = KeyQueue(settings.queue, EMBEDDING)
            self.key_encoder = frozen_copy(encoder)
            self.key_projector = frozen_copy(self.projector)
        self.dense: DenseTask | None = None
        self._new_keys: tuple[Tensor, Tensor] | None = None
        self._alive: tuple[dict[str, Tensor], int] | None = None

    def represent(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b features"]:
        """Coarsest features averaged over space: what probes read and all heads start from."""
        return _pool(self.encoder(image)[-1])

    def balance_regions(self, position: Float[Tensor, "n dim"]) -> None:
        """Move the bin edges so that these (training) positions fill all bins of an axis equally.

        Call before the first step.
        """
        bins = self.region_edges.shape[1] + 1
        self.region_edges.copy_(balanced_edges(position, bins=bins))

    def forward(
        self,
        view_a: Float[Tensor, "b c *space"],
        view_b: Float[Tensor, "b c *space"],
        *,
        position: Float[Tensor, "b *views dim"],
        protocol: Int[Tensor, "b *view"],
        patient: Int[Tensor, " b"],
        region: Tensor | None = None,
        extent: Float[Tensor, "b 2 dim"] | None = None,
        places: Places | None = None,  # beyond six, for the extensions
    ) -> dict[str, Tensor]:
        """Loss parts, their weighted sum ``total``, and monitors (detached); all scalars.

        Args:
            position: centre of the crop, body-normalised; NaN: unknown. With an axis of two views:
                one centre per view.
            protocol: acquisition class, -1 unknown. With an axis of two views, give -1 to a view
                whose augmentation has changed the protocol.
            patient: -1 unknown.
            region: targets that replace position bins: classes [b] or [b, view] (-1 unknown), or
                shares [b, regions] (NaN unknown).
            extent: sides of both crops, body-normalised; then the targets are their shares of the
                position bins.
            places: which place of the views is which, for ``dense``.

        Raises:
            ValueError: positions have another number of axes than the region bins.
        """
        batch = len(view_a)
        if position.shape[-1] != len(self.region_edges):
            raise ValueError(
                f"positions have {position.shape[-1]} axes, but the objective was built for "
                f"dim={len(self.region_edges)}; slices of a volume have a position of three axes"
            )
        features = self.encoder(torch.cat([view_a, view_b]))
        pooled = _pool(features[-1])
        anatomy = self.protocol.anatomy(pooled)
        z = self.projector(anatomy)
        centres = _per_view(position, batch, 1)
        bins = bin_labels(centres, self.region_edges)
        if region is not None:
            target = _per_view(region, batch, int(region.is_floating_point()))
        elif extent is not None:
            target = overlap_targets(centres, _per_view(extent, batch, 1), self.region_edges)
        else:
            target = bins
        groups = self._groups(bins, patient)
        parts = {
            "contrast": self._contrast(z, (view_a, view_b), groups),
            "guard": variance_guard(z),
            **self._region(anatomy, target),
            **self.protocol(
                pooled,
                _per_view(protocol, batch, 0),
                reversal=reversal_ramp(int(self.step) / max(1, self.settings.steps)),
            ),
        }
        if self.dense is not None and places is not None:
            generator = torch.Generator().manual_seed(int(self.step))
            parts |= self.dense(features, places, generator=generator)
        alive = monitors(z)
        # What need not differ (slices of one patient at one height) may well lie together.
        apart = batch if groups is None else len(groups[groups >= 0].unique()) + (groups < 0).sum()
        self._alive = (alive, min(len(z) - 1, EMBEDDING, max(1, int(apart) - 1)))
        return {
            "total": self._total(parts),
            **parts,
            "alignment": alignment(z[:batch], z[batch:]),
            "uniformity": uniformity(z),
            **alive,
        }

    def after_step(self) -> None:
        """Count the step, move the momentum copy and fill the queue; refuse a dead representation.

        Raises:
            TrainingError: the embeddings have collapsed or are not finite.
        """
        self.step += 1
        if self.queue is not None and self._new_keys is not None:
            follow(self.key_encoder, self.encoder, momentum=self.settings.momentum)
            follow(self.key_projector, self.projector, momentum=self.settings.momentum)
            self.queue.push(*self._new_keys)
            self._new_keys = None
        if self._alive is not None:
            seen, ceiling = self._alive
            self.watch.update(seen, ceiling=ceiling)
            self._alive = None

    def _total(self, parts: dict[str, Tensor]) -> Tensor:
        total = parts["contrast"] + self.settings.variance_guard * parts["guard"]
        total = total + self.settings.region * parts["region"]
        weights = {
            "protocol": self.settings.protocol,
            "protocol_adversary": self.settings.unlearn,
            "protocol_leak": self.settings.unlearn * LEAK_WEIGHT,
            "dense": self.settings.dense,
            "restoration": self.settings.restoration,
        }
        for name, weight in weights.items():
            if name in parts:
                total = total + weight * parts[name]
        return total

    def _groups(self, bins: Tensor, patient: Tensor) -> Tensor | None:
        """One id per image for false negatives: same patient *and* same region of view a."""
        if self.settings.negatives == "all":
            return None
        regions = self.region_edges.shape[1] + 1
        regions = regions ** len(self.region_edges) + 1  # one more for unknown positions
        group = patient * regions + bins[: len(patient)] + 1
        return torch.where(patient >= 0, group, -1)

    def _contrast(self, z: Tensor, views: tuple[Tensor, Tensor], groups: Tensor | None) -> Tensor:
        half, tau = len(z) // 2, self.settings.temperature
        rank, ranks = world()
        if ranks == 1 and self.queue is None:
            return nt_xent(z[:half], z[half:], temperature=tau, patient=groups)
        ids = image_ids(half, groups, device=z.device, start=rank * half).repeat(2)
        everyone = gather_rows(ids)
        if self.queue is None:
            positives, candidates, others = z.roll(half, 0), gather_rows(z), everyone
        else:
            with torch.no_grad():
                features = self.key_encoder(torch.cat(views))[-1]
                keys = self.key_projector(self.protocol.anatomy(_pool(features)))
                positives, candidates = keys.roll(half, 0), gather_rows(keys)
            self._new_keys = (candidates, everyone)
            past, past_ids = self.queue.contents()
            candidates = torch.cat([candidates, past.to(candidates.dtype)])
            others = torch.cat([everyone, past_ids])
        return contrast(
            z, positives, candidates, anchor_ids=ids, candidate_ids=others, temperature=tau
        ).mean()

    def _region(self, anatomy: Tensor, target: Tensor) -> dict[str, Tensor]:
        logits = self.region_head(anatomy)
        hard = target
        if target.is_floating_point():
            hard = torch.where(target.isnan().any(1), -1, target.argmax(1))
        if self.training:
            self.region_counts += torch.bincount(hard[hard >= 0], minlength=logits.shape[1])
        return {
            "region": masked_cross_entropy(logits, target),
            "region_accuracy": accuracy(logits.detach(), hard),
            # What naming the most frequent region of the run so far would score.
            "region_prior": self.region_counts.max() / self.region_counts.sum(),
        }


def _pool(features: Tensor) -> Tensor:
    return features.flatten(2).mean(-1)


def _per_view(values: Tensor, batch: int, inner: int) -> Tensor:
    """[b, *inner] for both views, or [b, view, *inner], as rows in the order of the views."""
    if values.ndim == 1 + inner:
        return torch.cat([values, values])
    return values.transpose(0, 1).reshape(2 * batch, *values.shape[2:])
