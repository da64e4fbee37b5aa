"""A folder to a cohort: find the layout, read it, add what side files say."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

from penumbra.data import (
    brats,
    chexpert,
    datalist,
    manifest,
    medmnist,
    multiatlas,
    tables,
)
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Modality, Part

Format = Literal["auto", "csv", "datalist", "chexpert", "multiatlas", "brats", "medmnist"]
_ID_COLUMNS = ("subject", "case", "participant_id", "id")


@runtime_checkable
class Reader(Protocol):
    """What every layout offers."""

    def recognises(self, root: Path) -> bool: ...

    def read(self, root: Path, modality: Modality) -> Cohort: ...


def _reader(name: Format) -> Reader:
    match name:
        case "csv":
            return manifest
        case "datalist":
            return datalist
        case "chexpert":
            return chexpert
        case "multiatlas":
            return multiatlas
        case "brats":
            return brats
        case "medmnist":
            return medmnist
        case "auto":
            raise ValueError("auto is not a layout")


def read_cohort(root: Path, *, modality: Modality, format: Format = "auto") -> Cohort:
    """The cases below a folder, with parts, sites and protocols where side files give them.

    ``splits.json`` ({"train": [case or patient, ...], "val": ..., "test": ...}) and
    ``participants.csv`` (subject, split, site, protocol, patient) are read for every layout.

    Raises:
        DataError: the folder is missing or empty, its layout is unknown, a side file names a case
            that does not exist, an id occurs twice, or a patient is in two parts.
    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root}: no such folder; check the path after --data")
    if root.is_dir() and not any(root.iterdir()):
        raise DataError(f"{root}: the folder is empty; expected a data set")
    layouts = [f for f in get_args(Format) if f != "auto"]
    if format == "auto":
        found = next((f for f in layouts if _reader(f).recognises(root)), None)
        if found is None:
            raise DataError(
                f"{root}: no known layout ({', '.join(layouts)}); expected BraTS subject folders, "
                "imagesTr/ with labelsTr/, a dataset.json, a train.csv with a Path column, or a "
                "cases.csv; see the documentation of data layouts"
            )
    else:
        found = format
    cohort = _reader(found).read(root, modality)
    cohort = replace(cohort, cases=_with_participants(root, cohort.cases))
    cohort = replace(cohort, cases=_with_splits(root, cohort.cases))
    refuse_doubles(cohort, source=root)
    return cohort


def refuse_doubles(cohort: Cohort, *, source: Path) -> None:
    """Refuse an id that occurs twice and a patient who is in two parts.

    Raises:
        DataError: names the case or patient and its parts.
    """
    seen: set[str] = set()
    parts: dict[str, tuple[Part, str]] = {}
    for case in cohort.cases:
        if case.id in seen:
            raise DataError(f"{source}: case id '{case.id}' occurs twice; give each case its own")
        seen.add(case.id)
        if case.part is None:
            continue
        part, other = parts.setdefault(case.patient, (case.part, case.id))
        if part != case.part:
            raise DataError(
                f"{source}: patient '{case.patient}' is in {part} ({other}) and in {case.part} "
                f"({case.id}); put all cases of a patient into one part"
            )


def _with_participants(root: Path, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    table = root / "participants.csv"
    if not table.is_file():
        return cases
    columns = tables.read_columns(table)
    key = next((c for c in _ID_COLUMNS if c in columns), None)
    if key is None:
        raise DataError(f"{table}: no column {' or '.join(_ID_COLUMNS)} that names the case")
    rows = {row[key]: row for row in tables.read_csv(table)}
    if cases and not rows.keys() & {name for case in cases for name in (case.id, case.patient)}:
        raise DataError(
            f"{table}: none of the {len(cases)} cases is in its column '{key}', nor a patient; the "
            f"first case is {cases[0].id}; name them so, or remove the table"
        )
    return tuple(
        replace(
            case,
            patient=row.get("patient") or case.patient,
            site=row.get("site") or case.site,
            protocol=row.get("protocol") or case.protocol,
            part=tables.part_of(row.get("split", ""), where=f"{table}, {case.id}") or case.part,
        )
        if (row := rows.get(case.id) or rows.get(case.patient))
        else case
        for case in cases
    )


def _with_splits(root: Path, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    file = root / "splits.json"
    if not file.is_file():
        return cases
    tree = tables.read_json(file)
    if not isinstance(tree, dict):
        raise DataError(f'{file}: expected {{"train": [...], "val": [...], "test": [...]}}')
    parts: dict[str, Part] = {}
    for word, names in tree.items():
        part = tables.part_of(str(word), where=str(file))
        if not isinstance(names, list) or part is None:
            raise DataError(f"{file}: '{word}' must be a list of cases")
        for name in map(str, names):
            if parts.setdefault(name, part) != part:
                raise DataError(f"{file}: '{name}' is in {parts[name]} and in {part}; keep one")
    known = {c.id for c in cases} | {c.patient for c in cases}
    unknown = sorted(set(parts) - known)
    if unknown:
        raise DataError(f"{file}: '{unknown[0]}' is no case of {root}; remove it or add its files")
    return tuple(replace(c, part=parts.get(c.id) or parts.get(c.patient) or c.part) for c in cases)
