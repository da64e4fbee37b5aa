"""Pairs of views, supervised augmentation and graded shifts, on every modality and dimension."""

import pytest
import torch

from penumbra.augment import ACQUISITION, INTENSITY, augment, families, shift, two_views
from penumbra.augment.compose import FAMILIES
from penumbra.augment.profile import LIMITS, TABLES, profile_for
from penumbra.augment.resample import resample
from penumbra.types import Modality

MODALITIES: tuple[Modality, ...] = ("mri", "ct", "xray")
SHAPES = [(2, 1, 32, 40), (3, 2, 17, 12, 9)]


def picture(shape: tuple[int, ...], modality: Modality, seed: int = 0) -> torch.Tensor:
    """A smooth ellipsoid with texture, in stored units."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape[2:]], indexing="ij")
    inside = (sum(a**2 for a in axes) < 0.7).float()
    image = inside * (0.5 + 0.2 * torch.rand(shape, generator=generator))
    return image * 1200 - 1000 if modality == "ct" else image * 0.9 + 0.1


def body_of(image: torch.Tensor, modality: Modality) -> torch.Tensor:
    return image[:, 0] > (-900 if modality == "ct" else 0.2)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_two_views_differ_and_stay_in_range(shape: tuple[int, ...], modality: Modality) -> None:
    image = picture(shape, modality)
    generator = torch.Generator().manual_seed(1)
    a, b = two_views(image, modality=modality, generator=generator, body=body_of(image, modality))
    assert not a.acquisition.any(), "the first view keeps its protocol"
    assert b.acquisition.max() <= len(ACQUISITION[modality])
    for view in (a, b):
        assert view.image.shape == image.shape
        assert view.image.isfinite().all()
        assert view.image.min() >= LIMITS[modality][0]
        assert view.image.max() <= LIMITS[modality][1]
        assert ((view.centre >= 0) & (view.centre <= 1)).all()
    assert not torch.equal(a.image, b.image)


def test_a_view_says_what_was_done_to_it() -> None:
    image = picture((12, 1, 32, 40), "mri")
    body = body_of(image, "mri")
    generator = torch.Generator().manual_seed(1)
    for view in two_views(image, modality="mri", generator=generator, body=body):
        moved = resample(image, view.positions)
        assert torch.equal(moved, view.clean)
        share = view.hidden.flatten(1).sum(1) / view.body.flatten(1).sum(1)
        assert ((share > 0.1) & (share < 0.35)).all()
        # the centre voxels of the positions are where the centre is said to be
        middle = view.positions[:, 15:17, 19:21].mean((1, 2)).flip(-1) / 2 + 0.5
        assert (middle - view.centre).abs().max() < 0.15  # the deformation moves it further
    assert len(view.acquisition.unique()) > 2, "families and untouched images"


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_same_seed_gives_the_same_views(modality: Modality) -> None:
    image = picture(SHAPES[0], modality)
    body = body_of(image, modality)
    pairs = [
        two_views(image, modality=modality, generator=torch.Generator().manual_seed(5), body=body)
        for _ in range(2)
    ]
    for one, other in zip(*pairs, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.body, other.body)


def test_generic_views_neither_deform_nor_change_the_protocol(generator: torch.Generator) -> None:
    image = picture(SHAPES[0], "mri")
    views = two_views(
        image, modality="mri", generator=generator, body=body_of(image, "mri"), kind="generic"
    )
    assert not any(view.acquisition.any() for view in views)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_probability_zero_changes_nothing(shape: tuple[int, ...], modality: Modality) -> None:
    image = picture(shape, modality)
    generator = torch.Generator().manual_seed(0)
    labels = body_of(image, modality).long()
    masks = labels[:, None].float()
    got = augment(image, labels, masks, modality=modality, generator=generator, probability=0.0)
    for before, after in zip((image, labels, masks), got, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_labels_and_masks_move_with_the_image(shape: tuple[int, ...], modality: Modality) -> None:
    image = picture(shape, modality)
    labels = body_of(image, modality).long()
    masks = labels[:, None].float()
    _, moved, moved_masks = augment(
        image,
        labels,
        masks,
        modality=modality,
        generator=torch.Generator().manual_seed(3),
        probability=1.0,
    )
    assert moved is not None
    assert moved_masks is not None
    assert set(moved.unique().tolist()) <= {-1, 0, 1}
    assert {0, 1} <= set(moved.unique().tolist())
    seen = moved >= 0
    assert ((moved_masks[:, 0] > 0.5) == (moved == 1))[seen].float().mean() > 0.97


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_family_shifts_more_with_severity_and_not_at_zero(
    shape: tuple[int, ...], modality: Modality
) -> None:
    image = picture(shape, modality)
    for family in families(modality):
        change = []
        for severity in (0, 1, 5):
            moved = shift(
                image,
                family=family,
                severity=severity,
                modality=modality,
                generator=torch.Generator().manual_seed(0),
            )
            assert moved.isfinite().all(), family
            change.append(float((moved - image).abs().mean()))
        assert change[0] == 0, family
        assert 0 < change[1] < change[2], (family, change)


def test_an_unknown_family_names_the_ones_there_are(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match=r"no family 'metal' for mri; there are: .*rician"):
        shift(
            picture(SHAPES[0], "mri"),
            family="metal",
            severity=1,
            modality="mri",
            generator=generator,
        )


def test_a_severity_beyond_five_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="severity 6 is not one of 0"):
        shift(
            picture(SHAPES[0], "mri"),
            family="gamma",
            severity=6,
            modality="mri",
            generator=generator,
        )


def test_a_probability_beyond_one_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match=r"probability 1.5 is not between"):
        augment(picture(SHAPES[0], "mri"), modality="mri", generator=generator, probability=1.5)


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_family_has_a_row_and_every_row_a_reason(modality: Modality) -> None:
    for name in families(modality):
        assert name in FAMILIES
        assert name in TABLES[modality]
    for name, row in TABLES[modality].items():
        assert len(row.why) > 20, name
        assert row.low <= row.high


def test_a_spacing_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit an image of 3 axes"):
        profile_for("mri", (1.0, 1.0)).spacing(3)


@pytest.mark.parametrize("modality", ["mri", "ct", "xray"])
def test_a_family_that_is_held_out_of_training_is_never_drawn(
    modality, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seen:
        @classmethod
        def sample(cls, *_):
            raise AssertionError("a held-out family was drawn")

    held_out = (INTENSITY[modality][0], *ACQUISITION[modality][:-1])
    for name in held_out:
        monkeypatch.setitem(FAMILIES, name, Seen)
    image = picture((6, 1, 24, 24), modality)
    augment(image, modality=modality, generator=generator, probability=1.0, held_out=held_out)
    body = torch.ones(6, 24, 24, dtype=torch.bool)
    two_views(image, modality=modality, generator=generator, body=body, held_out=held_out)
