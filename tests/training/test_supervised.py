"""The total loss: which terms enter when, and on what scale."""

from dataclasses import replace

import pytest
import torch

from penumbra import bayes, trained
from penumbra.config import Config, resolve
from penumbra.robust import adversarial
from penumbra.training import doubt
from penumbra.training.loop import Batch
from penumbra.training.losses import segmentation_loss
from penumbra.training.supervised import Population, Ramp, Supervised
from penumbra.types import Task

SEGMENTATION = Task(
    modality="mri",
    channels=("flair", "t1"),
    classes=("background", "lesion"),
    label_values={0: 0, 1: 1},
    regions={"WT": (1,)},
)
FINDINGS = Task(modality="mri", channels=("flair", "t1"), findings=("a", "b"))


def config(**overrides: object) -> Config:
    settings = {f.replace("__", "."): v for f, v in overrides.items()}
    return resolve("phantom-mri", size="tiny", overrides={"train.steps": 100, **settings})


def batch(task: Task, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(3, 16, 16, generator=g) > 0.7).long()
    found: Batch = {
        "image": torch.rand(3, 2, 16, 16, generator=g),
        "body": torch.ones(3, 16, 16, dtype=torch.bool),
        "valid": torch.ones(3, 16, 16, dtype=torch.bool),
        "masks": torch.stack([labels.float()] * (1 + len(task.findings)), 1),
        "annotated": torch.ones(3, 1 + len(task.findings), dtype=torch.bool),
        "case": torch.arange(3),
    }
    if task.classes:
        found["segmentation"] = labels
    if task.findings:
        found["findings"] = torch.tensor([[1.0, 0.0], [0.0, float("nan")], [-1.0, 1.0]])
    return found


def stage(task: Task, settings: Config) -> Supervised:
    network = trained.build(settings, task)
    return Supervised(network, settings, Population(images=10, voxels=256, spacing_mm=(1.0, 1.0)))


def terms(task: Task, settings: Config, step: int) -> dict[str, torch.Tensor]:
    subject = stage(task, settings)
    subject.prepare(step)
    return subject.loss(batch(task), step, torch.Generator().manual_seed(1))


def names(parts: dict[str, torch.Tensor]) -> set[str]:
    return {k.removeprefix("loss/") for k in parts if k.startswith("loss/")}


@pytest.mark.parametrize("task", [SEGMENTATION, FINDINGS], ids=["segmentation", "findings"])
def test_terms_enter_in_the_order_of_the_method(task: Task) -> None:
    settings = config(bayes__warm_start=0.75)
    assert names(terms(task, settings, 1)) == {"task"}
    assert names(terms(task, settings, 60)) == {"task", "adversarial", "clinical", "anatomy"}
    parts = terms(task, settings, 90)
    assert float(parts["weight/clean"]) == 1 + float(parts["weight/adversarial"])  # alpha 1/2
    late = names(parts)
    assert late == {"task", "kl", "adversarial", "clinical", "anatomy", "attention"}


@pytest.mark.parametrize("task", [SEGMENTATION, FINDINGS], ids=["segmentation", "findings"])
def test_the_total_is_the_sum_of_its_terms_and_has_a_gradient(task: Task) -> None:
    subject = stage(task, config())
    subject.prepare(90)
    parts = subject.loss(batch(task), 90, torch.Generator().manual_seed(1))
    expected = sum(v for k, v in parts.items() if k.startswith("loss/"))
    torch.testing.assert_close(parts["total"].detach(), expected)
    parts["total"].backward()
    rho = list(bayes.rho_parameters(subject.module))
    assert rho
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in rho)


def test_rho_has_the_bayesian_phase_to_travel_however_late_it_begins() -> None:
    for steps, warm_start in ((100, 0.75), (1000, 0.75), (400, 0.0)):
        subject = stage(SEGMENTATION, config(train__steps=steps, bayes__warm_start=warm_start))
        subject.prepare(round(steps * warm_start))
        (rate,) = (group["rate"] for group in subject.parameter_groups() if "rate" in group)
        travelled = sum(rate(step) for step in range(round(steps * warm_start), steps))
        assert travelled == pytest.approx(subject.config.bayes.rho_travel, rel=0.05)
        assert rate(steps - 1) < 0.01 * rate(round(steps * warm_start))


def test_the_kl_term_is_divided_by_images_and_voxels() -> None:
    settings = config(bayes__warm_start=0.0)
    subject = stage(SEGMENTATION, settings)
    subject.prepare(0)
    expected = float(bayes.kl(subject.module).detach()) / (10 * 256)
    parts = subject.loss(batch(SEGMENTATION), 99, torch.Generator().manual_seed(1))
    assert float(parts["loss/kl"]) == pytest.approx(expected, rel=1e-5)


def test_only_a_share_of_the_batch_is_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(predict, image, labels, **settings):
        sizes.append(len(image))
        return image

    monkeypatch.setattr(adversarial, "perturb", watched)
    for share in (0.1, 0.67, 1.0):
        terms(SEGMENTATION, config(adversarial__share=share), 90)
    assert sizes == [1, 2, 3]


def test_without_a_posterior_the_network_stays_deterministic() -> None:
    subject = stage(SEGMENTATION, config(bayes__posterior="none"))
    assert not subject.prepare(99)
    assert "loss/kl" not in subject.loss(batch(SEGMENTATION), 99, torch.Generator())


@pytest.mark.parametrize("rank", [0, 2])
def test_a_predicted_spread_is_trained_by_the_task(rank: int) -> None:
    subject = stage(SEGMENTATION, config(bayes__spread_rank=rank))
    subject.prepare(99)
    total = subject.loss(batch(SEGMENTATION), 99, torch.Generator().manual_seed(1))["total"]
    total.backward()
    spread = subject.module.heads["segmentation"].spread
    assert torch.isfinite(spread.weight.grad).all()
    assert float(spread.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("task", [SEGMENTATION, FINDINGS], ids=["segmentation", "findings"])
def test_every_decoder_of_an_ensemble_learns_from_every_image(task: Task) -> None:
    settings = config(bayes__posterior="none", bayes__decoders=3)
    subject = stage(task, settings)
    assert not subject.prepare(90)
    parts = subject.loss(batch(task), 90, torch.Generator().manual_seed(1))
    assert {"adversarial", "attention"} <= names(parts)  # decoders disagree: there is uncertainty
    parts["total"].backward()
    for branch in subject.module.branches:
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in branch.heads.parameters())


def test_the_findings_loss_weighs_beside_a_segmentation_and_never_alone() -> None:
    both = replace(SEGMENTATION, findings=FINDINGS.findings)

    def task_loss(task: Task, weight: float) -> float:
        settings = config(bayes__posterior="none", train__augment=0.0, train__findings=weight)
        return float(terms(task, settings, 0)["loss/task"])

    none, half, one = (task_loss(both, weight) for weight in (0.0, 0.5, 1.0))
    assert one - none > 0.1
    assert half == pytest.approx((none + one) / 2, rel=1e-5)
    assert task_loss(FINDINGS, 0.1) == task_loss(FINDINGS, 1.0) > 0.1


def test_the_loss_of_an_ensemble_is_the_mean_of_its_decoders_and_so_is_the_kl() -> None:
    settings = config(bayes__warm_start=0.0, bayes__decoders=2, train__augment=0.0)
    subject = stage(SEGMENTATION, settings)
    image = batch(SEGMENTATION)
    parts = subject.loss(image, 99, torch.Generator().manual_seed(1))
    alone = []
    for branch in subject.module.branches:
        logits = branch.decode(subject.module.encode(image["image"])).segmentation
        alone.append(segmentation_loss(logits, image["segmentation"], dice=0.5).mean().detach())
    assert float(parts["loss/task"]) == pytest.approx(float(sum(alone)) / 2, rel=1e-5)
    subject.prepare(0)
    kl = float(subject._kl(1.0).detach()) * 10 * 256
    assert kl == pytest.approx(float(bayes.kl(subject.module).detach()) / 2, rel=1e-5)


def test_fresh_draws_of_an_ensemble_are_of_its_decoders_in_turn() -> None:
    subject = stage(SEGMENTATION, config(bayes__posterior="none", bayes__decoders=2))
    network = subject.module
    features = network.encode(batch(SEGMENTATION)["image"])
    outputs = [branch.decode(features) for branch in network.branches]
    two = doubt.epistemic(network, outputs, features, draws=2)
    four = doubt.epistemic(network, outputs, features, draws=4)
    assert float(two.max()) > 0
    torch.testing.assert_close(two, four)


def test_a_laplace_posterior_waits_for_the_end() -> None:
    subject = stage(SEGMENTATION, config(bayes__posterior="laplace"))
    assert not subject.prepare(99)
    assert subject.prepare(100)


def test_conversion_happens_once_at_the_end_of_the_warm_start() -> None:
    subject = stage(SEGMENTATION, config(bayes__warm_start=0.5))
    assert not subject.prepare(49)
    assert subject.prepare(50)
    assert not subject.prepare(51)


@pytest.mark.parametrize("decoders", [1, 2])
@pytest.mark.parametrize("task", [SEGMENTATION, FINDINGS], ids=["segmentation", "findings"])
def test_every_trained_parameter_is_in_exactly_one_group(task: Task, decoders: int) -> None:
    subject = stage(task, config(bayes__decoders=decoders))
    subject.prepare(99)
    grouped = [p for group in subject.parameter_groups() for p in group["params"]]
    assert len(grouped) == len(set(grouped)) == len(list(subject.module.parameters()))


def test_the_findings_head_has_its_own_pace() -> None:
    subject = stage(FINDINGS, config(train__findings_lr_factor=10.0))
    subject.prepare(0)
    scale = {id(p): g["scale"] for g in subject.parameter_groups() for p in g["params"]}
    network = subject.module
    assert {scale[id(p)] for p in network.heads["findings"].parameters()} == {10.0}
    assert {scale[id(p)] for p in network.decoder.parameters()} == {1.0}


def test_gates_and_level_weights_have_their_own_pace() -> None:
    subject = stage(FINDINGS, config(attention__lr_factor=20.0))
    subject.prepare(0)
    scale = {id(p): g["scale"] for g in subject.parameter_groups() for p in g["params"]}
    network = subject.module
    assert {scale[id(p)] for p in (*network.gates.parameters(), network.beta)} == {20.0}
    assert {scale[id(p)] for p in network.decoder.parameters()} == {1.0}


def test_the_same_step_has_the_same_loss() -> None:
    a, b = (terms(SEGMENTATION, config(), 90)["total"] for _ in range(2))
    assert torch.equal(a, b)


def test_a_ramp_rises_linearly_between_its_ends() -> None:
    ramp = Ramp(0.5, 0.2)
    assert [ramp.at(p) for p in (0.4, 0.5, 0.6, 0.7, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
