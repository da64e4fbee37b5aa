"""Every setting of a run: one validated model per stage; a field's description is its help."""

from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from penumbra.types import Modality

Size = Literal["tiny", "small", "full"]
Positive = Annotated[float, Field(gt=0)]
Draws = Annotated[int, Field(ge=1)] | Literal["auto", "propagate"]
"""How many posterior draws; as many as the maps need; or variances passed through in one go."""


class Section(BaseModel):
    """Settings that refuse what they do not know and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """How scans are read, prepared and cut into patches."""

    dim: Literal[2, 3] = Field(2, description="2: slice-wise or radiographs; 3: volumes")
    patch: tuple[int, ...] = Field(
        (128, 128), description="patch shape in voxels, one per dimension"
    )
    spacing_mm: tuple[Positive, ...] | None = Field(
        None, description="resample to this voxel spacing; none keeps each scan's own"
    )
    image_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = Field(
        None, description="radiographs are resized to this many rows and columns, aspect kept"
    )
    window_hu: tuple[float, float] = Field((-160.0, 240.0), description="CT display window in HU")
    foreground: float = Field(
        0.5, ge=0, le=1, description="share of patches centred on a labelled structure"
    )
    uncertain: Literal["ones", "zeros", "ignore"] = Field(
        "ignore", description="policy for findings labelled uncertain (-1)"
    )
    heads: Literal["all", "segmentation", "findings"] = Field(
        "all", description="which labels are read, where a cohort has both kinds"
    )
    fraction: float = Field(1.0, gt=0, le=1, description="share of labelled training patients used")
    split_seed: int | None = Field(
        None, ge=0, description="seed of the split by patient; none: the run's own seed"
    )
    holdout_site: str | None = Field(
        None, description="this site's patients become the test part, no others; all else trains"
    )
    fold: str | None = Field(
        None, pattern=r"^[1-9]\d*/[1-9]\d*$", description="k/n: the k-th of n folds is tested"
    )
    on_error: Literal["stop", "skip"] = Field("stop", description="what an unreadable case does")
    workers: int = Field(0, ge=0, description="loader processes; 0 reads in the training process")

    @model_validator(mode="after")
    def _patch_fits(self) -> "Data":
        if len(self.patch) != self.dim or min(self.patch) < 1:
            raise ValueError(f"patch needs {self.dim} sizes in voxels, got {list(self.patch)}")
        return self

    @model_validator(mode="after")
    def _fold_is_one_of_several(self) -> "Data":
        which, count = map(int, (self.fold or "1/2").split("/"))
        if count < 2 or which > count or (self.fold and self.holdout_site):
            raise ValueError(
                f"fold {self.fold}: one of 1/5, ... 5/5, and no holdout_site beside it"
            )
        return self

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> "Data":
        if self.window_hu[1] <= self.window_hu[0]:
            raise ValueError(f"window_hu {list(self.window_hu)}: the second value must be larger")
        return self


class Pretrain(Section):
    """Stage 1: L_self and its views (METHOD 1)."""

    steps: int = Field(200, ge=0, description="optimizer steps; 0 skips pre-training")
    batch: int = Field(32, ge=2)
    lr: float = Field(1e-4, gt=0)
    temperature: float = Field(0.1, gt=0, description="tau of NT-Xent")
    queue: int = Field(0, ge=0, description="momentum queue length; 0 uses the batch alone")
    momentum: float = Field(0.99, ge=0, lt=1, description="of the key encoder, with a queue")
    negatives: Literal["all", "patient_aware"] = "patient_aware"
    variance_guard: float = Field(0.1, ge=0, description="weight of the hinge on embedding std")
    region: float = Field(0.5, ge=0, description="lambda1, weight of region prediction")
    regions: Literal["position", "overlap", "organs", "lungs"] = Field(
        "position",
        description="what it names: the bin of the view's centre, its box's shares of the bins, "
        "its largest organ (reads training labels), or its lung zone",
    )
    region_bins: int = Field(3, ge=2, description="position bins per axis")
    protocol: float = Field(0.1, ge=0, description="lambda2, weight of protocol prediction")
    protocol_mode: Literal["predict", "partition", "invariant", "off"] = "partition"
    unlearn: float = Field(
        1.0, ge=0, description="weight of unlearning the protocol, in partition and invariant"
    )
    dense: float = Field(0.0, ge=0, description="weight of contrast between places of one image")
    restoration: float = Field(0.0, ge=0, description="weight of restoring hidden regions")
    views: Literal["anatomy", "generic"] = Field(
        "anatomy", description="generic: crops and intensity only, the ablation's baseline"
    )


class Model(Section):
    """The network's shape."""

    architecture: Literal["penumbra", "dynunet", "swin-unetr", "densenet121"] = Field(
        "penumbra", description="or a published network, to compare with"
    )
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (16, 32, 64, 128), min_length=2, description="channels per level, finest first"
    )
    neck: int = Field(64, ge=1, le=65536, description="width of the classification neck")


class Bayes(Section):
    """The posterior over decoder and heads (METHOD 2.1)."""

    posterior: Literal["variational", "dropout", "laplace", "none"] = Field(
        "variational", description="over decoder and heads; laplace: over the last layers, post hoc"
    )
    decoders: int = Field(
        1, ge=1, le=64, description="decoders on one encoder, each with a posterior of its own"
    )
    scope: Literal["decoder", "light", "heads"] = Field(
        "decoder", description="light: skip convolutions stay fixed; heads: all of the decoder does"
    )
    spread_rank: int | None = Field(
        None,
        ge=0,
        description="predict the spread of the class logits: 0 per voxel, r with r shared factors",
    )
    warm_start: float = Field(
        0.75,
        ge=0,
        le=1,
        description="share of the steps trained deterministically before converting",
    )
    sigma0: float = Field(0.3, gt=0, description="initial posterior std over |weight|")
    rho_travel: float = Field(
        2.0, ge=0, description="how far log sigma can move after the conversion, in nats"
    )
    kl: float = Field(1.0, ge=0, description="lambda_KL while training; temper corrects it")
    estimator: Literal["weights", "local", "flipout"] = Field(
        "weights", description="reparameterisation used while training"
    )
    dropout: float = Field(0.2, gt=0, lt=1, description="rate, for the MC-dropout posterior")
    temper: tuple[Positive, ...] = Field(
        (0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
        description="widths of the posterior to try on validation patients; empty: as trained",
    )


class Adversarial(Section):
    """L_adv (METHOD 2.3)."""

    weight: float = Field(0.5, ge=0, description="lambda_adv; 0 switches the term off")
    alpha: float = Field(0.5, ge=0, le=1, description="share of the clean loss inside L_adv")
    eps: float = Field(2 / 255, ge=0, description="radius in display-range units")
    steps: int = Field(1, ge=1, description="1: FGSM with random start; more: PGD")
    norm: Literal["linf", "l2"] = "linf"
    every: int = Field(1, ge=1, description="apply the term every n-th step")
    share: float = Field(
        0.4, gt=0, le=1, description="share of every batch that is attacked; 0.4 costs under 2x"
    )
    start: float = Field(0.5, ge=0, le=1, description="share of the run before the term's ramp")
    gamma: float = Field(1.0, ge=0, description="exponent of the uncertainty weight; 0: unweighted")
    clip: float = Field(3.0, ge=1, description="weights stay within 1/clip..clip")
    draws: int = Field(2, ge=2, description="draws behind the uncertainty weight")
    normalise_clean: bool = Field(
        False, description="count the clean loss once, not 1+alpha*lambda"
    )


class Attention(Section):
    """Gates and the losses that teach them (METHOD 3)."""

    gates: bool = True
    weight: float = Field(0.02, ge=0, description="lambda_att")
    direction: Literal["align", "reliable", "off"] = "reliable"
    eta: float = Field(0.5, ge=0, le=1, description="share of the region of interest in the target")
    clinical: float = Field(0.5, ge=0, description="lambda_clinical, on annotated pairs only")
    anatomy: float = Field(0.1, ge=0, description="lambda_anat, attention outside the body")
    start: float = Field(0.5, ge=0, le=1, description="share of the run before the terms' ramp")
    lr_factor: float = Field(
        1.0, gt=0, description="learning rate of gates and level weights; they start at zero"
    )
    kappa: float = Field(
        0.0, ge=0, le=1, description="damping of the shown map by uncertainty; 0: none"
    )


class Train(Section):
    """Stage 2: the loop and L_task (METHOD 4)."""

    steps: int = Field(600, ge=1)
    batch: int = Field(16, ge=1)
    lr: float = Field(1e-4, gt=0)
    encoder_lr_factor: float = Field(
        1.0, ge=0, description="learning rate of a pre-trained encoder; 0 keeps it as it is"
    )
    findings_lr_factor: float = Field(
        1.0, gt=0, description="learning rate of the findings head, over that of what it reads"
    )
    warm_up: float = Field(0.05, ge=0, lt=1, description="share of the steps with rising lr")
    dice: float = Field(0.5, ge=0, description="w_d, weight of the Dice loss beside cross-entropy")
    findings: float = Field(
        1.0,
        ge=0,
        description="weight of the findings' loss beside the segmentation's, of two heads",
    )
    clip_norm: float = Field(5.0, gt=0)
    augment: float = Field(0.5, ge=0, le=1, description="probability of each augmentation family")
    held_out: tuple[str, ...] = Field(
        (), description="families of views that no training image shows; the shift suite does"
    )
    drop_channel: float = Field(
        0.0, ge=0, lt=1, description="probability that a channel is withheld, as if not acquired"
    )
    accumulate: int = Field(1, ge=1, description="parts a batch is computed in; processes share")
    shard: Literal["none", "full"] = Field(
        "none", description="full: processes share the optimizer's state (torch's fully_shard)"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of activations")
    compile: bool = Field(False, description="torch.compile the encoder")
    validate_every: int = Field(200, ge=0, description="steps; 0: never")
    keep: Literal["last", "score", "likelihood"] = Field(
        "last", description="weights of the last step, or those best validated with a posterior"
    )
    checkpoint_every: int = Field(100, ge=1)

    @model_validator(mode="after")
    def _something_is_validated_to_choose_by(self) -> "Train":
        if self.keep != "last" and not self.validate_every:
            raise ValueError(f"keep {self.keep} chooses by validation; validate_every is 0")
        return self


class Evaluate(Section):
    """What is measured on held-out patients, and how hard (METHOD 5)."""

    draws: Draws = Field(
        8, description="posterior draws; auto: as many as the maps need; propagate: no draws"
    )
    windows: Literal["blend", "tile"] = Field(
        "blend", description="volumes in overlapping patches, or in larger tiles seen once"
    )
    bins: int = Field(15, ge=2)
    attack_eps: tuple[Positive, ...] = Field((1 / 255, 4 / 255), description="display-range units")
    attack_steps: int = Field(10, ge=1)
    attack_draws: int = Field(
        8, ge=1, description="posterior draws behind an attacked prediction and its gradient"
    )
    attack_cases: int = Field(8, ge=0, description="test cases attacked and shifted; 0: none")
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 3, 5)
    bootstrap: int = Field(2000, ge=100)
    error_target: float = Field(0.05, gt=0, lt=1, description="y of 'keep errors under y'")

    @property
    def fixed_draws(self) -> int:
        """Draws where their number cannot adapt: explanations, export."""
        return self.draws if isinstance(self.draws, int) else 8


class Config(Section):
    """Everything that a run folder needs in order to be repeated."""

    name: str
    modality: Modality
    size: Size = "small"
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: Data = Data()
    pretrain: Pretrain = Pretrain()
    model: Model = Model()
    bayes: Bayes = Bayes()
    adversarial: Adversarial = Adversarial()
    attention: Attention = Attention()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _decoders_can_be_repeated(self) -> "Config":
        if self.bayes.decoders > 1 and self.model.architecture != "penumbra":
            raise ValueError(
                f"bayes.decoders={self.bayes.decoders}: {self.model.architecture} has no decoder "
                "that could be repeated; leave model.architecture as penumbra"
            )
        return self

    def yaml(self) -> str:
        """The resolved configuration as it is written to ``config.yaml``."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
