"""The model card and the PDF are made from the run folder alone."""

from pathlib import Path

import pytest

from penumbra import report
from penumbra.errors import DataError
from penumbra.report import pdf


def test_the_card_gives_every_headline_figure_with_its_interval(run: Path) -> None:
    card = report.write_card(run).read_text()
    assert "not a medical device" in card
    assert "## Accuracy" in card
    assert "## Calibration" in card
    row = next(line for line in card.splitlines() if line.startswith("| WT |"))
    assert " to " in row


def test_the_card_asks_what_only_people_know(run: Path) -> None:
    assert "[to fill in]" in report.write_card(run).read_text()


def test_a_folder_without_a_run_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run folder"):
        report.write_card(tmp_path)


@pytest.mark.skipif(pdf.browser() is None, reason="no browser on this machine")
def test_the_page_is_printed_beside_itself(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>Dice 0.8</p>")
    printed = report.print_pdf(page)
    assert printed == tmp_path / "report.pdf"
    assert printed.read_bytes().startswith(b"%PDF")


def test_without_a_browser_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf, "browser", lambda: None)
    with pytest.raises(DataError, match="none was found; install"):
        report.print_pdf(tmp_path / "report.html")
