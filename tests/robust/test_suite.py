"""The whole ladder and the shift suite on one predict function."""

import math

import pytest
import torch

from penumbra.robust.ladder import Ladder, damage, wrong_share
from penumbra.robust.objective import Predict
from penumbra.robust.shift import Shift, suite
from penumbra.robust.suite import Plan, default_score, failure, robustness
from penumbra.robust.uncertainty import Draws

METHODS = ("noise", "fgsm", "pgd", "pgd-balanced", "pgd-cosine", "apgd", "square", "hide", "raise")


def one(predict: Predict) -> Draws:
    """A deterministic model: one draw."""
    return lambda image: predict(image)[None]


def darker(batch, cell: Shift, generator: torch.Generator) -> torch.Tensor:
    return batch["image"] * (1 - 0.1 * cell.severity)


@pytest.fixture
def batches(small_network, generator: torch.Generator):
    predict = small_network(2)
    made = []
    for _ in range(2):
        image = torch.rand((3, 1, 8, 8), generator=generator)
        made.append({"image": image, "segmentation": predict(image).argmax(1)})
    return made


def test_every_condition_is_scored_for_every_case(small_network, batches) -> None:
    plan = Plan(
        eps=(0.01, 0.05),
        ladder=Ladder(methods=METHODS, steps=4, restarts=2, chunk_voxels=2 * 64),
        shifts=tuple(suite(["dark", "dim"], seen=["dim"], severities=[1, 5])),
        gates_eps=0.05,
    )
    result = robustness(
        one(small_network(2)), batches, plan=plan, display=lambda x: x, shift=darker
    )
    assert result.trustworthy
    assert len(result.conditions) == 1 + 2 * (len(METHODS) + 1) + 4
    assert all(len(c.values["dice"]) == 2 for c in result.conditions)
    assert len(result.rows()) == len(result.conditions)
    assert all(row["n"] == 2 and row["metric"] == "dice" for row in result.rows())
    by = {(c.name, c.level): c.mean("dice") for c in result.conditions}
    assert by["clean", 0.0] == 1.0
    for eps in (0.01, 0.05):
        assert by["worst", eps] <= min(by[m, eps] for m in METHODS) + 1e-6
    assert by["worst", 0.05] < by["worst", 0.01] < 1.0
    assert by["noise", 0.05] > by["pgd-balanced", 0.05]
    assert by["dark", 5.0] <= by["dark", 1.0]
    assert {c.name for c in result.conditions if c.seen} == {"dim"}


def test_the_same_seed_repeats_every_number(small_network, batches) -> None:
    plan = Plan(eps=(0.03,), ladder=Ladder(methods=("noise", "apgd"), steps=3), gates_eps=0.0)
    first, again = (
        robustness(one(small_network(2)), batches, plan=plan, display=lambda x: x) for _ in range(2)
    )
    assert [c.values for c in first.conditions] == [c.values for c in again.conditions]
    assert first.gates == ()


def test_findings_keep_their_probabilities_for_the_auc(
    findings_network, generator: torch.Generator
) -> None:
    predict = findings_network()
    image = torch.rand((6, 1, 8, 8), generator=generator)
    batch = {"image": image, "findings": (predict(image) > 0.5).float()}
    plan = Plan(eps=(0.02,), ladder=Ladder(methods=("fgsm", "pgd"), steps=4), gates_eps=0.02)
    result = robustness(one(predict), [batch], plan=plan, display=lambda x: x)
    clean, *_, worst = result.conditions
    assert (clean.name, worst.name) == ("clean", "worst")
    assert worst.draws[0].shape == (1, 6, 2)
    assert clean.values["accuracy"] == [1.0]
    assert worst.values["accuracy"][0] < 1.0


def test_transfer_attacks_the_surrogate_and_is_weaker_than_the_white_box(
    small_network, batches
) -> None:
    plan = Plan(eps=(0.05,), ladder=Ladder(methods=("pgd", "transfer"), steps=6), gates_eps=0.0)
    result = robustness(
        one(small_network(2)),
        batches,
        plan=plan,
        display=lambda x: x,
        surrogate=small_network(2, seed=1),
    )
    dice = {c.name: c.mean("dice") for c in result.conditions}
    assert dice["pgd"] < dice["transfer"]


def test_missing_pieces_are_named(small_network, batches) -> None:
    predict = one(small_network(2))
    transfer = Plan(ladder=Ladder(methods=("transfer",)), gates_eps=0.0)
    with pytest.raises(ValueError, match="needs a surrogate"):
        robustness(predict, batches, plan=transfer, display=lambda x: x)
    shifts = Plan(shifts=(Shift("dark", 1, False),))
    with pytest.raises(ValueError, match="1 shifts are planned"):
        robustness(predict, batches, plan=shifts, display=lambda x: x)
    with pytest.raises(ValueError, match="no case"):
        robustness(predict, [], plan=Plan(), display=lambda x: x)


def test_dice_by_hand_and_a_case_without_foreground_is_missing_not_perfect() -> None:
    p = torch.tensor([[[[0.1, 0.8, 0.1], [0.9, 0.2, 0.9]]]])
    assert default_score(p, torch.tensor([[1, 1, -1]]))["dice"] == pytest.approx(2 / 3)
    assert math.isnan(default_score(p, torch.tensor([[0, 0, 0]]))["dice"])


def test_damage_prefers_deleting_the_lesion_to_a_few_false_alarms() -> None:
    labels = torch.zeros((1, 100), dtype=torch.int64)
    labels[0, :2] = 1

    def answer(positive: list[int]) -> torch.Tensor:
        p = torch.zeros((1, 2, 100))
        p[:, 0] = 1
        p[:, :, positive] = torch.tensor([[0.0], [1.0]])
        return p

    deleted, alarms = damage(answer([]), labels), damage(answer([0, 1, 2, 3, 4]), labels)
    assert float(deleted) == pytest.approx(0.02 + 1)
    assert float(alarms) == pytest.approx(0.03 + 1 - 4 / 7)


def test_wrong_share_ignores_what_is_not_stated() -> None:
    p = torch.tensor([[[0.9, 0.9, 0.9], [0.1, 0.1, 0.1]]])
    assert float(wrong_share(p, torch.tensor([[0, 1, -1]]))) == 0.5
    nan = torch.tensor([[1.0, float("nan")]])
    assert float(wrong_share(torch.tensor([[0.1, 0.9]]), nan)) == 1.0


def test_cases_of_one_batch_are_scored_apart(small_network, batches) -> None:
    plan = Plan(eps=(0.03,), ladder=Ladder(methods=("pgd",), steps=3), gates_eps=0.0)
    joined = {key: torch.cat([b[key] for b in batches]) for key in batches[0]}
    joined["case"] = torch.tensor([7, 7, 7, 2, 2, 2])
    subject = one(small_network(2))
    apart = robustness(subject, batches, plan=plan, display=lambda x: x)
    together = robustness(subject, [joined], plan=plan, display=lambda x: x)
    assert [c.values for c in together.conditions] == [c.values for c in apart.conditions]


def test_failure_is_the_lost_structure_and_not_the_share_of_voxels() -> None:
    labels = torch.zeros((2, 100), dtype=torch.int64)
    labels[0, :2] = 1
    background = torch.zeros((2, 2, 100))
    background[:, 0] = 1
    assert failure(background, labels).tolist() == [1.0, 0.0]
    ranks = torch.tensor([[0.3, 0.1], [0.4, 0.2]])  # the first finding is commoner than the second
    findings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert float(failure(ranks, findings)) == 0.5
    findings = torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])
    assert float(failure(ranks, findings)) == 0.0


def test_an_underfitted_model_of_findings_is_destroyed_and_a_masked_one_is_not(
    generator: torch.Generator,
) -> None:
    # Base rates dominate every probability; the image moves it a little, in the right direction.
    base = torch.tensor([-3.0, -1.0])
    image = torch.rand((6, 1, 4, 4), generator=generator)

    def weak(x: torch.Tensor) -> torch.Tensor:
        means = torch.stack([x[:, 0, :, :2].mean((1, 2)), x[:, 0, :, 2:].mean((1, 2))], 1)
        return (base + 0.3 * (means - 0.5)).sigmoid()

    def masked(x: torch.Tensor) -> torch.Tensor:
        return weak((4 * x).round() / 4)

    labels = (weak(image) > weak(image).median(0).values).float()
    labels[0] = float("nan")  # a film about which nothing is stated
    batch = {"image": image, "findings": labels}
    plan = Plan(eps=(0.02,), ladder=Ladder(methods=("pgd",), steps=4), gates_eps=0.02)
    held = {}
    for model in (weak, masked):
        result = robustness(one(model), [batch], plan=plan, display=lambda x: x)
        held[model] = {gate.name for gate in result.gates if gate.passed}
    assert {"a huge eps destroys the model", "gradients exist"} <= held[weak]
    assert not {"a huge eps destroys the model", "gradients exist"} & held[masked]
