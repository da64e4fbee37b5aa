"""What every family owes, whatever the shape, the type and the process."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from penumbra.augment import augment, families, two_views
from penumbra.augment.compose import FAMILIES
from penumbra.augment.profile import LIMITS, TABLES, profile_for
from penumbra.types import Modality

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ALL = sorted({(m, f) for m in TABLES for f in families(m)})
shapes = st.tuples(
    st.integers(1, 3),
    st.integers(1, 4),
    st.lists(st.integers(1, 23), min_size=2, max_size=3),
)
spacings = st.lists(st.floats(0.3, 8.0), min_size=3, max_size=3)


def stored(shape: tuple[int, ...], modality: Modality, seed: int) -> torch.Tensor:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    low, high = (-1000.0, 1500.0) if modality == "ct" else (0.0, 1.0)
    return image * (high - low) + low


@pytest.mark.parametrize(("modality", "family"), ALL)
@given(shape=shapes, spacing=spacings, seed=st.integers(0, 999))
@settings(max_examples=5, deadline=None)
def test_families_keep_shape_type_and_sanity(
    modality: Modality,
    family: str,
    shape: tuple[int, int, list[int]],
    spacing: list[float],
    seed: int,
) -> None:
    size = (shape[0], shape[1], *shape[2])
    rows = profile_for(modality, tuple(spacing[: len(shape[2])]))
    image = stored(size, modality, seed)
    kept = image.clone()
    params = FAMILIES[family].sample(torch.Generator().manual_seed(seed), size, rows)
    seen = params.apply(image)
    assert seen.shape == image.shape
    assert seen.dtype == image.dtype
    assert seen.isfinite().all()
    assert torch.equal(image, kept), "the input is left alone"
    assert torch.equal(params.apply(image), seen), "all chance lies in the parameters"


@pytest.mark.parametrize(("modality", "family"), ALL)
def test_neutral_parameters_are_the_identity(modality: Modality, family: str) -> None:
    image = stored((2, 2, 18, 21), modality, 0)
    rows = profile_for(modality, (4.0, 3.0)).at(family, 0)
    params = FAMILIES[family].sample(torch.Generator().manual_seed(0), image.shape, rows)
    scale = LIMITS[modality][1] - LIMITS[modality][0]
    torch.testing.assert_close(params.apply(image) / scale, image / scale, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(("modality", "family"), ALL)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_families_run_in_the_type_and_on_the_device_of_the_image(
    modality: Modality, family: str, device: str, dtype: torch.dtype
) -> None:
    image = stored((2, 1, 12, 10), modality, 0).to(device, dtype)
    rows = profile_for(modality, (4.0, 4.0))
    params = FAMILIES[family].sample(torch.Generator().manual_seed(0), image.shape, rows)
    seen = params.apply(image)
    assert seen.dtype == dtype
    assert seen.device.type == device


@given(shape=shapes, seed=st.integers(0, 999), modality=st.sampled_from(sorted(TABLES)))
@settings(max_examples=12, deadline=None)
def test_any_image_has_two_views_and_an_augmentation(
    shape: tuple[int, int, list[int]], seed: int, modality: Modality
) -> None:
    size = (shape[0], shape[1], *shape[2])
    image = stored(size, modality, seed)
    body = torch.ones(size[0], *size[2:], dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for view in two_views(image, modality=modality, generator=generator, body=body):
        assert view.image.shape == image.shape
        assert view.image.isfinite().all()
    seen, labels, _ = augment(image, body.long(), modality=modality, generator=generator)
    assert seen.isfinite().all()
    assert labels is not None
    assert set(labels.unique().tolist()) <= {-1, 1}


class Views(Dataset[torch.Tensor]):
    """Every item seeds its own generator with its key, as the pipeline does."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: int) -> torch.Tensor:
        image = stored((1, 1, 24, 24), "mri", key)
        generator = torch.Generator().manual_seed(key)
        body = torch.ones(1, 24, 24, dtype=torch.bool)
        first, second = two_views(image, modality="mri", generator=generator, body=body)
        return torch.cat([first.image, second.image])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # fewer cores than workers
def test_one_and_four_workers_give_the_same_views() -> None:
    batches = []
    for workers in (0, 1, 4):
        loader = DataLoader(Views(), batch_size=1, num_workers=workers, generator=torch.Generator())
        batches.append(torch.cat(list(loader)))
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])
