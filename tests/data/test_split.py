import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penumbra.data import split
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Part, Task


def cohort(patients: list[str], parts: list[Part | None] | None = None) -> Cohort:
    given_parts = parts or [None] * len(patients)
    cases = tuple(
        Case(f"case{k}", p, {"t1": Path("x")}, part=part)
        for k, (p, part) in enumerate(zip(patients, given_parts, strict=True))
    )
    return Cohort("toy", Task("mri", ("t1",)), cases)


def patients_of(drawn: Cohort, part: Part) -> set[str]:
    return {c.patient for c in drawn.cases if c.part == part}


@given(st.lists(st.integers(0, 30), min_size=3), st.integers(0, 5))
def test_no_patient_is_in_two_parts_and_every_part_has_one(numbers: list[int], seed: int) -> None:
    patients = [f"p{n}" for n in numbers]
    if len(set(patients)) < 3:
        return
    drawn = split.draw(cohort(patients), seed=seed)
    parts = [patients_of(drawn, part) for part in ("train", "val", "test")]
    assert all(parts)
    assert sum(map(len, parts)) == len(set(patients))


def test_shares_are_of_patients() -> None:
    drawn = split.draw(cohort([f"p{k}" for k in range(100)]), seed=0)
    assert [len(patients_of(drawn, p)) for p in ("train", "val", "test")] == [60, 15, 25]


def test_the_seed_decides_and_the_order_of_the_cases_does_not() -> None:
    patients = [f"p{k}" for k in range(20)]
    first = patients_of(split.draw(cohort(patients), seed=1), "test")
    assert patients_of(split.draw(cohort(patients[::-1]), seed=1), "test") == first
    assert patients_of(split.draw(cohort(patients), seed=2), "test") != first


def test_given_parts_are_kept_and_a_missing_one_comes_from_training() -> None:
    parts: list[Part | None] = ["train"] * 8 + ["test"] * 2
    drawn = split.draw(cohort([f"p{k}" for k in range(10)], parts), seed=0)
    assert patients_of(drawn, "test") == {"p8", "p9"}
    assert len(patients_of(drawn, "val")) == 2
    complete = split.draw(drawn, seed=5)
    assert complete == drawn


def test_the_few_patients_without_a_part_go_first_where_nobody_is() -> None:
    parts: list[Part | None] = ["train"] * 20 + [None] * 3
    drawn = split.draw(cohort([f"p{k}" for k in range(23)], parts), seed=0)
    assert [len(patients_of(drawn, p)) for p in ("train", "val", "test")] == [20, 1, 2]


def test_cases_of_a_patient_follow_the_part_of_one() -> None:
    drawn = split.draw(cohort(["a", "a", "b", "c", "d"], ["test", None, None, None, None]), seed=0)
    assert [c.part for c in drawn.cases[:2]] == ["test", "test"]


def sites(names: list[str | None], parts: list[Part | None]) -> Cohort:
    made = cohort([str(i) for i in range(len(names))], parts)
    cases = tuple(replace(c, site=name) for c, name in zip(made.cases, names, strict=True))
    return replace(made, cases=cases)


@pytest.mark.parametrize("given_parts", [True, False])
def test_a_site_that_is_held_out_is_the_test_part_and_nothing_else(given_parts: bool) -> None:
    names = ["a", "a", "b", "b", "b", "c", "c", "c", None]
    parts: list[Part | None] = ["train", "test", "val", "train", "test", "val", "train", "test"]
    drawn = split.draw(
        sites(names, [*parts, "test"] if given_parts else [None] * 9), seed=0, holdout_site="a"
    )
    by_part = {p: {c.site for c in drawn.cases if c.part == p} for p in ("train", "val", "test")}
    assert by_part["test"] == {"a"}
    assert len(drawn.cases) == 8  # the one without a site could come from "a"
    assert by_part["train"] == {"b", "c"}
    assert by_part["val"] <= {"b", "c"}
    assert by_part["val"]


@pytest.mark.parametrize(("names", "said"), [(["a", "b"], "a, b"), (["x", "x"], "x")])
def test_a_site_that_cannot_be_held_out_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(DataError, match=f"these are named: {said}"):
        split.leave_out(sites(list(names), [None, None]), "x")


@pytest.mark.parametrize("given_parts", [True, False])
def test_over_all_folds_every_patient_is_tested_once(given_parts: bool) -> None:
    names = [f"p{k // 2}" for k in range(22)]
    whole = cohort(names, ["test" if given_parts else None] * 22)
    tested = []
    for k in range(1, 4):
        drawn = split.draw(whole, seed=0, fold=f"{k}/3")
        parts = [patients_of(drawn, p) for p in ("train", "val", "test")]
        assert all(parts)
        assert sum(map(len, parts)) == 11
        tested += sorted(parts[-1])
    assert sorted(tested) == sorted(set(names))


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(DataError, match=r"3 patient\(s\) cannot be tested in 5 folds"):
        split.draw(cohort(["a", "b", "c"]), seed=0, fold="1/5")


def test_two_patients_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"toy: 2 patient\(s\) cannot be split"):
        split.draw(cohort(["a", "b"]), seed=0)


@given(st.integers(1, 60), st.integers(0, 5))
def test_label_fractions_nest(count: int, seed: int) -> None:
    ids = [f"c{k}" for k in range(count)]
    patients = [f"p{k // 2}" for k in range(count)]
    kept = [set(split.fraction(ids, patients, s, seed)) for s in (0.1, 0.25, 0.5, 1.0)]
    assert kept[0]
    assert kept[0] <= kept[1] <= kept[2] <= kept[3] == set(ids)


def test_a_fraction_counts_patients() -> None:
    ids = [f"c{k}" for k in range(40)]
    patients = [f"p{k // 2}" for k in range(40)]
    assert len(split.fraction(ids, patients, 0.25, 0)) == 10
    with pytest.raises(ValueError, match=r"lies in \(0, 1\], got 0\.0"):
        split.fraction(ids, patients, 0.0, 0)


def test_a_split_file_gives_the_parts_back_and_notices_other_data(tmp_path: Path) -> None:
    drawn = split.draw(cohort([f"p{k}" for k in range(8)]), seed=0)
    path = tmp_path / "split.json"
    assert split.write(drawn, path) == split.digest(drawn)
    bare = replace(drawn, cases=tuple(replace(c, part=None) for c in drawn.cases))
    assert split.read(bare, path) == drawn
    fewer = replace(bare, cases=bare.cases[:-1])
    with pytest.raises(DataError, match=r"split\.json: was written for other cases"):
        split.read(fewer, path)
    for broken in ([1], {"parts": {"train": 3}}):
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=r"split\.json: not a split file"):
            split.read(bare, path)
