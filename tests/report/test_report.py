"""The report is one page that needs nothing, says what is missing and never guesses."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from penumbra import report
from penumbra.errors import DataError
from penumbra.report import cases, tables
from penumbra.report.overlays import cards
from penumbra.report.posterior import posterior
from penumbra.report.read import Sample, read_run

PARTS = ["config.yaml", "split.json", "log.jsonl", "metrics.json", "cases.csv", "evaluation"]
VOID = {"meta", "input", "br", "link", "img"}


class Balance(HTMLParser):
    """Fails on a tag that closes nothing; collects ids and links to them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        links = [values.get("href") or "", values.get("xlink:href") or ""]
        self.links += [link[1:] for link in links if link.startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page_of(run: Path) -> str:
    path = report.build(run)
    assert path == run / "report.html"
    return path.read_text()


def test_what_makes_a_model_useless_is_said_before_its_results(run: Path) -> None:
    tree = json.loads((run / "metrics.json").read_text())
    assert 'class="finding warning"' not in page_of(run)
    warning = "The model predicts no structure in any of the 9 test case(s) that hold one."
    (run / "metrics.json").write_text(json.dumps(tree | {"warnings": [warning]}))
    page = page_of(run)
    assert page.index(warning) < page.index('class="tiles"')
    assert warning in report.write_card(run).read_text()


def test_the_page_is_well_formed_and_every_inner_link_has_its_target(finished: Path) -> None:
    parser = Balance()
    parser.feed((finished / "report.html").read_text())
    assert parser.open == []
    assert set(parser.links) <= set(parser.ids)
    anchors = [name for name in parser.ids if name.startswith("scan-") or name in parser.links]
    assert len(set(anchors)) >= 11  # nine sections and two scans


def test_the_page_asks_for_nothing_from_outside(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in sources)
    assert "@import" not in page
    assert "url(http" not in page
    assert "default-src 'none'" in page


def test_the_same_folder_gives_the_same_bytes(finished: Path) -> None:
    first = (finished / "report.html").read_bytes()
    assert report.build(finished).read_bytes() == first


def test_figures_follow_the_theme_of_the_page(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "prefers-color-scheme: dark" in page
    assert "var(--ink)" in page
    assert not re.search(r"#0[1-4]0[1-4]0[1-4]|#0a000\d", page)  # no stand-in color is left


def test_headline_numbers_stand_with_their_intervals(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "0.810" in page
    assert "0.753 to 0.859" in page
    assert "24 patients" in page
    assert "not a medical device" in page


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named_and_the_rest_stands(part: str, run: Path) -> None:
    gone = run / part
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    page = page_of(run)
    assert 'class="absent"' in page or part == "split.json"
    assert "Limits" in page


def test_a_run_with_nothing_but_its_config_still_has_a_page(run: Path) -> None:
    for part in PARTS[1:]:
        gone = run / part
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert page_of(run).count('class="absent"') >= 7


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a run folder.*penumbra run"):
        report.build(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b'{"rows": ['),
        ("metrics.json", b"[]"),
        ("metrics.json", b"\xff\xfe"),
        ("split.json", b"null"),
        ("config.yaml", b"a: [1"),
        ("cases.csv", b"case,part\na\n"),
        ("log.jsonl", b"{]}\n"),
        ("evaluation/curves.json", b"{"),
        ("evaluation/samples/00.npz", b"PK\x03\x04 not a zip"),
    ],
)
def test_a_broken_file_is_named_with_its_remedy(name: str, content: bytes, run: Path) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: cannot be read .*penumbra evaluate"):
        report.build(run)


def test_a_half_written_last_line_of_the_log_is_left_out(run: Path) -> None:
    with (run / "log.jsonl").open("a") as file:
        file.write('{"stage": "train", "st')
    assert len(read_run(run).log) == 24
    page_of(run)


def test_text_from_the_data_is_escaped(run: Path) -> None:
    sample = run / "evaluation" / "samples" / "00.npz"
    np.savez(sample, image=np.zeros((8, 8)), title="<script>alert(1)</script>")
    listed = (run / "cases.csv").read_text()
    (run / "cases.csv").write_text(listed.replace("Jefferson", "<img src=x>"))
    page = page_of(run)
    assert "<script>alert" not in page
    assert "<img" not in page


def test_a_sample_whose_map_has_another_shape_is_refused(run: Path) -> None:
    sample = run / "evaluation" / "samples" / "00.npz"
    np.savez(sample, image=np.zeros((8, 8)), epistemic=np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"epistemic is \(4, 4\), the image \(8, 8\)"):
        report.build(run)


def test_patients_are_never_named(run: Path) -> None:
    listed = (run / "cases.csv").read_text()
    (run / "cases.csv").write_text(re.sub(r",p\d+,", ",Jane Doe,", listed))
    assert "Jane Doe" not in page_of(run)


def test_scores_that_were_not_measured_are_dashes(run: Path) -> None:
    tree = json.loads((run / "metrics.json").read_text())
    tree["rows"][0] |= {"value": float("nan"), "low": None, "high": None}
    (run / "metrics.json").write_text(json.dumps(tree))
    shown = tables.headline(read_run(run).metrics["rows"])[0]
    assert (shown.text, shown.interval, shown.bar) == ("—", "", None)


def test_the_worst_tenth_of_the_cases_comes_first_and_is_flagged(finished: Path) -> None:
    listed = cases.case_list(read_run(finished).cases)
    assert listed is not None
    scores = [row.score for row in listed.rows]
    assert listed.metric == "dice_WT"
    assert scores == sorted(scores)
    assert [row.worst for row in listed.rows] == [True] + [False] * 8


@pytest.mark.parametrize(
    ("risk", "target", "words"),
    [
        ([0.0, 0.04, 0.10], 0.05, "Reviewing the 40% most uncertain"),
        ([0.0, 0.01, 0.02], 0.05, "without any review"),
        ([0.2, 0.3, 0.4], 0.05, "No share of review"),
    ],
)
def test_the_review_sentence_says_what_the_curve_says(
    risk: list[float], target: float, words: str
) -> None:
    curve = {"coverage": [0.2, 0.6, 1.0], "risk": risk}
    assert words in cases.review_sentence([], curve, target)


def test_a_scored_review_share_is_preferred_to_the_curve() -> None:
    label = "uncertainty/epistemic/region"
    rows = [
        {"part": "test", "metric": "review_share", "label": label, "value": 0.2},
        {"part": "test", "metric": "review_share_random", "label": label, "value": 0.7},
    ]
    sentence = cases.review_sentence(rows, None, 0.05)
    assert "at most 5% of all cases" in sentence
    assert "review the 20% most uncertain; choosing at random, 70%" in sentence


def test_the_report_ranks_by_the_score_that_validation_patients_chose() -> None:
    labels = ["uncertainty/epistemic/region", "uncertainty/trust", "uncertainty/structure"]
    rows = [{"part": "test", "metric": "aurc", "label": x, "value": 0.2, "n": 9} for x in labels]
    shelf = tables.tables(rows, part="test")["uncertainty"]
    assert [table.rows for table in shelf.main] == [("trust",)]
    assert tables.headline(rows)[0].label == "trust"
    assert cases.uncertainty_column(dict.fromkeys(labels, "0.1")) == "uncertainty/trust"


def test_metrics_with_the_same_labels_share_a_table() -> None:
    names = [("dice", "liver"), ("dice", "spleen"), ("hd95_mm", "liver"), ("hd95_mm", "spleen")]
    rows = [{"part": "test", "metric": m, "label": name, "value": 1, "n": 3} for m, name in names]
    rows.append({"part": "test", "metric": "accuracy", "label": "all", "value": 1, "n": 3})
    found = tables.tables(rows, part="test")["task"].main
    assert [table.rows for table in found] == [("liver", "spleen"), ("all",)]
    assert found[0].columns == ("Dice", "HD95 (mm)")
    assert found[0].n == "3 patients"


def test_without_a_score_of_its_own_a_case_list_is_ranked_by_uncertainty() -> None:
    found = [
        {"case": "a", "part": "test", "uncertainty/epistemic/mean": "0.1"},
        {"case": "b", "part": "test", "uncertainty/epistemic/mean": "0.3"},
    ]
    listed = cases.case_list(found)
    assert listed is not None
    assert [row.case for row in listed.rows] == ["b", "a"]


def test_stages_that_log_in_folders_of_their_own_are_drawn(run: Path) -> None:
    (run / "train").mkdir()
    (run / "log.jsonl").rename(run / "train" / "log.jsonl")
    assert len(read_run(run).log) == 24


def test_a_finding_that_nobody_stated_is_named_and_not_listed() -> None:
    rows = [
        {"part": "test", "metric": "auroc", "label": "mean", "value": 0.8, "n": 9},
        {"part": "test", "metric": "auroc", "label": "edema", "value": 0.8, "n": 7},
        {"part": "test", "metric": "auroc", "label": "nodule", "value": None, "n": 0},
    ]
    (table,) = tables.tables(rows, part="test")["task"].main
    assert table.rows == ("mean", "edema")
    assert table.undefined == ("nodule",)
    assert table.row_n == ("9 patients", "7 patients")


def test_variants_and_other_uncertainties_are_to_open() -> None:
    names = [("ece", "all"), ("ece_volume", "all")]
    names += [("aurc", f"uncertainty/{name}/region") for name in ("epistemic", "entropy")]
    rows = [{"part": "test", "metric": m, "label": name, "value": 0.1} for m, name in names]
    found = tables.tables(rows, part="test")
    assert [table.columns for table in found["calibration"].more] == [("ECE volume",)]
    assert [table.rows for table in found["uncertainty"].main] == [("epistemic, region",)]
    assert [table.rows for table in found["uncertainty"].more] == [("entropy, region",)]


def test_a_split_file_may_hold_its_parts_in_one_place(run: Path) -> None:
    split = json.loads((run / "split.json").read_text())
    nested = {"hash": split.pop("hash"), "parts": split}
    before = cases.cohort(read_run(run))
    (run / "split.json").write_text(json.dumps(nested))
    assert cases.cohort(read_run(run)) == before


def test_a_posterior_says_what_it_is_worth() -> None:
    mean, draws = {"width": 0.0, "nll": 0.35}, {"width": 0.5, "nll": 0.30}
    useful = posterior({"posterior": {"width": 0.5, "tempering": [mean, draws]}})
    assert useful is not None
    assert "0.5 times as wide" in useful.sentence
    assert "lower the validation NLL of the mean weights by 0.050" in useful.sentence
    harmful = posterior({"posterior": {"width": 0.5, "tempering": [mean, draws | {"nll": 0.4}]}})
    assert harmful is not None
    assert "does not predict better" in harmful.sentence
    assert posterior({"posterior": {"kind": "none", "tempering": [], "layers": []}}) is None
    assert posterior({}) is None


def test_more_classes_than_colors_are_told_apart_by_number() -> None:
    labels = np.zeros((20, 20), dtype=int)
    labels[2:9, 2:9], labels[11:18, 11:18] = 1, 8
    classes = ("background", *(f"organ {k}" for k in range(1, 9)))
    scan = np.zeros((20, 20), dtype=np.float32)
    (card,) = cards([Sample("s", "s", scan, None, labels, {}, classes, {})])
    (first, color), (second, same) = card.legend
    assert (first, second) == ("1 organ 1", "8 organ 8")
    assert color == same
    assert [(c.number, c.tag) for c in card.tags] == [("1", (5.5, 5.5)), ("8", (14.5, 14.5))]


def test_a_sample_with_damage_inside_is_named(run: Path) -> None:
    sample = run / "evaluation" / "samples" / "00.npz"
    np.savez_compressed(sample, image=np.zeros((64, 64), np.float32))
    content = bytearray(sample.read_bytes())
    start = content.index(b"image.npy") + 9 + int.from_bytes(content[28:30], "little")
    content[start : start + 4] = b"\xff" * 4  # no block of deflate begins so
    sample.write_bytes(content)
    with pytest.raises(DataError, match=r"00\.npz: cannot be read .*run `penumbra evaluate`"):
        report.build(run)
