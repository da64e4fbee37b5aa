import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from penumbra import jobs
from penumbra.config import resolve
from penumbra.errors import DataError
from penumbra.inference.page import channel_name, panels
from penumbra.inference.scan import predict_scans

MAPS = ("segmentation", "probability", "epistemic", "aleatoric", "entropy_nats", "attention")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body of 40 HU in air, in a left-posterior-superior oblique grid."""
    grid = np.mgrid[-1:1:40j, -1:1:36j, -1:1:5j]
    body = np.hypot(grid[0], grid[1]) < 0.8
    noise = np.random.default_rng(0).normal(0, 20, body.shape)
    hu = np.where(body, 40 + noise, -1000).astype(np.int16)
    turn = np.deg2rad(10)
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    affine[:2, :2] = 2 * np.array([[-np.cos(turn), np.sin(turn)], [-np.sin(turn), -np.cos(turn)]])
    affine[:3, 3] = (31.5, -12.25, 7.0)
    path = tmp_path_factory.mktemp("scans") / "one.nii.gz"
    nibabel.save(nibabel.Nifti1Image(hu, affine), path)
    return path


@pytest.fixture(scope="module")
def predicted(untrained_ct: Path, scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pred")
    predict_scans(untrained_ct, [scan], out)
    return out


def test_every_map_has_the_scans_own_shape_and_affine(predicted: Path, scan: Path) -> None:
    source = nibabel.load(scan)
    for name in MAPS:
        image = nibabel.load(predicted / f"one_{name}.nii.gz")
        assert image.shape[:3] == source.shape, name
        np.testing.assert_array_equal(image.affine, source.affine)


def test_probabilities_sum_to_one_and_are_background_where_the_scan_was_cropped(
    predicted: Path, scan: Path
) -> None:
    probability = np.asarray(nibabel.load(predicted / "one_probability.nii.gz").dataobj)
    np.testing.assert_allclose(probability.sum(-1), 1, atol=1e-4)
    assert (nibabel.load(scan).dataobj[0, 0] == -1000).all()
    np.testing.assert_array_equal(probability[0, 0, :, 0], 1)


def test_volumes_come_with_a_credible_interval_of_the_draws(predicted: Path) -> None:
    record = json.loads((predicted / "one.json").read_text())
    for volume in record["volumes_ml"].values():
        assert 0 <= volume["low"] <= volume["mean"] <= volume["high"]
        assert (volume["level"], volume["draws"]) == (0.9, 3)


def test_the_published_volume_is_near_the_voxel_count_of_the_segmentation(predicted: Path) -> None:
    record = json.loads((predicted / "one.json").read_text())
    labels = np.asarray(nibabel.load(predicted / "one_segmentation.nii.gz").dataobj)
    counted = {name: (labels == k + 1).sum() * 0.02 for k, name in enumerate(("spleen", "liver"))}
    total = sum(v["mean"] for v in record["volumes_ml"].values())
    assert total == pytest.approx(sum(counted.values()), rel=0.5)


def test_the_decision_is_explained_in_words(predicted: Path) -> None:
    decision = json.loads((predicted / "one.json").read_text())["decision"]
    assert decision["verdict"] in {"accept", "review", "reject"}
    assert all(len(reason.split()) > 3 for reason in decision["reasons"])


def test_pages_need_nothing_beside_themselves(predicted: Path) -> None:
    for name in ("one.html", "triage.html"):
        text = (predicted / name).read_text()
        assert "not a medical device" in text
        assert "http" not in text.replace("http-equiv", "")
        assert "<script" not in text


def test_a_scan_name_cannot_smuggle_markup_into_a_page(
    untrained_ct: Path, scan: Path, tmp_path: Path
) -> None:
    evil = tmp_path / "<img onerror=alert(1)>.nii.gz"
    evil.symlink_to(scan)
    predict_scans(untrained_ct, [evil], tmp_path / "pred", draws=1)
    for page in (tmp_path / "pred").glob("*.html"):
        assert "<img onerror" not in page.read_text()


def test_the_same_scan_and_model_give_the_same_files(
    untrained_ct: Path, scan: Path, predicted: Path, tmp_path: Path
) -> None:
    predict_scans(untrained_ct, [scan], tmp_path)
    assert (tmp_path / "one.json").read_bytes() == (predicted / "one.json").read_bytes()


def test_two_scans_of_one_name_are_refused(untrained_ct: Path, scan: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two scans have this name"):
        predict_scans(untrained_ct, [scan, scan], tmp_path)


def test_the_triage_list_puts_the_neediest_first(
    untrained_ct: Path, scan: Path, tmp_path: Path
) -> None:
    from penumbra.inference.triage import write_triage

    for k, need in enumerate((0.2, 2.5, 1.1)):
        record = {
            "schema": "penumbra-prediction-1",
            "case": f"c{k}",
            "decision": {"verdict": "accept", "reasons": ["why"], "need_of_review": need},
        }
        (tmp_path / f"c{k}.json").write_text(json.dumps(record))
    write_triage(tmp_path, untrained_ct)
    with (tmp_path / "triage.csv").open() as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["c1", "c2", "c0"]


def test_a_scan_that_is_done_is_not_predicted_again_unless_something_changed(
    untrained_ct: Path, scan: Path, tmp_path: Path
) -> None:
    wrote = predict_scans(untrained_ct, [scan], tmp_path, draws=1)
    times = {path: path.stat().st_mtime_ns for path in wrote if path.stem != "triage"}
    again = predict_scans(untrained_ct, [scan], tmp_path, draws=1)
    assert sorted(again) == sorted(wrote)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    predict_scans(untrained_ct, [scan], tmp_path, draws=2)
    assert (tmp_path / "one.json").stat().st_mtime_ns != times[tmp_path / "one.json"]
    (tmp_path / "one_epistemic.nii.gz").unlink()
    predict_scans(untrained_ct, [scan], tmp_path, draws=2)
    assert (tmp_path / "one_epistemic.nii.gz").exists()


def test_a_bad_scan_holds_up_no_other(untrained_ct: Path, scan: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no scan")
    with pytest.raises(DataError, match=r"bad\.nii\.gz"):
        predict_scans(untrained_ct, [bad, scan], tmp_path / "pred", draws=1)
    assert (tmp_path / "pred" / "one.json").exists()
    assert "one" in (tmp_path / "pred" / "triage.csv").read_text()


@pytest.mark.parametrize(("draws", "seen"), [(2, 2), ("propagate", 1)])
def test_draws_may_be_few_or_none(
    untrained_ct: Path, scan: Path, tmp_path: Path, draws: int | str, seen: int
) -> None:
    predict_scans(untrained_ct, [scan], tmp_path, draws=draws)
    record = json.loads((tmp_path / "one.json").read_text())
    assert {v["draws"] for v in record["volumes_ml"].values()} == {seen}
    assert np.asarray(nibabel.load(tmp_path / "one_epistemic.nii.gz").dataobj).max() > 0


def test_auto_takes_as_many_draws_as_the_maps_need(
    untrained_ct: Path, scan: Path, tmp_path: Path
) -> None:
    predict_scans(untrained_ct, [scan], tmp_path, draws="auto")
    record = json.loads((tmp_path / "one.json").read_text())
    assert 12 <= next(iter(record["volumes_ml"].values()))["draws"] <= 64


def test_a_scan_unlike_all_training_scans_goes_to_review(
    untrained_ct: Path, scan: Path, tmp_path: Path
) -> None:
    from dataclasses import replace

    import torch

    from penumbra import trained
    from penumbra.bayes.mahalanobis import fit_familiarity
    from penumbra.data.preprocess import prepare
    from penumbra.inference.channels import case_of
    from penumbra.inference.features import scan_features

    model = trained.load(untrained_ct)
    case = prepare(case_of(scan, model.task), model.task, model.config.data)
    features = scan_features(model.network, case, model.config)
    assert len(features) == sum(model.config.model.widths)
    cloud = torch.randn(14, len(features), generator=torch.Generator().manual_seed(0))
    calibration = replace(model.calibration, review_above=None)
    for place, verdict in ((features + 30, "review"), (features, "accept")):
        known = fit_familiarity(place + cloud[:9], place + cloud[9:] * 2)
        run = tmp_path / verdict
        replace(model, familiarity=known, calibration=calibration).save(run)
        predict_scans(run, [scan], run / "pred", draws=1)
        record = json.loads((run / "pred" / "one.json").read_text())
        assert record["decision"]["verdict"] == verdict
        assert record["out_of_distribution"]["scans"] == 5
        assert "training scans" in " ".join(record["trust"])


def test_batches_of_scans_are_predicted_elsewhere_as_here(
    untrained_ct: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here in place of elsewhere: what a process of its own costs is not a test's to pay."""

    def here(
        batches: list[object], work: Callable[[object], None], workers: int
    ) -> Iterator[tuple[object, str | None]]:
        assert len(batches) == workers == 2
        yield from jobs.run(batches, work, on="serial", workers=1)

    other, bad = tmp_path / "one_2.nii.gz", tmp_path / "bad.nii.gz"
    other.symlink_to(scan)
    serial = predict_scans(untrained_ct, [scan, other], tmp_path / "serial", draws=1)
    monkeypatch.setattr(jobs, "_in_processes", here)
    wrote = predict_scans(
        untrained_ct, [scan, other], tmp_path / "pred", draws=1, on="processes", workers=2
    )
    assert sorted(p.name for p in wrote) == sorted(p.name for p in serial)
    for name in ("one.json", "one_2_epistemic.nii.gz", "triage.csv"):
        assert (tmp_path / "pred" / name).read_bytes() == (tmp_path / "serial" / name).read_bytes()
    bad.write_bytes(b"no scan")
    with pytest.raises(DataError, match=r"bad\.nii\.gz"):
        predict_scans(
            untrained_ct, [bad, scan], tmp_path / "pred", draws=1, on="processes", workers=2
        )


def test_more_classes_than_colors_are_told_apart_by_number(case) -> None:
    labels = np.zeros((20, 20, 4), dtype=int)
    labels[2:9, 2:9, 1], labels[11:18, 11:18, 1] = 1, 8
    arrays = {"segmentation": labels, "attention": np.zeros((1, 20, 20, 4), np.float32)}
    classes = ["background", *(f"organ {k}" for k in range(1, 9))]
    config = resolve("brain-mri", size="tiny")
    first, *maps = panels(
        {"task": {"classes": classes, "channels": ["mri"]}}, case((20, 20, 4)), arrays, config
    )
    # Anterior is up and the patient's right on the left: both axes are turned round.
    assert [(t.text, t.left, t.top) for t in first.tags] == [("1", 72.5, 72.5), ("8", 27.5, 27.5)]
    assert not any(panel.tags for panel in maps)
    few, *_ = panels(
        {"task": {"classes": classes[:3], "channels": ["mri"]}}, case((20, 20, 4)), arrays, config
    )
    assert not few.tags


def test_pictures_show_the_first_channel_that_the_scan_has(case) -> None:
    whole = case((20, 20, 4))
    part = replace(whole, image=np.stack([whole.image[0] * 0, whole.image[0]]), missing=("flair",))
    arrays = {"attention": np.zeros((1, 20, 20, 4), np.float32)}
    record = {"task": {"classes": ["background"], "channels": ["flair", "t1"]}, "findings": {}}
    arrays["segmentation"] = np.zeros((20, 20, 4), dtype=int)
    config = resolve("brain-mri", size="tiny")
    shown, *_ = panels(record, part, arrays, config)
    record["task"]["channels"] = ["t1"]
    alone, *_ = panels(record, whole, arrays, config)
    assert (shown.rgb == alone.rgb).all()
    assert channel_name(["flair", "t1"], part) == "t1"
    assert channel_name(["t1"], whole) == ""
