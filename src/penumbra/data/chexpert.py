"""CheXpert-like tables: ``train.csv``, ``valid.csv``, ``test.csv`` with one film per row.

Columns: Path, Sex, Age, Frontal/Lateral, AP/PA, then one column per finding with
1 present, 0 absent, -1 uncertain, blank not stated. Beside them, when present:
``metadata.csv`` (Path, patient, source), ``regions.csv`` (Path, region, mask),
``boxes.csv`` (Path, finding, x, y, width, height) and CheXlocalize's ``gt_*.json``.
"""

import re
from pathlib import Path

from penumbra.data import masks, tables
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Modality, Part, Task

PARTS: dict[str, Part] = {
    "train.csv": "train",
    "valid.csv": "val",
    "val.csv": "val",
    "test.csv": "test",
}
DESCRIPTION = {"path", "patient", "sex", "age", "frontal/lateral", "ap/pa", "site", "split"}
"""Columns that describe the film; every other column is a finding."""

CHANNEL = "radiograph"
STATED = {1.0, 0.0, -1.0}

REGION_FINDINGS: dict[str, tuple[str, ...]] = {
    "ground_glass_opacities": ("Lung Opacity",),
    "consolidation": ("Lung Opacity", "Consolidation"),
    "pleural_effusion": ("Pleural Effusion",),
    "pneumothorax": ("Pneumothorax",),
    "endotracheal_tube": ("Support Devices",),
    "central_venous_line": ("Support Devices",),
    "nasogastric_tube": ("Support Devices",),
    "monitoring_probes": ("Support Devices",),
    "tubings": ("Support Devices",),
    "left_lung": (masks.ROI,),
    "right_lung": (masks.ROI,),
}
"""Outlined region -> the findings whose expert mask it belongs to."""

_NIH_PATIENT = re.compile(r"^(\d{8})_\d{3}$")


def recognises(root: Path) -> bool:
    """Whether a split table lies in the folder."""
    return any((root / name).is_file() for name in PARTS)


def read(root: Path, modality: Modality) -> Cohort:
    """Cases with findings, and expert regions where a side file outlines them.

    A lone ``valid.csv`` (CheXlocalize) is a cohort without a training part.

    Raises:
        DataError: no table, no Path column, tables with different findings, a cell that is not 1,
            0, -1 or blank, a film that does not exist.
    """
    found = [root / name for name in PARTS if (root / name).is_file()]
    if not found:
        raise DataError(f"{root}: none of {', '.join(PARTS)} is there")
    findings = _findings(found)
    side = _side_files(root, findings)
    cases = [case for table in found for case in _read_table(root, table, findings, side)]
    if not cases:
        raise DataError(f"{root}: its tables {', '.join(t.name for t in found)} list no films")
    return Cohort(root.name, Task(modality, (CHANNEL,), findings=findings), tuple(cases))


def _findings(found: list[Path]) -> tuple[str, ...]:
    columns = {table: tables.read_columns(table) for table in found}
    for table, names in columns.items():
        if "Path" not in names:
            raise DataError(
                f"{table}: no column 'Path'; a CheXpert table has Path, Sex, Age, "
                f"Frontal/Lateral, AP/PA and one column per finding, this one has "
                f"{', '.join(names[:8]) or 'none'}"
            )
    findings = {
        table: tuple(n for n in names if n and n.lower() not in DESCRIPTION)
        for table, names in columns.items()
    }
    first = found[0]
    for table in found[1:]:
        if set(findings[table]) != set(findings[first]):
            odd = sorted(set(findings[table]) ^ set(findings[first]))
            raise DataError(
                f"{table}: its findings differ from {first.name} in {', '.join(odd[:5])}; "
                "give all tables the same columns"
            )
    if not findings[first]:
        raise DataError(f"{first}: no finding columns after Path, Sex, Age, Frontal/Lateral, AP/PA")
    return findings[first]


def _read_table(root: Path, table: Path, findings: tuple[str, ...], side: "_Side") -> list[Case]:
    cases = []
    for number, row in enumerate(tables.read_csv(table, required=("Path",)), start=2):
        where = f"{table}, line {number}"
        film = masks.film_id(row["Path"])
        description = side.metadata.get(film, {})
        cases.append(
            Case(
                id=film,
                patient=row.get("Patient")
                or row.get("patient")
                or description.get("patient")
                or patient_of(row["Path"]),
                images={CHANNEL: _resolve(root, row["Path"], where)},
                findings=_stated(row, findings, where),
                masks=side.masks.get(film, {}),
                site=row.get("Site") or row.get("site") or description.get("source") or None,
                protocol=_view(row),
                part=PARTS[table.name],
            )
        )
    return cases


def patient_of(path: str) -> str:
    """The patient in a film's path: ``patient00001`` of CheXpert, ``00000245_003`` of ChestX-ray14.

    Example:
        >>> patient_of("nih/train/00000245_003.png")
        '00000245'
    """
    for part in Path(path).parts:
        if part.startswith("patient"):
            return part
    stem = Path(path).stem
    nih = _NIH_PATIENT.match(stem)
    return nih[1] if nih else stem


def _view(row: dict[str, str]) -> str | None:
    view = row.get("Frontal/Lateral", "")
    if view.lower() == "lateral":
        return "Lateral"
    return row.get("AP/PA") or None


def _stated(row: dict[str, str], findings: tuple[str, ...], where: str) -> dict[str, float]:
    values = {}
    for finding in findings:
        if row[finding] == "":
            continue
        value = tables.number(row[finding], where=f"{where}, {finding}")
        if value not in STATED:
            raise DataError(f"{where}, {finding}: {row[finding]} is not 1, 0, -1 or blank")
        values[finding] = value
    return values


def _resolve(root: Path, text: str, where: str) -> Path:
    """Paths are relative to the table's folder, to the folder above, or to some folder above."""
    parts = Path(text.replace("\\", "/")).parts
    tries = [root.parent / Path(*parts), *(root / Path(*parts[k:]) for k in range(len(parts)))]
    for path in tries:
        if tables.is_file(path):
            return path
    raise DataError(
        f"{where}: film '{text}' does not exist in {root} or {root.parent}; check the Path column"
    )


class _Side:
    """Side files of a folder, by film."""

    def __init__(self) -> None:
        self.metadata: dict[str, dict[str, str]] = {}
        self.masks: dict[str, dict[str, Path]] = {}

    def add(self, film: str, name: str, path: Path) -> None:
        self.masks.setdefault(film, {})[name] = path


def _side_files(root: Path, findings: tuple[str, ...]) -> _Side:
    side = _Side()
    if (root / "metadata.csv").is_file():
        rows = tables.read_csv(root / "metadata.csv", required=("Path",))
        side.metadata = {masks.film_id(row["Path"]): row for row in rows}
    if (root / "regions.csv").is_file():
        _add_regions(root, side, findings)
    if (root / "boxes.csv").is_file():
        for row in tables.read_csv(root / "boxes.csv", required=("Path", "finding")):
            if row["finding"] in findings:
                side.add(masks.film_id(row["Path"]), row["finding"], root / "boxes.csv")
    for outlines in sorted(root.glob("gt_segmentations*.json")) or sorted(
        root.glob("gt_annotations*.json")
    ):
        for film, names in masks.outlined_findings(outlines).items():
            for name in sorted(names.intersection(findings)):
                side.add(film, name, outlines)
    return side


def _add_regions(root: Path, side: _Side, findings: tuple[str, ...]) -> None:
    table = root / "regions.csv"
    rows = tables.read_csv(table, required=("Path", "region", "mask"))
    for number, row in enumerate(rows, start=2):
        if not row["mask"]:
            continue
        path = _resolve(root, row["mask"], f"{table}, line {number}")
        # A region may be named after the finding itself, or after what the reader outlined.
        own = (row["region"],) if row["region"] in findings else ()
        film = masks.film_id(row["Path"])
        for finding in REGION_FINDINGS.get(row["region"], own):
            if finding in findings or finding == masks.ROI:
                name = f"{finding}/{row['region']}"
                again = name in side.masks.get(film, {})  # a region outlined in several pieces
                side.add(film, f"{name}/{number}" if again else name, path)
