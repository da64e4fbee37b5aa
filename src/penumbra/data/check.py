"""Read every case once and say what is there, what is wrong, and what training will need."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from penumbra.config import Data
from penumbra.data import medmnist
from penumbra.data.preprocess import Prepared, prepare
from penumbra.data.store import fingerprint
from penumbra.errors import DataError
from penumbra.types import Case, Cohort, Task

_WORKING_COPIES = 4
"""Arrays of an image's size that preparing a case holds at once, measured."""

SPACING_RATIO = 3.0
"""Cases whose voxel sizes differ by more are better resampled to one spacing."""


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """One row of the table; a case that cannot be read has only ``problem``."""

    id: str
    part: str | None
    problem: str | None = None
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    low: float = float("nan")
    high: float = float("nan")
    labelled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stored_bytes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        name = f"{self.id[:32]:<32} {self.part or '-':<6}"
        if self.problem is not None:
            return f"{name} cannot be used"
        spacing = " x ".join(f"{s:.3g}" for s in self.spacing_mm)
        line = (
            f"{name} {' x '.join(map(str, self.shape)):<17} {spacing:<20} "
            f"{self.low:9.4g} {self.high:9.4g}  {', '.join(self.labelled) or '-'}"
        )
        lacking = f"; without {', '.join(self.missing)}" if self.missing else ""
        return line + lacking + "".join(f"; {note}" for note in self.notes)


HEADING = (
    f"{'case':<32} {'part':<6} {'shape':<17} {'spacing mm':<20} {'1 %':>9} {'99 %':>9}  labelled"
)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What ``check`` found.

    Attributes:
        cases: one record per case, in the order of the cohort.
        problems: what must be mended before training; each names file or case and remedy.
        notices: what is worth knowing.
        needs: RAM, disk and time that building the store will take.
    """

    cases: tuple[CaseFacts, ...]
    problems: tuple[str, ...]
    notices: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def rows(self) -> tuple[str, ...]:
        """The table as lines of text: heading, cases, notices, needs."""
        notices = [f"note: {notice}" for notice in self.notices]
        return (HEADING, *map(str, self.cases), *notices, *self.needs)


def check(
    cohort: Cohort, settings: Data, *, progress: Callable[[int, int, str], None] | None = None
) -> CheckReport:
    """Prepare every case in memory, one at a time, and collect what is wrong instead of stopping.

    Geometry agreement, label values, empty and NaN images are those of ``prepare``; also the same
    image in two parts, patients in two parts, and intensities that do not fit the modality.
    """
    facts = []
    for number, case in enumerate(cohort.cases, start=1):
        facts.append(_facts(case, cohort.task, settings))
        if progress is not None:
            progress(number, len(cohort.cases), case.id)
    problems = [f.problem for f in facts if f.problem is not None]
    doubles, twins = _same_images(cohort)
    readable = [f for f in facts if f.problem is None]
    notices = [*twins, *_spacing_notices(readable, cohort.task, settings)]
    notices += _intensity_notices(readable, cohort.task)
    notices += _absent(readable, cohort)
    return CheckReport(
        tuple(facts),
        (*problems, *_shared_patients(cohort), *doubles),
        tuple(notices),
        _needs(readable, cohort, settings),
    )


def _facts(case: Case, task: Task, settings: Data) -> CaseFacts:
    start = time.perf_counter()
    try:
        prepared = prepare(case, task, settings)
    except DataError as error:
        return CaseFacts(case.id, case.part, problem=str(error))
    present = [k for k, c in enumerate(task.channels) if c not in prepared.missing]
    inside = prepared.image[present][:, prepared.body]
    low, high = np.percentile(inside[:, :: max(1, inside.shape[1] // 2**18)], (1, 99))
    return CaseFacts(
        case.id,
        case.part,
        shape=prepared.geometry.file_shape,
        spacing_mm=prepared.geometry.file_spacing_mm,
        low=float(low),
        high=float(high),
        labelled=_labelled(prepared, task),
        missing=prepared.missing,
        notes=prepared.notes,
        stored_bytes=_stored_bytes(prepared),
        seconds=time.perf_counter() - start,
    )


def _labelled(prepared: Prepared, task: Task) -> tuple[str, ...]:
    found: list[str] = []
    if prepared.segmentation is not None:
        values = np.unique(prepared.segmentation)
        found += [task.classes[v] for v in values if v > 0]
    found += [f for f, value in prepared.case.findings.items() if value == 1]
    return tuple(found)


def _stored_bytes(prepared: Prepared) -> int:
    labels = prepared.segmentation
    return (
        prepared.image.size * 2
        + (0 if labels is None else labels.nbytes)
        + prepared.body.nbytes
        + prepared.masks.nbytes
        + prepared.foreground.nbytes
    )


def _shared_patients(cohort: Cohort) -> list[str]:
    parts = defaultdict(set)
    for case in cohort.cases:
        if case.part is not None:
            parts[case.patient].add(case.part)
    return [
        f"{cohort.name}: patient '{patient}' is in {' and '.join(sorted(found))}; "
        "put all cases of a patient into one part"
        for patient, found in sorted(parts.items())
        if len(found) > 1
    ]


def _same_images(cohort: Cohort) -> tuple[list[str], list[str]]:
    """Identical image files: a problem across parts, a notice within one."""
    groups = defaultdict(list)
    for case in cohort.cases:
        for path in dict.fromkeys(case.images.values()):
            if path.exists() or medmnist.holds(path):
                groups[fingerprint(path)].append((case, path))
    problems, notices = [], []
    for found in groups.values():
        cases = {case.id: (case, path) for case, path in found}
        if len(cases) < 2:
            continue
        (first, one), (second, other) = list(cases.values())[:2]
        text = f"{one} of case {first.id} and {other} of case {second.id} are the same image"
        if len({case.part for case, _ in cases.values()} - {None}) > 1:
            problems.append(f"{text} in different parts; keep it in one part")
        else:
            notices.append(text)
    return problems, notices


def _spacing_notices(facts: Sequence[CaseFacts], task: Task, settings: Data) -> list[str]:
    name = "image_size" if task.modality == "xray" else "spacing_mm"
    if getattr(settings, name) is not None:
        return []
    notices = []
    for axis in range(max((len(f.spacing_mm) for f in facts), default=0)):
        values = [f.spacing_mm[axis] for f in facts if len(f.spacing_mm) > axis]
        if max(values) > SPACING_RATIO * min(values):
            notices.append(
                f"voxel spacing along axis {axis} runs from {min(values):.3g} to "
                f"{max(values):.3g} mm; set data.{name} to bring the cases to one grid"
            )
    return notices


def _intensity_notices(facts: Sequence[CaseFacts], task: Task) -> list[str]:
    match task.modality:
        case "ct":
            odd = [f.id for f in facts if f.low > 0 or f.high < 20]
            remedy = "not Hounsfield units? rescale with slope and intercept"
        case "xray" | "mri":
            odd = [f.id for f in facts if f.high - f.low < 0.05]
            remedy = "nearly no contrast; look at the images"
    return [f"{len(odd)} case(s), first {odd[0]}: {remedy}"] if odd else []


def _absent(facts: Sequence[CaseFacts], cohort: Cohort) -> list[str]:
    notices = []
    lacking = Counter(channel for f in facts for channel in f.missing)
    notices += [f"channel {c} is missing in {n} case(s)" for c, n in sorted(lacking.items())]
    if cohort.task.classes:
        without = [c.id for c in cohort.cases if c.segmentation is None]
        if without:
            notices.append(f"{len(without)} case(s) without segmentation, first {without[0]}")
    training = [c for c in cohort.cases if c.part in {"train", None}]
    for finding in cohort.task.findings:
        stated = Counter(c.findings.get(finding) for c in training)
        if not stated[1.0] or not stated[0.0]:
            lacks = "positive" if not stated[1.0] else "stated negative"
            notices.append(f"finding '{finding}' has no {lacks} in the training part")
    return notices


def _needs(facts: Sequence[CaseFacts], cohort: Cohort, settings: Data) -> tuple[str, ...]:
    if not facts:
        return ("nothing could be read",)
    count = len(facts)
    channels = len(cohort.task.channels)
    largest = max(int(np.prod(f.shape)) for f in facts) * channels * 4
    patch = int(np.prod(settings.patch)) * channels * 4
    return (
        f"{count} of {len(cohort.cases)} case(s) can be used",
        f"disk for the store: {_size(sum(f.stored_bytes for f in facts))}",
        f"RAM: {_size(_WORKING_COPIES * largest)} while building the store, "
        f"{_size(patch)} per patch of a batch while training, whatever the number of cases",
        f"time to build the store: about {sum(f.seconds for f in facts):.0f} s on one core",
    )


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} GiB"
