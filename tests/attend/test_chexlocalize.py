"""CheXlocalize's formats, written."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from penumbra.attend.chexlocalize import (
    encode_rle,
    full_size_mask,
    write_heat_map,
    write_segmentations,
)
from penumbra.data.masks import decode_rle

SAMPLE = Path(__file__).parents[2] / ".." / "shared" / "data" / "chexlocalize_sample"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (40, 300)])
def test_encoding_then_decoding_gives_the_mask_back(share: float, shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    encoded = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(encoded["counts"], shape), mask)


@pytest.mark.real
@pytest.mark.skipif(not SAMPLE.exists(), reason="the CheXlocalize sample is not there")
def test_real_outlines_are_encoded_to_the_very_same_text() -> None:
    tree = json.loads((SAMPLE / "gt_segmentations_val.json").read_text())
    film = next(iter(tree))
    checked = 0
    for outline in list(tree[film].values()):
        rows, columns = outline["size"]
        mask = decode_rle(outline["counts"], (rows, columns))
        if mask.any():
            assert encode_rle(mask) == outline
            checked += 1
    assert checked > 0


def test_segmentations_are_written_under_their_names(tmp_path: Path) -> None:
    mask = np.eye(4, dtype=bool)
    path = tmp_path / "pred.json"
    write_segmentations(path, {"patient1_study1_view1_frontal": {"Lung Opacity": mask}})
    tree = json.loads(path.read_text())
    entry = tree["patient1_study1_view1_frontal"]["Airspace Opacity"]
    np.testing.assert_array_equal(decode_rle(entry["counts"], (4, 4)), mask)


def test_a_heat_map_is_what_their_script_expects(tmp_path: Path) -> None:
    heat = torch.rand(5, 7)
    path = write_heat_map(
        tmp_path,
        "patient1_study1_view1_frontal",
        "Edema",
        heat,
        probability=0.7,
        full_size=(50, 70),
    )
    assert path.name == "patient1_study1_view1_frontal_Edema_map.pkl"
    record = pickle.loads(path.read_bytes())  # our own file, in a test
    torch.testing.assert_close(record["map"], heat[None, None])
    assert record["cxr_dims"] == (70, 50)
    assert record["task"] == "Edema"


def test_a_map_is_cut_at_the_threshold_in_the_films_size() -> None:
    heat = torch.zeros(4, 4)
    heat[:, 2:] = 1.0
    mask = full_size_mask(heat, threshold=0.5, size=(8, 8))
    assert mask.shape == (8, 8)
    np.testing.assert_array_equal(mask[0], [False] * 4 + [True] * 4)
