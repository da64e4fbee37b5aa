"""Any data set, described by one table: ``cases.csv`` (or a .csv file given as the data).

Columns: ``case``; optional ``patient``, ``site``, ``protocol``, ``split``, ``segmentation``,
``roi``, ``mask:<finding>``. Of the others, a column of files is a channel (a lone one is usually
called ``image``) and a column of 1, 0, -1 and blanks a finding. Paths are relative to the table.
Names of label values come from ``labels.json`` beside it: {"0": "background", "1": "liver"}.
"""

from collections.abc import Mapping
from pathlib import Path

from penumbra.data import labels, masks, tables
from penumbra.data.acquisition import protocol_of
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Modality, Task

NAMES = ("cases.csv", "manifest.csv")
KNOWN = ("case", "patient", "site", "protocol", "split", "segmentation", "roi")
MASK = "mask:"
_STATED = {"1", "0", "-1", "1.0", "0.0", "-1.0", ""}


def recognises(root: Path) -> bool:
    """Whether there is such a table."""
    return _table(root) is not None


def read(root: Path, modality: Modality) -> Cohort:
    """Cases and task of a manifest.

    Raises:
        DataError: no ``case`` column, no channel, a column that is neither files nor findings, a
            mask of no finding, or a file that does not exist.
    """
    table = _table(root)
    if table is None:
        raise DataError(f"{root}: no {' or '.join(NAMES)}")
    rows = tables.read_csv(table, required=("case",))
    columns = [c for c in tables.read_columns(table) if c]
    free = [c for c in columns if c not in KNOWN and not c.startswith(MASK)]
    findings = tuple(c for c in free if {row[c] for row in rows} <= _STATED)
    channels = tuple(c for c in free if c not in findings)
    if not rows or not channels:
        raise DataError(
            f"{table}: {'no column of image files' if rows else 'lists no cases'}; expected "
            "columns case, image (or one per channel), segmentation, split and findings"
        )
    for column in columns:
        finding = column.removeprefix(MASK)
        if finding != column and masks.finding_of(finding) not in (*findings, masks.ROI):
            raise DataError(
                f"{table}: column '{column}' outlines no finding of the table, which has "
                f"{', '.join(findings) or 'none'}; name it after one"
            )
    cases = tuple(
        _case(table, row, channels, findings, modality, f"{table}, line {n}")
        for n, row in enumerate(rows, start=2)
    )
    segmentations = [c.segmentation for c in cases if c.segmentation is not None]
    task = Task(modality, channels, findings=findings)
    if segmentations:
        names = labels.names_of(table.parent, segmentations)
        task = labels.organ_task(modality, channels, names, findings)
    return Cohort(table.parent.name, task, cases)


def _case(
    table: Path,
    row: Mapping[str, str],
    channels: tuple[str, ...],
    findings: tuple[str, ...],
    modality: Modality,
    where: str,
) -> Case:
    def file(column: str) -> Path | None:
        text = row.get(column, "")
        if not text:
            return None
        path = table.parent / text
        if not tables.is_there(path):
            raise DataError(
                f"{where}: column '{column}' names {path}, which does not exist; a column holds "
                "either files or the findings 1, 0, -1 and blank"
            )
        return path

    if not row["case"]:
        raise DataError(f"{where}: 'case' is blank; give each case a name of its own")
    images = {c: path for c in channels if (path := file(c)) is not None}
    if not images:
        raise DataError(f"{where}: case '{row['case']}' has no image")
    return Case(
        id=row["case"],
        patient=row.get("patient") or row["case"],
        images=images,
        segmentation=file("segmentation"),
        findings={f: float(row[f]) for f in findings if row[f]},
        masks={
            c.removeprefix(MASK): path
            for c in row
            if c.startswith(MASK) and (path := file(c)) is not None
        },
        roi=file("roi"),
        site=row.get("site") or None,
        protocol=row.get("protocol") or protocol_of(next(iter(images.values())), modality),
        part=tables.part_of(row.get("split", ""), where=where),
    )


def _table(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.lower() == ".csv" else None
    return next((root / n for n in NAMES if (root / n).is_file()), None)
