"""A pre-trained encoder in other channels and dimensions, and an exact account of it."""

import pytest
import torch
from torch import Tensor, nn

from penumbra.errors import DataError
from penumbra.nets.encoder import Encoder
from penumbra.pretrain.transfer import adapt


class Toy(nn.Module):
    """Two levels; the image is read twice, as in a residual block."""

    def __init__(self, channels: int, dim: int, widths: tuple[int, int] = (4, 6)) -> None:
        super().__init__()
        conv = nn.Conv2d if dim == 2 else nn.Conv3d
        self.first = conv(channels, widths[0], 3, padding=1)
        self.skip = conv(channels, widths[0], 1)
        self.norm = nn.GroupNorm(2, widths[0])
        self.second = conv(widths[0], widths[1], 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.norm(self.first(x) + self.skip(x)).relu())


def convolve(encoder: Toy, x: Tensor) -> Tensor:
    return encoder.second((encoder.first(x) + encoder.skip(x)).relu())


def test_the_same_architecture_is_loaded_whole() -> None:
    source, target = Toy(1, 2), Toy(1, 2)
    report = adapt(source.state_dict(), target)
    assert report.share == 1
    assert set(report.loaded) == set(target.state_dict())
    assert not report.adapted
    assert not report.fresh
    assert not report.unused
    for name, value in target.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


def test_a_network_that_holds_the_encoder_is_understood() -> None:
    source, target = Toy(1, 2), Toy(1, 2)
    state = {f"encoder.{k}": v for k, v in source.state_dict().items()} | {"head": torch.ones(1)}
    assert adapt(state, target).share == 1


@pytest.mark.parametrize(("old", "new"), [(1, 4), (4, 1), (2, 3)])
def test_a_grey_image_in_all_channels_gets_the_same_answer(
    old: int, new: int, generator: torch.Generator
) -> None:
    source, target = Toy(old, 2), Toy(new, 2)
    report = adapt(source.state_dict(), target)
    grey = torch.rand(1, 1, 8, 8, generator=generator)
    torch.testing.assert_close(target(grey.expand(1, new, 8, 8)), source(grey.expand(1, old, 8, 8)))
    assert set(report.adapted) == {"first.weight", "skip.weight"}
    assert report.adapted["first.weight"] == f"{old} image channels averaged and spread over {new}"


def test_an_inflated_encoder_sees_each_slice_as_before(generator: torch.Generator) -> None:
    source, target = Toy(2, 2), Toy(2, 3)
    report = adapt(source.state_dict(), target)
    volume = torch.rand(1, 2, 8, 8, 5, generator=generator)
    slices = [convolve(source, volume[..., i]) for i in range(5)]
    torch.testing.assert_close(convolve(target, volume), torch.stack(slices, -1))
    assert report.adapted["second.weight"] == "2-D kernel put in the central one of 3 axial planes"
    assert "adapted second.weight: 2-D kernel" in str(report)


def test_a_flattened_encoder_answers_like_a_volume_constant_along_its_axis(
    generator: torch.Generator,
) -> None:
    source, target = Toy(2, 3), Toy(2, 2)
    adapt(source.state_dict(), target)
    image = torch.rand(1, 2, 8, 8, generator=generator)
    volume = image[..., None].expand(1, 2, 8, 8, 9)
    torch.testing.assert_close(convolve(target, image), convolve(source, volume)[..., 4])


def test_dimension_and_channels_change_together() -> None:
    report = adapt(Toy(1, 2).state_dict(), Toy(4, 3))
    assert report.share == 1
    assert report.adapted["first.weight"].count(";") == 1


@pytest.mark.parametrize(("channels", "dim"), [(1, 2), (4, 2), (1, 3), (4, 3)])
def test_the_encoder_of_the_package_gets_all_its_weights(channels: int, dim: int) -> None:
    source = Encoder(1, dim=2, widths=(4, 8))
    target = Encoder(channels, dim=dim, widths=(4, 8))
    report = adapt(source.state_dict(), target)
    assert report.share == 1
    statistics = {"input_mean", "input_std"} if channels != 1 else set()
    assert set(report.fresh) == statistics
    assert target(torch.rand(1, channels, *(8,) * dim))[-1].isfinite().all()


def test_other_widths_stay_fresh_and_are_named() -> None:
    source, target = Toy(1, 2, (4, 6)), Toy(1, 2, (4, 8))
    before = target.second.weight.clone()
    report = adapt(source.state_dict(), target)
    assert torch.equal(target.second.weight, before)
    assert report.fresh["second.weight"] == "[6, 4, 3, 3] in the file, [8, 4, 3, 3] in the encoder"
    assert 0 < report.share < 1
    assert "second.weight" not in report.adapted


def test_what_has_no_place_is_named() -> None:
    state = Toy(1, 2).state_dict() | {"third.weight": torch.ones(2)}
    del state["norm.bias"]
    report = adapt(state, Toy(1, 2))
    assert report.unused == ("third.weight",)
    assert report.fresh == {"norm.bias": "not in the file"}


def test_a_file_of_another_architecture_is_refused() -> None:
    with pytest.raises(DataError, match=r"none of the 1 pre-trained tensors fits .*'layer.w'"):
        adapt({"layer.w": torch.ones(3)}, Toy(1, 2))
