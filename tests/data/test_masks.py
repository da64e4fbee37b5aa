from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.data.masks import decode_rle, film_id, read_mask
from penumbra.errors import DataError
from penumbra.types import Case


def encode_rle(mask: np.ndarray) -> str:
    """COCO's encoder, written from its description, as the reference."""
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    text = ""
    for k, run in enumerate(runs):
        x = run - runs[k - 2] if k > 2 else run
        more = True
        while more:
            bits = x & 0x1F
            x >>= 5
            more = x != -1 if bits & 0x10 else x != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 40))
def test_run_lengths_decode_to_what_was_encoded(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, columns)) < rng.random()
    mask[: rows // 2] = mask[:1]
    np.testing.assert_array_equal(decode_rle(encode_rle(mask), (rows, columns)), mask)


@pytest.mark.parametrize("counts", ["", "1", "o", "zzzz", "\x01"])
def test_broken_run_lengths_are_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="run lengths"):
        decode_rle(counts, (5, 5))


@pytest.mark.parametrize(
    ("path", "film"),
    [
        ("CheXpert-v1.0/train/patient00001/study2/view1_frontal.jpg",) * 1
        + ("patient00001_study2_view1_frontal",),
        ("nih/train/00000211_010.png", "00000211_010"),
        ("film.jpg", "film"),
    ],
)
def test_films_are_named_as_chexlocalize_names_them(path: str, film: str) -> None:
    assert film_id(path) == film


def test_a_box_is_drawn_where_it_lies(chexpert: Path) -> None:
    case = Case("patient00001_study1_view1_frontal", "p", {})
    mask = read_mask(case, "Edema", chexpert / "boxes.csv", (40, 30))
    expected = np.zeros((40, 30), dtype=bool)
    expected[4:9, 3:13] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_mask_of_another_size_is_refused(chexpert: Path) -> None:
    case = Case("a", "p", {})
    with pytest.raises(DataError, match=r"ggo\.png: the mask 'Edema/x' is 40x30, .* 40x31"):
        read_mask(case, "Edema/x", chexpert / "masks" / "ggo.png", (40, 31))


def test_an_outline_claiming_a_wall_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gt_segmentations.json"
    path.write_text('{"a": {"Edema": {"size": [2000000, 2000000], "counts": "1"}}}')
    with pytest.raises(DataError, match=r"the header claims a size of 2000000x2000000"):
        read_mask(Case("a", "p", {}), "Edema", path, (4, 4))
