"""Another cohort is seen through the model's own channels, classes, findings and units."""

import numpy as np
import pytest

from penumbra.config import resolve
from penumbra.data.cohort import read_cohort
from penumbra.data.phantom import write_phantom
from penumbra.data.store import Store, build
from penumbra.errors import DataError
from penumbra.study.borrowed import Borrowed
from penumbra.types import Task


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("elsewhere")
    write_phantom(root / "mri", modality="mri", cases=3, seed=0, shape=(16, 16, 8))
    settings = resolve("phantom-mri", size="tiny").data
    return build(read_cohort(root / "mri", modality="mri"), settings, root / "store")


def test_structures_and_channels_follow_their_names(store: Store) -> None:
    channels = (store.task.channels[1], "never-acquired", store.task.channels[0])
    task = Task("mri", channels, ("background", "tumour"), {0: 0, 1: 1}, {"WT": (1,), "X": (1,)})
    case, seen = store[0], Borrowed(store, task, (0.0, 1.0))[0]
    assert np.array_equal(seen.image[0], case.image[1])
    assert np.array_equal(seen.image[2], case.image[0])
    assert not seen.image[1].any()
    assert case.segmentation is not None
    assert seen.segmentation is not None
    assert np.array_equal(seen.segmentation == 1, np.isin(case.segmentation, (1, 2, 3)))
    assert set(Borrowed(store, task, (0.0, 1.0)).task.regions) == {"WT"}


def test_what_mri_shows_is_laid_into_the_ct_window(store: Store) -> None:
    task = Task("ct", store.task.channels, ("background", "t"), {0: 0, 1: 1}, {"WT": (1,)})
    seen = Borrowed(store, task, (-100.0, 300.0))[0]
    assert np.allclose(seen.image, -100 + 400 * np.clip(store[0].image, 0, 1), atol=0.3)


def test_cohorts_without_anything_in_common_are_refused(store: Store) -> None:
    with pytest.raises(DataError, match=r"no structure or finding in common: the model knows liv"):
        Borrowed(store, Task("ct", ("ct",), ("background", "l"), {}, {"liver": (1,)}), (0.0, 1.0))
