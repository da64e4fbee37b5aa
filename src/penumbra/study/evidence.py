"""All sealed rows of a study, by what they are about."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penumbra.study.results import Group, groups
from penumbra.study.rows import read_rows


@dataclass(frozen=True)
class Evidence:
    """What a study found.

    Attributes:
        cells: arms at fractions on the held-out patients.
        explained: the same arms' maps on annotated cases, our gates and post-hoc methods.
        elsewhere: name of another cohort -> arms on it.
        heads: what a second head costs, one record per seed.
    """

    cells: list[Group]
    explained: list[Group] = field(default_factory=list)
    elsewhere: dict[str, list[Group]] = field(default_factory=dict)
    heads: list[dict[str, Any]] = field(default_factory=list)

    @property
    def full(self) -> float:
        """The largest share of labels."""
        return max(group.fraction for group in self.cells)


def gather(out: Path) -> Evidence:
    """Read every row of a study.

    Raises:
        DataError: there is no cell, a row was changed, or the cells stem from several splits.
    """
    cells = groups(read_rows(out / "rows"))
    others = sorted(p for p in (out / "transfer").glob("*") if p.is_dir())
    return Evidence(
        cells,
        explained=groups(read_rows(out / "explanations", needed=False)),
        elsewhere={path.name: groups(read_rows(path, needed=False)) for path in others},
        heads=read_rows(out / "second-head", needed=False),
    )
