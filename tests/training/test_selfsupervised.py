"""Stage 1 as the loop sees it: what each setting of regions, protocols and extensions asks."""

from dataclasses import replace

import pytest
import torch

from penumbra.augment import two_views
from penumbra.config import Config, resolve
from penumbra.errors import ConfigError
from penumbra.nets.encoder import Encoder
from penumbra.training.loader import Batch
from penumbra.training.selfsupervised import (
    Pretraining,
    begin,
    protocol_classes,
    typical_positions,
    view_box,
)
from penumbra.types import Modality, Task


def config(modality: Modality = "mri", **overrides: object) -> Config:
    settings = {"data.patch": (24, 24), "model.widths": (8, 8, 8)}
    settings |= {f.replace("__", "."): v for f, v in overrides.items()}
    return resolve(f"phantom-{modality}", size="tiny", overrides=settings)


def task(modality: Modality = "mri") -> Task:
    classes, values = ("background", "liver", "spleen"), {0: 0, 1: 1, 2: 2}
    return Task(modality, ("image",), classes=classes, label_values=values)


def batch(axes: int = 2, size: int = 6) -> Batch:
    g = torch.Generator().manual_seed(0)
    labels = torch.zeros(size, 24, 24, dtype=torch.int64)
    labels[::2, 4:20, 4:20], labels[1::2, 6:18, 6:18] = 1, 2
    return {
        "image": 0.2 + 0.5 * torch.rand(size, 1, 24, 24, generator=g),
        "body": torch.ones(size, 24, 24, dtype=torch.bool),
        "valid": torch.ones(size, 24, 24, dtype=torch.bool),
        "position": torch.rand(size, axes, generator=g),
        "extent": torch.full((size, axes), 0.5),
        "protocol": torch.arange(size) % 2,
        "patient": torch.arange(size),
        "segmentation": labels,
    }


def stage(settings: Config, *, axes: int = 2, protocols: int = 2) -> Pretraining:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    cuts = [{"position": torch.rand(axes, generator=g), "extent": torch.ones(axes)} for _ in "123"]
    return begin(
        Encoder(1, dim=2, widths=(8, 8, 8)),
        settings,
        task=task(settings.modality),
        protocols=protocols,
        cuts=cuts,
        spacing_mm=(4.0, 4.0),
    )


@pytest.mark.parametrize("regions", ["position", "overlap", "organs", "lungs"])
def test_every_kind_of_region_is_named_and_learned(regions: str) -> None:
    subject = stage(config(pretrain__regions=regions))
    parts = subject.loss(batch(), 0, torch.Generator().manual_seed(0))
    parts["total"].backward()
    count = {"position": 9, "overlap": 9, "organs": 2, "lungs": 6}[regions]
    assert subject.module.region_counts.shape == (count,)
    assert int(subject.module.region_counts.sum()) == 12, "two views of six images"
    assert float(parts["loss/region"].detach()) > 0
    if regions == "organs":
        assert subject.module.region_counts.tolist() == [6, 6]


def test_regions_that_the_data_do_not_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="lungs needs radiographs"):
        stage(config(pretrain__regions="lungs"), axes=3)


def test_slices_keep_the_position_of_their_axis() -> None:
    parts = stage(config(), axes=3).loss(batch(axes=3), 0, torch.Generator().manual_seed(0))
    assert parts["total"].isfinite()


def test_the_extensions_enter_only_when_they_are_switched_on() -> None:
    plain = stage(config()).loss(batch(), 0, torch.Generator().manual_seed(0))
    assert not {"loss/dense", "loss/restoration"} & set(plain)
    both = stage(config(pretrain__dense=0.5, pretrain__restoration=2.0))
    parts = both.loss(batch(), 0, torch.Generator().manual_seed(0))
    added = 0.5 * parts["loss/dense"] + 2 * parts["loss/restoration"]
    torch.testing.assert_close(parts["total"] - added, plain["total"])
    parts["total"].backward()
    assert both.module.dense is not None
    assert all(p.grad is not None for p in both.module.dense.parameters())


def test_without_two_protocols_the_simulated_acquisition_is_named() -> None:
    subject = stage(config(), protocols=1)
    assert protocol_classes(subject.config, 1) == 7, "as acquired, and six families"
    parts = subject.loss(batch(size=6), 0, torch.Generator().manual_seed(0))
    assert float(parts["loss/protocol"].detach()) > 0
    assert protocol_classes(config(pretrain__views="generic"), 1) == 0
    assert protocol_classes(config(), 3) == 3


def test_the_box_of_a_view_moves_and_shrinks_with_its_crop() -> None:
    settings = config("xray")
    n = 400
    position, extent = torch.full((n, 2), 0.5), torch.ones(n, 2)
    moved = typical_positions(position, extent, settings, (4.0, 4.0))
    assert 0.02 < moved.std() < 0.1
    assert (moved - 0.5).abs().max() < 0.15  # zoom 1.3 leaves 0.12 to every side

    image = torch.rand(1, 1, 24, 24)
    body = torch.ones(1, 24, 24, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    view, _ = two_views(image, modality="xray", generator=generator, body=body)
    half = replace(view, centre=torch.tensor([[0.75, 0.25]]), extent=torch.tensor([0.5]))
    centre, sides = view_box(torch.tensor([[0.4, 0.6, 0.9]]), torch.tensor([[0.4, 0.8, 0.1]]), half)
    torch.testing.assert_close(centre, torch.tensor([[0.5, 0.4, 0.9]]))
    torch.testing.assert_close(sides, torch.tensor([[0.2, 0.4, 0.1]]))
