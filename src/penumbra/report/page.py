"""One run folder to one self-contained page."""

import math
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from penumbra.files import write_text
from penumbra.pages import render
from penumbra.report import cases, figures, overlays, tables
from penumbra.report.posterior import posterior
from penumbra.report.read import RunFolder, read_run
from penumbra.report.words import spell

MOST_CASES = 60


def build(run: Path) -> Path:
    """The path of ``report.html``, written anew from what the run folder holds.

    The page needs nothing beside itself: figures and images are inline and nothing is fetched.
    The same folder gives the same bytes. A part that is missing is named as missing.

    Raises:
        DataError: the folder holds no run, or one of its files is broken.
    """
    found = read_run(run)
    write_text(run / "report.html", render("report", "page.html.j2", _context(found)))
    return run / "report.html"


def _context(run: RunFolder) -> dict[str, Any]:
    rows = run.metrics.get("rows", [])
    environment = run.metrics.get("environment", {})
    listed = cases.case_list(run.cases)
    parts = [part for part in cases.PARTS if any(row.get("part") == part for row in rows)]
    head, body = cases.cohort(run)
    return {
        "spell": spell,
        "name": str(run.config.get("name") or run.metrics.get("name") or run.path.name),
        "facts": _facts(run),
        "command": str(environment.get("command") or _command(run)),
        "config": yaml.safe_dump(dict(run.config), sort_keys=False) if run.config else "",
        "environment": environment,
        "cohort_head": head,
        "cohort": body,
        "warnings": run.metrics.get("warnings", []),
        "headline": tables.headline(rows),
        "tables": tables.tables(rows, part="test"),
        "other_parts": {p: tables.tables(rows, part=p) for p in parts if p != "test"},
        "conditions": tables.conditions(rows),
        **_curves(run),
        "posterior": posterior(run.metrics),
        "cards": overlays.cards(run.samples),
        "training": figures.training(run.log),
        "cases": listed,
        "shown_cases": list(islice(listed.rows, MOST_CASES)) if listed else [],
        "scatter": _scatter(run, listed) if listed else "",
        "by_site": _by_site(listed) if listed else "",
        "limits": _limits(run),
    }


def _facts(run: RunFolder) -> dict[str, str]:
    times: dict[str, float] = {}
    for line in run.log:
        stage = str(line.get("stage", ""))
        times[stage] = max(times.get(stage, 0.0), float(line.get("time_s", 0.0)))
    facts = {
        "modality": spell(str(run.config.get("modality", run.metrics.get("modality", "")))),
        "size": str(run.config.get("size", "")),
        "seed": str(run.config.get("seed", run.metrics.get("seed", ""))),
        "posterior": str(run.config.get("bayes", {}).get("posterior", "")),
        "split": str(run.split.get("hash", run.metrics.get("split_hash", "")))[:10],
    }
    facts |= {spell(stage).lower(): _duration(seconds) for stage, seconds in times.items()}
    return {name: value for name, value in facts.items() if value}


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _command(run: RunFolder) -> str:
    return f"penumbra run --preset {run.path.name}/config.yaml --data DATA --out AGAIN"


def _curves(run: RunFolder) -> dict[str, Any]:
    target = float(run.config.get("evaluate", {}).get("error_target", 0.05))
    reliability = run.curves.get("reliability", {})
    titles = {"raw": "Reliability, raw", "scaled": "Reliability, temperature-scaled"}
    risk = run.curves.get("risk_coverage") or {}
    risk = risk if risk.get("coverage") else None  # no case has a risk
    accepted = cases.accepted_coverage(risk, target) if risk else None
    return {
        "reliability": [
            figures.reliability(curve, title=titles.get(kind, f"Reliability, {spell(kind)}"))
            for kind, curve in reliability.items()
        ],
        "risk": figures.risk_coverage(risk, target=target, accepted=accepted) if risk else "",
        "review": cases.review_sentence(run.metrics.get("rows", []), risk, target),
        "robustness": figures.robustness(run.curves.get("robustness", [])),
    }


def _by_site(listed: cases.CaseList) -> Markup:
    by_site: dict[str, list[float]] = {}
    for row in listed.rows:
        if math.isfinite(row.score):
            by_site.setdefault(row.site or "all cases", []).append(row.score)
    title = "Test cases by site" if len(by_site) > 1 else "Test cases"
    return figures.scores_by_group(dict(sorted(by_site.items())), metric=listed.metric, title=title)


def _scatter(run: RunFolder, listed: cases.CaseList) -> Markup | str:
    column = cases.uncertainty_column(run.cases[0])
    if column is None or column == listed.metric:
        return ""
    unsure = {case.get("case"): tables.number(case.get(column)) for case in run.cases}
    triples = [
        (unsure[row.case], row.score, row.worst)
        for row in listed.rows
        if math.isfinite(unsure[row.case]) and math.isfinite(row.score)
    ]
    if not triples:
        return ""
    values, scores, worst = zip(*triples, strict=True)
    return figures.uncertainty_against_score(values, scores, worst, metric=listed.metric)


def _limits(run: RunFolder) -> list[str]:
    test = [case for case in run.cases if case.get("part") == "test"]
    patients = {case.get("patient", "") for case in test}
    sites = {case.get("site") or "" for case in test} - {""}
    limits = []
    if test:
        limits.append(
            f"Measured on {len(test)} held-out case(s) of {len(patients)} patient(s)"
            + (f" from {len(sites)} site(s)." if sites else "; sites are not known.")
        )
    limits += [
        "Intervals are patient-bootstrap 95% intervals of one training: they say how much a "
        "figure depends on which patients were tested, not on the training's own chance.",
        "Epistemic uncertainty is that of the approximate posterior that was trained; a scan "
        "unlike all training scans can still look certain.",
        "Attention shows where features pass the gates; it does not prove what caused a decision.",
        "Attacks and shifts are simulated; a new scanner can behave differently.",
    ]
    return limits
