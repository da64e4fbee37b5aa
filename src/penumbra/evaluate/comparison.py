"""Two conditions on the same patients: clean and attacked, clean and shifted, arm and arm."""

import math
from collections.abc import Sequence

import numpy as np

from penumbra.evaluate.protocol import ALL, CaseScores, Row, patient_means, row
from penumbra.evaluate.statistics import auroc, bootstrap, paired_bootstrap


def compare(
    cases: Sequence[CaseScores],
    baseline: Sequence[CaseScores],
    *,
    part: str,
    relative: bool = False,
    samples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Mean change of every shared figure against ``baseline``, over the patients in both.

    Rows are named ``<metric>_change``, or ``<metric>_relative_change`` when divided by the
    baseline's mean (-0.2: a fifth is lost). A patient without the figure in either condition is
    left out of it and counted.

    Raises:
        ValueError: the two have no patient in common.
    """
    ending = "_relative_change" if relative else "_change"
    shared = {case.patient for case in cases} & {case.patient for case in baseline}
    if not shared:
        raise ValueError("the compared cases have no patient in common")
    ours = [case for case in cases if case.patient in shared]
    theirs = [case for case in baseline if case.patient in shared]
    known = {key for case in theirs for key in case.scores}
    keys = [key for key in dict.fromkeys(k for c in ours for k in c.scores) if key in known]
    rows = []
    for metric, label in keys:
        now, before = (patient_means(side, (metric, label)) for side in (ours, theirs))
        patients = sorted(now)
        interval = paired_bootstrap(
            [now[p] for p in patients],
            [before[p] for p in patients],
            relative=relative,
            samples=samples,
            seed=seed,
        )
        rows.append(row(part, metric + ending, label, interval))
    return rows


def detect(
    unusual: Sequence[CaseScores],
    usual: Sequence[CaseScores],
    *,
    part: str,
    samples: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """``ood_auroc``: chance that an unusual case is more uncertain than a usual one.

    One row per ``uncertainty/...`` figure. Patients are drawn with both of their conditions.
    """
    both = [(case, 1.0) for case in unusual] + [(case, 0.0) for case in usual]
    patients = [case.patient for case, _ in both]
    names = dict.fromkeys(
        metric for case, _ in both for metric, _ in case.scores if metric.startswith("uncertainty/")
    )
    rows = []
    for name in names:
        pairs = np.array([(case.scores.get((name, ALL), math.nan), y) for case, y in both])
        interval = bootstrap(pairs, patients, statistic=auroc, samples=samples, seed=seed)
        rows.append(row(part, "ood_auroc", name, interval))
    return rows
