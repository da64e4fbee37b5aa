"""Parts by patient, label fractions that nest, and the file that makes them part of a result."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from penumbra.data import tables
from penumbra.data.cohort import refuse_doubles
from penumbra.errors import DataError
from penumbra.files import write_text
from penumbra.types import Cohort, Part

PARTS: tuple[Part, ...] = ("train", "val", "test")


def draw(
    cohort: Cohort,
    *,
    seed: int,
    val: float = 0.15,
    test: float = 0.25,
    holdout_site: str | None = None,
    fold: str | None = None,
) -> Cohort:
    """Every case in a part, all cases of a patient in the same one.

    Given parts are kept. Patients without one are drawn at random; when every patient has one but
    validation or test is missing, it is drawn from the training patients. Shares are of all
    patients, and a drawn part has at least one as long as there are patients to draw.

    Args:
        holdout_site: this site's patients are the test part, and no others (``leave_out``).
        fold: ``k/n``, the k-th of n parts of the patients is the test part (``leave_fold``).

    Raises:
        DataError: a patient is in two parts already, there are fewer than three patients, no case
            names the site to hold out, or there are fewer patients than folds.
    """
    if fold is not None:
        cohort = leave_fold(cohort, *map(int, fold.split("/")), seed=seed)
    if holdout_site is not None:
        cohort = leave_out(cohort, holdout_site)
    refuse_doubles(cohort, source=Path(cohort.name))
    parts: dict[str, Part | None] = {}
    for case in cohort.cases:
        parts[case.patient] = parts.get(case.patient) or case.part
    if not set(PARTS) <= set(parts.values()) and len(parts) < 3:
        raise DataError(
            f"{cohort.name}: {len(parts)} patient(s) cannot be split into train, val and test; "
            "three are needed at least"
        )
    free = sorted(p for p, part in parts.items() if part is None)
    taken: Sequence[Part] = [part for part in parts.values() if part is not None]
    pool = free or sorted(p for p, part in parts.items() if part == "train")
    order = [pool[k] for k in np.random.default_rng((seed, 1)).permutation(len(pool))]
    drawn: dict[str, Part] = dict.fromkeys(free, "train")
    shares: dict[Part, float] = {"test": test, "val": val}
    if holdout_site is not None:
        del shares["test"]
    empty = set(PARTS) - set(taken)
    for part, share in shares.items():
        have = taken.count(part)
        if not free and have:
            continue
        wanted = max(round(share * len(parts)), 1) - have
        # Others without anybody come first; else one patient stays in training.
        reserved = len(empty - {part}) or int(have > 0 or not free)
        for _ in range(min(wanted, len(order) - reserved)):
            drawn[order.pop()] = part
        empty.discard(part)
    final = {p: drawn.get(p) or part for p, part in parts.items()}
    return replace(cohort, cases=tuple(replace(c, part=final[c.patient]) for c in cohort.cases))


def leave_out(cohort: Cohort, site: str) -> Cohort:
    """One site's patients as the test part; the other sites train, their test patients too.

    Who was seen at the site is its patient. Cases that name no site could come from it, so they
    are left out altogether, as are cases that the site's patients have elsewhere.

    Raises:
        DataError: no case names the site, or no case names another.
    """
    sites = sorted({case.site for case in cohort.cases if case.site})
    if site not in sites or len(sites) < 2:
        raise DataError(
            f"{cohort.name}: cannot hold out the site '{site}'; two sites or more are needed, and "
            f"these are named: {', '.join(sites) or 'none'}"
        )
    theirs = {case.patient for case in cohort.cases if case.site == site}
    cases = []
    for case in cohort.cases:
        if case.site == site:
            cases.append(replace(case, part="test"))
        elif case.site and case.patient not in theirs:
            cases.append(replace(case, part="train" if case.part == "test" else case.part))
    return replace(cohort, cases=tuple(cases))


def leave_fold(cohort: Cohort, which: int, folds: int, *, seed: int) -> Cohort:
    """One of n equal parts of the patients as the test part; all else trains.

    Over ``which`` of 1 to ``folds`` every patient is tested once. The cohort's own parts are set
    aside.

    Raises:
        DataError: there are fewer patients than folds.
    """
    patients = sorted({case.patient for case in cohort.cases})
    if len(patients) < folds:
        raise DataError(
            f"{cohort.name}: {len(patients)} patient(s) cannot be tested in {folds} folds; "
            "ask for fewer"
        )
    order = np.random.default_rng((seed, 3)).permutation(len(patients))
    tested = {patients[k] for k in order[which - 1 :: folds]}
    return replace(
        cohort,
        cases=tuple(
            replace(case, part="test" if case.patient in tested else "train")
            for case in cohort.cases
        ),
    )


def fraction(
    case_ids: Sequence[str], patients: Sequence[str], share: float, seed: int
) -> tuple[str, ...]:
    """The cases of a share of the patients; a smaller share is contained in every larger one.

    At least one patient is kept. The order of ``case_ids`` is kept.

    Raises:
        ValueError: the share is not in (0, 1].

    Example:
        >>> fraction(["a1", "a2", "b1"], ["a", "a", "b"], 1.0, seed=0)
        ('a1', 'a2', 'b1')
    """
    if not 0 < share <= 1:
        raise ValueError(f"a label fraction lies in (0, 1], got {share}")
    unique = sorted(set(patients))
    order = np.random.default_rng((seed, 2)).permutation(len(unique))
    count = min(len(unique), max(1, math.ceil(share * len(unique) - 1e-9)))
    kept = {unique[k] for k in order[:count]}
    return tuple(c for c, p in zip(case_ids, patients, strict=True) if p in kept)


def digest(cohort: Cohort) -> str:
    """Hash of who is in which part; it stands in every result."""
    rows = sorted((c.id, c.patient, c.part) for c in cohort.cases)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def write(cohort: Cohort, path: Path) -> str:
    """Write ``split.json`` (case ids per part, and the hash) and give the hash."""
    tree = {
        "cohort": cohort.name,
        "hash": digest(cohort),
        "parts": {part: [c.id for c in cohort.cases if c.part == part] for part in PARTS},
    }
    write_text(path, json.dumps(tree, indent=1))
    return str(tree["hash"])


def read(cohort: Cohort, path: Path) -> Cohort:
    """The cohort with the parts of a ``split.json``.

    Raises:
        DataError: the file is damaged, or was written for other cases or patients.
    """
    tree = tables.read_json(path)
    parts = tree.get("parts") if isinstance(tree, dict) else None
    if not isinstance(parts, dict) or not all(isinstance(ids, list) for ids in parts.values()):
        raise DataError(f"{path}: not a split file; remove it and split again")
    part_by_case = {
        str(case): tables.part_of(word, where=str(path))
        for word, ids in parts.items()
        for case in ids
    }
    result = replace(
        cohort, cases=tuple(replace(c, part=part_by_case.get(c.id)) for c in cohort.cases)
    )
    refuse_doubles(result, source=path)
    if digest(result) != tree.get("hash"):
        raise DataError(
            f"{path}: was written for other cases or patients than {cohort.name} has now; "
            "remove it to split again, or restore the data"
        )
    return result
