"""Stage 2 (proposal 2.4): the total loss of the Bayesian encoder-decoder, term by term.

    L_total = L_task + lambda_KL KL / (N V) + lambda_adv L_adv + L_att + L_clinical + L_anatomy

Ramp: task and KL, then the adversarial term, then attention. Every term and, now and then, its
share of the gradient is logged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penumbra import bayes
from penumbra.attend import alignment
from penumbra.augment import augment, to_display
from penumbra.augment.masking import withhold
from penumbra.config import Config
from penumbra.model import Network
from penumbra.robust import adversarial
from penumbra.trained import convert
from penumbra.training import doubt, ranks
from penumbra.training.loader import Batch
from penumbra.training.losses import deeply_supervised, findings_loss
from penumbra.training.rates import parameter_groups
from penumbra.training.schedule import Ramp
from penumbra.types import Output

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Population:
    """What the KL term must know of the labelled training set.

    ``images`` is N (slices, in slice-wise training), ``voxels`` V of one patch, ``spacing_mm`` a
    typical voxel spacing for the elastic views.
    """

    images: int
    voxels: int
    spacing_mm: tuple[float, ...]


class Supervised:
    """The supervised stage as the loop sees it."""

    name = "train"

    def __init__(self, network: Network, config: Config, population: Population) -> None:
        self.module = network
        self.config = config
        self.population = population
        self.converted = False
        self.quantiles: list[Tensor] = []
        self.adversarial_ramp = Ramp(config.adversarial.start)
        self.attention_ramp = Ramp(config.attention.start)

    @property
    def _doubts(self) -> bool:
        """Whether draws differ: of a posterior, or of several decoders."""
        return self.converted or len(self.module.branches) > 1

    def parameter_groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self.module, self.config)

    def prepare(self, step: int) -> bool:
        """Convert the decoder and heads once the deterministic warm start is over.

        A Laplace posterior is fitted around the trained weights: its warm start is all there is.
        """
        settings = self.config.bayes
        share = 1.0 if settings.posterior == "laplace" else settings.warm_start
        warm = step < share * self.config.train.steps
        if self.converted or warm or settings.posterior == "none":
            return False
        convert(self.module, self.config)
        self.converted = True
        return True

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """u_ref while training: a running mean of the parts' 95th percentiles."""
        if not self.quantiles:
            return
        quantile = ranks.mean(torch.stack(self.quantiles).mean())
        self.quantiles.clear()
        reference = self.module.u_ref
        reference.copy_(torch.where(reference == 0, quantile, 0.99 * reference + 0.01 * quantile))

    def loss(self, batch: Batch, step: int, generator: torch.Generator) -> Parts:
        progress = step / self.config.train.steps
        with torch.no_grad():
            batch = self._augmented(batch, generator)
        network, image = self.module, batch["image"]
        estimator = self.config.bayes.estimator
        bfloat16 = self.config.train.precision == "bfloat16"
        with (
            torch.autocast(image.device.type, torch.bfloat16, enabled=bfloat16),
            bayes.sampling(network, generator=generator, estimator=estimator),
        ):
            features = network.encode(image)
            outputs = self._decode(features)
            clean = self._task(outputs, batch, generator)
            terms: Parts = {"task": clean.mean()}
            counts: Parts = {}
            if self.converted and self.config.bayes.posterior == "variational":
                terms["kl"] = self._kl(progress)
            if self._attacks(step, progress):
                weight = self.config.adversarial.weight * self.adversarial_ramp.at(progress)
                terms["adversarial"] = weight * self._adversarial(clean, batch, generator)
                counts = self._counts(weight)
            if self.config.attention.gates:
                terms |= self._attention(outputs, features, batch, progress)
        return self._report(terms, step) | {k: v.to(image.device) for k, v in counts.items()}

    def _augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Augmented images in display units; every mask moves with its image."""
        config = self.config
        regions = torch.cat(
            [batch["masks"], batch["body"][:, None].float(), batch["valid"][:, None].float()], 1
        )
        image, segmentation, masks = augment(
            batch["image"],
            batch.get("segmentation"),
            regions,
            modality=config.modality,
            generator=generator,
            probability=config.train.augment,
            spacing_mm=self.population.spacing_mm,
            held_out=self.config.train.held_out,
        )
        assert masks is not None
        moved = {"masks": masks[:, :-2], "body": masks[:, -2] > 0.5, "valid": masks[:, -1] > 0.5}
        if segmentation is not None:
            moved["segmentation"] = segmentation
        display = to_display(image, modality=config.modality, window_hu=config.data.window_hu)
        return (
            batch | moved | {"image": withhold(display, self.config.train.drop_channel, generator)}
        )

    def _decode(self, features: tuple[Tensor, ...]) -> list[Output]:
        return [branch.decode(features) for branch in self.module.branches]

    def _task(self, outputs: Sequence[Output], batch: Batch, generator: torch.Generator) -> Tensor:
        """L_task of each image, summed over the heads that its labels can teach.

        Several decoders learn from all images each; the loss is their mean.
        """
        losses = []
        for output in outputs:
            if output.segmentation is not None:
                losses.append(
                    deeply_supervised(
                        (output.segmentation, *output.deep),
                        batch["segmentation"],
                        dice=self.config.train.dice,
                        spread=output.spread,
                        generator=generator,
                    )
                )
            if output.findings is not None:
                policy = self.config.data.uncertain
                loss = findings_loss(output.findings, batch["findings"], uncertain=policy)
                beside = output.segmentation is not None
                losses.append(self.config.train.findings * loss if beside else loss)
        return torch.stack(losses).sum(0) / len(outputs)

    def _kl(self, progress: float) -> Tensor:
        """KL on the scale of a loss that is a mean over images and voxels (or findings).

        It warms up over the first third of the Bayesian phase.
        """
        settings = self.config.bayes
        warm_up = Ramp(settings.warm_start, max(1e-9, (1 - settings.warm_start) / 3))
        per_image = self.population.voxels if self.module.classes else self.module.findings
        scale = settings.kl * warm_up.at(progress) / (self.population.images * per_image)
        return scale * bayes.kl(self.module) / len(self.module.branches)

    def _attacks(self, step: int, progress: float) -> bool:
        settings = self.config.adversarial
        enters = self.adversarial_ramp.at(progress) > 0
        return settings.weight > 0 and settings.eps > 0 and enters and step % settings.every == 0

    def _adversarial(self, clean: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        """L_adv (METHOD 2.3); the first images of the (randomly drawn) batch are attacked."""
        settings, network = self.config.adversarial, self.module
        attacked_images = max(1, round(settings.share * len(batch["image"])))
        batch = {key: value[:attacked_images] for key, value in batch.items()}
        labels = batch["segmentation"] if network.classes else batch["findings"]
        attacked = adversarial.perturb(
            lambda x: doubt.probability(network(x)),
            batch["image"],
            labels,
            eps=settings.eps,
            steps=settings.steps,
            norm=settings.norm,
            valid=batch["valid"],
            generator=generator,
        )
        features = network.encode(attacked)
        outputs = self._decode(features)
        weights = torch.ones_like(clean[:attacked_images])
        if settings.gamma and self._doubts:  # a deterministic network has no uncertainty
            uncertainty = doubt.epistemic(network, outputs, features, draws=settings.draws)
            weights = adversarial.uncertainty_weights(
                doubt.mean_over(uncertainty, batch["body"]),
                gamma=settings.gamma,
                clip=settings.clip,
            )
        alpha = settings.alpha
        attacked_loss = self._task(outputs, batch, generator)
        loss = adversarial.adversarial_loss(clean, attacked_loss, weights, alpha=alpha)
        return loss - alpha * clean.mean() if settings.normalise_clean else loss

    def _counts(self, weight: float) -> Parts:
        """How often L_total counts the clean and the attacked loss (METHOD 2.3), for the log."""
        settings = self.config.adversarial
        shares = adversarial.effective_weights(
            weight=weight, alpha=settings.alpha, normalise_clean=settings.normalise_clean
        )
        return {f"weight/{name}": torch.tensor(v) for name, v in shares._asdict().items()}

    def _attention(
        self, outputs: list[Output], features: tuple[Tensor, ...], batch: Batch, progress: float
    ) -> Parts:
        """L_att, L_clinical and L_anatomy (METHOD 3.2, 3.3) on the composite map that is shown."""
        settings, size = self.config.attention, batch["image"].shape[2:]
        ramp = self.attention_ramp.at(progress)
        if ramp == 0:
            return {}
        attention = doubt.composites(self.module, outputs, size).mean(0)
        body = batch["body"] & batch["valid"]
        terms = {}
        if settings.clinical and batch["annotated"].any():
            loss = alignment.clinical_loss(attention, batch["masks"], batch["annotated"])
            terms["clinical"] = ramp * settings.clinical * loss
        if settings.anatomy:
            terms["anatomy"] = ramp * settings.anatomy * alignment.anatomy_loss(attention, body)
        if settings.weight and settings.direction != "off" and self._doubts:
            draws = self.config.adversarial.draws
            uncertainty = doubt.of_maps(self.module, outputs, features, size, draws=draws)
            loss = alignment.attention_loss(
                attention,
                uncertainty,
                body,
                direction=settings.direction,
                eta=settings.eta,
                u_ref=self._reference(uncertainty),
            )
            terms["attention"] = ramp * settings.weight * loss
        return terms

    def _reference(self, uncertainty: Tensor) -> float:
        """u_ref as all parts of the step see it; the very first step takes its own quantile."""
        self.quantiles.append(uncertainty.float().flatten()[::7].quantile(0.95))
        reference = self.module.u_ref
        now = float(torch.where(reference == 0, self.quantiles[-1], reference))
        return max(now, 1e-12)  # fresh gates vary nowhere

    def _report(self, terms: Parts, step: int) -> Parts:
        total = torch.stack(list(terms.values())).sum()
        logged = {f"loss/{name}": value.detach() for name, value in terms.items()}
        every = self.config.train.validate_every
        if every and step % every == 0 and len(terms) > 1:
            decoders = [branch.decoder for branch in self.module.branches]
            logged |= _gradient_shares(terms, [p for each in decoders for p in each.parameters()])
        return {"total": total} | logged


def _gradient_shares(terms: Parts, parameters: list[Tensor]) -> Parts:
    norms = {}
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        norms[name] = torch.stack([g.norm() for g in gradients if g is not None]).norm()
    total = torch.stack(list(norms.values())).sum().clamp(min=1e-12)
    return {f"share/{name}": norm / total for name, norm in norms.items()}
