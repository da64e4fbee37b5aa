"""Small predictions in the layouts that nnU-Net, TotalSegmentator and MONAI write.

Labels are crops of real organ labels where btcv_mini is at hand, else balls; the softmax is that
of a made-up network that blurs them, is over-confident, and fails on one case in four.
"""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from penumbra import cli, foreign, report
from penumbra.errors import DataError
from penumbra.foreign.parts import draw_parts
from penumbra.foreign.read import ForeignCase, find_cases, read_case, read_task

BTCV = Path(__file__).parents[2] / ".." / "shared" / "data" / "btcv_mini"
CLASSES = ["background", "spleen", "right_kidney", "left_kidney"]
AFFINE = np.array([[-2.5, 0, 0, 80], [0, 2.0, 0, -60], [0, 0, 5.0, 10], [0, 0, 0, 1.0]])
SHAPE = (20, 18, 10)
CASES = 8


def real_labels() -> list[np.ndarray]:
    """Organ labels on a coarse grid over the organs."""
    found = []
    for path in sorted((BTCV / "labelsTr").glob("*.nii.gz"))[:CASES]:
        labels = np.asarray(nibabel.load(path).dataobj).astype(np.uint8)
        labels[labels > 3] = 0
        places = np.argwhere(labels)
        ends = zip(places.min(0), places.max(0), SHAPE, strict=True)
        picks = [np.linspace(low, high, n).astype(int) for low, high, n in ends]
        found.append(labels[np.ix_(*picks)])
    return found


def balls() -> list[np.ndarray]:
    grid = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j, -1 : 1 : SHAPE[2] * 1j]
    rng = np.random.default_rng(1)
    found = []
    for _ in range(CASES):
        labels = np.zeros(SHAPE, dtype=np.uint8)
        for value in (1, 2, 3):
            centre = rng.uniform(-0.5, 0.5, 3)[:, None, None, None]
            labels[np.linalg.norm(grid - centre, axis=0) < 0.4] = value
        found.append(labels)
    return found


def softmax_of(labels: np.ndarray, rng: np.random.Generator, *, bad: bool) -> np.ndarray:
    """[c, x, y, z] in x, y, z order."""
    hot = np.stack([labels == k for k in range(len(CLASSES))]).astype(np.float32)
    soft = np.stack([gaussian_filter(h, 0.6) for h in hot])
    logits = 14 * soft + rng.normal(0, 6.0 if bad else 2.5, soft.shape)
    p = np.exp(logits - logits.max(0))
    return (p / p.sum(0)).astype(np.float32)


@pytest.fixture(scope="module")
def data() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    labels = real_labels() or balls()
    return {
        f"case_{k:02d}": (each, softmax_of(each, rng, bad=k % 4 == 3))
        for k, each in enumerate(labels)
    }


@pytest.fixture(scope="module")
def labels(data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "labelsTr"
    folder.mkdir()
    for name, (array, _) in data.items():
        nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / f"{name}.nii.gz")
    table = {"labels": {name: k for k, name in enumerate(CLASSES)}}
    (folder.parent / "dataset.json").write_text(json.dumps(table))
    return folder


class Trap:
    """What an attacker would pickle."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def write_nnunet(data, folder: Path) -> Path:
    import pickle

    folder.mkdir()
    for name, (_, p) in data.items():
        zyx = p.transpose(0, 3, 2, 1)
        np.savez_compressed(folder / f"{name}.npz", probabilities=zyx.astype(np.float16))
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(Trap()))
        hard = nibabel.Nifti1Image(p.argmax(0).astype(np.uint8), AFFINE)
        nibabel.save(hard, folder / f"{name}.nii.gz")
    (folder / "predict_from_raw_data_args.json").write_text("{}")
    return folder


def write_monai(data, folder: Path) -> Path:
    folder.mkdir()
    for name, (_, p) in data.items():
        image = nibabel.Nifti1Image(np.moveaxis(p, 0, -1), AFFINE)
        nibabel.save(image, folder / f"{name}.nii.gz")
    return folder


def write_totalsegmentator(data, folder: Path) -> Path:
    for name, (_, p) in data.items():
        (folder / name).mkdir(parents=True)
        for k, organ in enumerate(CLASSES[1:], start=1):
            image = nibabel.Nifti1Image(p[k], AFFINE)
            nibabel.save(image, folder / name / f"{organ}.nii.gz")
    return folder


WRITERS = {
    "nnunet": write_nnunet,
    "monai": write_monai,
    "totalsegmentator": write_totalsegmentator,
}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_probabilities_in_the_same_place(
    data, labels: Path, tmp_path: Path, layout: str
) -> None:
    predictions = WRITERS[layout](data, tmp_path / "pred")
    cases = find_cases(predictions, labels)
    assert [case.id for case in cases] == list(data)
    found, label, task = read_case(cases[1], read_task(predictions, labels))
    assert task.classes == tuple(CLASSES)
    array, p = data["case_01"]
    # RAS+: the file's first axis runs to the left
    np.testing.assert_array_equal(label.array, array[::-1])
    np.testing.assert_allclose(found, p[:, ::-1], atol=2e-3)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


@pytest.fixture(scope="module")
def judged(data, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged")
    predictions = write_nnunet(data, folder / "pred")
    split = folder / "split.json"
    names = list(data)
    split.write_text(json.dumps({"val": names[:4], "test": names[4:]}))
    words = f"report --predictions {predictions} --labels {labels} --validation {split}"
    with pytest.raises(SystemExit) as stop:
        cli.main([*words.split(), "--out", str(folder / "out")])
    assert stop.value.code == 0
    return folder / "out"


def value(run: Path, metric: str, label: str = "all", part: str = "test") -> float:
    rows = json.loads((run / "metrics.json").read_text())["rows"]
    wanted = {"part": part, "metric": metric, "label": label}
    (row,) = [r for r in rows if all(r[k] == v for k, v in wanted.items())]
    return row["value"]


def test_the_temperature_of_an_over_confident_model_mends_its_calibration(judged: Path) -> None:
    fitted = json.loads((judged / "calibration.json").read_text())
    assert fitted["temperature"] > 1.2
    assert value(judged, "nll_scaled") < value(judged, "nll")
    assert value(judged, "ece_scaled") < value(judged, "ece")


def test_the_case_that_failed_is_first_in_triage(judged: Path, data) -> None:
    with (judged / "triage.csv").open(newline="") as file:
        order = [row["case"] for row in csv.DictReader(file)]
    assert order[0] == "case_07"
    assert set(order) == set(list(data)[4:])
    assert value(judged, "aurc", "uncertainty/entropy/region") < 1 - value(judged, "dice", "mean")
    assert "case_07" in (judged / "triage.html").read_text()


def test_the_report_stands_and_names_what_was_judged(judged: Path) -> None:
    page = (judged / "report.html").read_text()
    assert "Reliability" in page
    assert "--predictions" in page


def test_the_same_cases_are_never_fitted_and_judged(judged: Path) -> None:
    parts = json.loads((judged / "split.json").read_text())["parts"]
    assert not set(parts["val"]) & set(parts["test"])


def test_a_share_is_drawn_alike_every_time(data, labels: Path, tmp_path: Path) -> None:
    predictions = write_monai(dict(list(data.items())[:4]), tmp_path / "pred")
    fits = [
        foreign.calibrate(predictions, labels, tmp_path / str(k), validation="0.5").read_text()
        for k in range(2)
    ]
    assert fits[0] == fits[1]
    assert len(json.loads(fits[0])["parts"]["val"]) == 2


def spoil(tmp_path: Path, name: str, **arrays: np.ndarray) -> ForeignCase:
    np.savez(tmp_path / f"{name}.npz", **arrays)
    return ForeignCase(name, tmp_path / f"{name}.npz", tmp_path / "label.nii.gz")


@pytest.fixture
def label_file(tmp_path: Path) -> Path:
    path = tmp_path / "label.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), AFFINE), path)
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"probabilities": np.full((2, 2, 3, 5), 0.5)}, "differs from 4x3x2 of its label"),
        ({"probabilities": np.full((2, 2, 3, 4), 3.0)}, "not probabilities; save the softmax"),
        ({"probabilities": np.full((2, 2, 3, 4), 0.8)}, "sum to 1.6 at worst"),
        ({"probabilities": np.full((2, 2, 3, 4), np.nan)}, "not probabilities"),
        ({"probabilities": np.full((3, 2, 3, 4), 1 / 3)}, "3 maps, but the task has 2 classes"),
        ({"logits": np.zeros((2, 2, 3, 4))}, "holds logits; expected 'probabilities'"),
        ({"probabilities": np.full((2, 3, 4), 0.5)}, "has 3 axes"),
        ({"probabilities": np.array([{}], dtype=object)}, "pickled objects"),
    ],
)
def test_a_wrong_array_is_refused_with_the_remedy(
    tmp_path: Path, label_file: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    from penumbra.foreign.read import unnamed_task

    case = spoil(tmp_path, "c", **arrays)
    with pytest.raises(DataError, match=message):
        read_case(case, unnamed_task(2))


def test_a_damaged_npz_is_named(tmp_path: Path, label_file: Path) -> None:
    case = spoil(tmp_path, "c", probabilities=np.full((2, 2, 3, 4), 0.5))
    case.prediction.write_bytes(case.prediction.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"c\.npz: not a readable npz"):
        read_case(case, None)


def test_a_prediction_without_its_label_is_named(data, labels: Path, tmp_path: Path) -> None:
    predictions = write_monai({"other": data["case_00"]}, tmp_path / "pred")
    with pytest.raises(DataError, match=r"no label other\.nii\.gz"):
        find_cases(predictions, labels)


def test_label_maps_cannot_be_calibrated(data, labels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pred"
    folder.mkdir()
    hard = nibabel.Nifti1Image(data["case_00"][0], AFFINE)
    nibabel.save(hard, folder / "case_00.nii.gz")
    with pytest.raises(DataError, match="save the softmax"):
        read_case(find_cases(folder, labels)[0], None)


def test_another_grid_is_refused(data, labels: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pred"
    folder.mkdir()
    moved = AFFINE.copy()
    moved[0, 3] += 9
    image = nibabel.Nifti1Image(np.moveaxis(data["case_00"][1], 0, -1), moved)
    nibabel.save(image, folder / "case_00.nii.gz")
    with pytest.raises(DataError, match="affine differs"):
        read_case(find_cases(folder, labels)[0], None)


def test_files_per_class_need_names(data, tmp_path: Path) -> None:
    alone = tmp_path / "labels" / "in"
    alone.mkdir(parents=True)
    nibabel.save(nibabel.Nifti1Image(data["case_00"][0], AFFINE), alone / "case_00.nii.gz")
    one = {"case_00": data["case_00"]}
    predictions = write_totalsegmentator(one, tmp_path / "pred")
    with pytest.raises(DataError, match=r"put a dataset\.json"):
        read_case(find_cases(predictions, alone)[0], read_task(predictions, alone))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evaluate", "give RUN, or --predictions"),
        ("calibrate", "--predictions FOLDER is needed"),
        ("report --predictions {0}", "--predictions needs --labels"),
        ("evaluate {0} --predictions {0} --labels {0}", "not both"),
        ("evaluate --predictions {0} --labels {0}", "no probability maps"),
    ],
)
def test_wrong_words_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    with pytest.raises(SystemExit):
        cli.main(words.format(tmp_path).split())
    assert message in " ".join(capsys.readouterr().err.split())


def test_two_predictions_of_one_case_are_named(labels: Path, tmp_path: Path) -> None:
    for ending in (".nii", ".nii.gz"):
        nibabel.save(
            nibabel.Nifti1Image(np.zeros((2, 2, 2, 2)), AFFINE), tmp_path / f"case_00{ending}"
        )
    with pytest.raises(DataError, match=r"case_00\.nii\.gz: of the same case as case_00\.nii;"):
        find_cases(tmp_path, labels)


def test_a_folder_of_predictions_that_is_not_there(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; check the path after"):
        find_cases(tmp_path / "nowhere", labels)


@pytest.mark.parametrize("share", ["nan", "inf", "0", "1", "-0.5"])
def test_a_share_that_leaves_a_part_empty(share: str) -> None:
    with pytest.raises(DataError, match=r"leaves a part empty"):
        draw_parts(["a", "b", "c"], share)


def half_empty(folder: Path, *, fitted_on: str) -> tuple[Path, Path, Path]:
    """Two cases with one structure, two in which nothing is marked or predicted, and a split."""
    other = {"full": "empty", "empty": "full"}[fitted_on]
    for name in ("full_0", "full_1", "empty_0", "empty_1"):
        mask = np.zeros((8, 8, 4), np.uint8)
        mask[2:5, 2:5] = name.startswith("full")
        soft = np.where(mask[..., None], (0.3, 0.7), (0.9, 0.1)).astype(np.float32)
        for where, array in (("labels", mask), ("predictions", soft)):
            (folder / where).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / where / f"{name}.nii.gz")
    parts = {"val": [f"{fitted_on}_0", f"{fitted_on}_1"], "test": [f"{other}_0", f"{other}_1"]}
    (folder / "split.json").write_text(json.dumps(parts))
    return folder / "predictions", folder / "labels", folder / "split.json"


def test_test_cases_without_any_structure_still_make_a_report(tmp_path: Path) -> None:
    predictions, labels, split = half_empty(tmp_path, fitted_on="full")
    foreign.evaluate(predictions, labels, tmp_path / "out", validation=str(split))
    assert report.build(tmp_path / "out").is_file()


def test_nothing_can_be_fitted_on_cases_without_any_structure(tmp_path: Path) -> None:
    predictions, labels, split = half_empty(tmp_path, fitted_on="empty")
    with pytest.raises(DataError, match=r"none of the validation cases \(empty_0, empty_1\) has"):
        foreign.calibrate(predictions, labels, tmp_path / "out", validation=str(split))
