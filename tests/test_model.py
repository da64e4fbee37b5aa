"""The network: shapes, identity gates, seeds, and what survives a file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from penumbra import bayes
from penumbra.attend.composite import composite
from penumbra.bayes import dropout
from penumbra.model import Network


def network(
    *,
    classes: int = 3,
    findings: int = 2,
    dim: int = 2,
    gates: bool = True,
    convs: int = 1,
    seed: int = 0,
) -> Network:
    return Network(
        channels=2,
        classes=classes,
        findings=findings,
        dim=dim,
        widths=(8, 12, 16),
        neck=6,
        gates=gates,
        decoder_convs=convs,
        seed=seed,
    )


def image(*size: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 2, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(16, 16), (13, 9), (5, 2), (8, 7, 5), (3, 2, 1)])
@pytest.mark.parametrize("convs", [1, 2])
def test_any_size_comes_back_on_its_own_grid(size: tuple[int, ...], convs: int) -> None:
    output = network(dim=len(size), convs=convs)(image(*size))
    assert output.segmentation is not None
    assert output.findings is not None
    assert output.segmentation.shape == (2, 3, *size)
    assert output.findings.shape == (2, 2)
    assert [a.shape[1] for a in output.attention] == [3, 3, 3]
    assert composite(output.attention, network().beta, size).shape == (2, 3, *size)


def test_one_head_can_stand_alone() -> None:
    assert network(findings=0)(image(8, 8)).findings is None
    assert network(classes=0)(image(8, 8)).segmentation is None
    with pytest.raises(ValueError, match="classes, findings or both"):
        network(classes=0, findings=0)


def test_fresh_gates_change_nothing() -> None:
    gated, plain = network(gates=True), network(gates=False)
    x = image(16, 12)
    a, b = gated(x), plain(x)
    torch.testing.assert_close(a.segmentation, b.segmentation)
    torch.testing.assert_close(a.findings, b.findings)
    assert b.attention == ()


def test_a_gate_of_zeros_silences_the_finding_it_belongs_to() -> None:
    net = network(classes=0)
    with torch.no_grad():
        for gate in net.gates:
            gate.g.bias[1] = -200.0  # sigmoid is exactly zero in float32
    pooled = net.heads["findings"]
    seen: list[Tensor] = []
    pooled.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(image(8, 8))
    assert float(seen[0].detach()[:, 0].abs().max()) == 0
    assert float(seen[0].detach()[:, 1].abs().max()) > 0


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    a, b, c = network(seed=3), network(seed=3), network(seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_a_prediction_of_one_image_ignores_its_batch_mates() -> None:
    net, x = network(), image(16, 16, batch=3)
    whole, alone = net(x), net(x[1:2])
    torch.testing.assert_close(whole.segmentation[1:2], alone.segmentation, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.findings[1:2], alone.findings, atol=1e-5, rtol=1e-4)


def test_the_input_statistics_are_part_of_the_model() -> None:
    net, x = network(), image(8, 8)
    net.encoder.input_mean.copy_(torch.tensor([0.3, 0.4]))
    net.encoder.input_std.copy_(torch.tensor([2.0, 0.5]))
    shifted = (x - net.encoder.input_mean.view(1, 2, 1, 1)) / net.encoder.input_std.view(1, 2, 1, 1)
    plain = network()
    torch.testing.assert_close(net(x).segmentation, plain(shifted).segmentation)


@pytest.mark.parametrize("kind", ["deterministic", "variational", "dropout"])
def test_a_model_survives_safetensors_and_a_fresh_network(kind: str, tmp_path: Path) -> None:
    def build(seed: int) -> Network:
        net = network(seed=seed)
        if kind == "variational":
            bayes.convert(net, sigma0=0.3)
        elif kind == "dropout":
            dropout.convert(net, 0.2)
        return net

    first = build(0)
    if kind == "variational":
        with torch.no_grad():
            for p in first.parameters():
                p.add_(0.01)
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    second = build(9)
    second.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = image(8, 8)
    torch.testing.assert_close(first(x).segmentation, second(x).segmentation, rtol=0, atol=0)
    assert torch.equal(bayes.kl(first), bayes.kl(second))
    one, two = (
        bayes.bank(net, draws=2, generator=torch.Generator().manual_seed(5))
        for net in (first, second)
    )
    for a, b in zip(one.probabilities(x), two.probabilities(x), strict=True):
        assert torch.equal(a.findings, b.findings)


def test_a_warm_start_keeps_the_optimizer_state_of_the_means() -> None:
    net = network()
    before = {name: p for name, p in net.named_parameters()}
    bayes.convert(net, sigma0=0.3)
    after = {name: p for name, p in net.named_parameters() if not name.endswith("_rho")}
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_the_composite_puts_every_cell_where_its_voxels_are() -> None:
    fine, coarse = torch.zeros(1, 1, 5, 7), torch.zeros(1, 1, 3, 4)
    coarse[0, 0, 1, 2] = 1  # covers rows 2-3, columns 4-5
    only_coarse = composite((fine, coarse), torch.tensor([-50.0, 50.0]), (5, 7))[0, 0]
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    mass = only_coarse / only_coarse.sum()
    assert float((mass * rows).sum()) == pytest.approx(2.5)
    assert float((mass * columns).sum()) == pytest.approx(4.5, abs=0.1)  # the border cuts a little
    equal = composite((fine + 1, coarse * 0), torch.zeros(2), (5, 7))
    torch.testing.assert_close(equal, torch.full((1, 1, 5, 7), 0.5))


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="gates=False"):
        composite((), torch.zeros(0), (4, 4))
    with pytest.raises(ValueError, match=r"level 1 is \(4, 4\); size \(4, 4\) needs \(2, 2\)"):
        composite((torch.zeros(1, 1, 4, 4),) * 2, torch.zeros(2), (4, 4))
