"""Folders that are taken, full, read-only or damaged: one clear line, and nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from jobs import Start, tiny
from torch import nn

from penumbra import checkpoint, pipeline
from penumbra.errors import ConfigError, DataError, WriteError
from penumbra.files import cache_folder, locked, write_text
from penumbra.inference.scan import predict_scans


def hold(folder: Path) -> None:
    with locked(folder):
        write_text(folder / "held", "")
        time.sleep(600)


def test_a_second_run_on_a_folder_is_refused_and_the_first_is_named(
    tmp_path: Path, start: Start
) -> None:
    job = start(lambda: hold(tmp_path))
    while not (tmp_path / "held").exists():
        assert job.over() is None
        time.sleep(0.01)
    with (
        pytest.raises(DataError, match=rf"process {job.pid} on .* is working there"),
        locked(tmp_path),
    ):
        pass
    job.kill(signal.SIGKILL)
    job.wait()
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_lock_may_be_taken_twice_by_its_own_process(tmp_path: Path, start: Start) -> None:
    def intrude() -> None:
        with locked(tmp_path):
            pass

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        job = start(intrude)
        assert job.wait() == 1
        assert "is working there" in job.said.read_text()


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    left = tmp_path / "train" / ".last.safetensors.123.part"
    left.write_bytes(b"half")
    with locked(tmp_path):
        assert not left.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    asked = [str(mount), "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if mount is None or subprocess.run(asked, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a traceback may hold a file


def test_a_full_disk_keeps_the_last_checkpoint(small_disk: Path) -> None:
    path = small_disk / "last.safetensors"
    checkpoint.save(path, nn.Linear(64, 64), record={"step": 1})
    with pytest.raises(DataError, match=r"last\.safetensors: cannot be written \(.*[Ss]pace"):
        checkpoint.save(path, nn.Linear(512, 512), record={"step": 2})
    assert checkpoint.read(path)[1] == {"step": 1}
    assert [p.name for p in small_disk.iterdir()] == [path.name]


def test_a_run_on_a_full_disk_ends_in_one_line(
    small_disk: Path, phantom: Path, start: Start
) -> None:
    config = tiny(model__widths=[64, 128])
    job = start(lambda: pipeline.run(config, phantom, small_disk / "run"))
    assert job.wait() == 1
    said = job.said.read_text()
    assert "cannot be written" in said
    assert "\n" not in said


def test_a_read_only_folder_ends_in_one_line(tmp_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DataError, match=r"cannot be written .*Read-only file system"):
        checkpoint.save(small_disk / "last.safetensors", nn.Linear(2, 2))
    refused = pytest.raises(DataError, match=r"cannot be written \(Read-only .*another --out")
    with refused, locked(small_disk / "run"):
        pass


def test_a_folder_below_a_file_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"cannot be written \(Not a directory\)"),
        locked(tmp_path / "file" / "run"),
    ):
        pass


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_prepared_case_is_built_again(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("PENUMBRA_CACHE", str(tmp_path / "cache"))
    config = tiny()
    ground = pipeline.prepare(config, phantom, tmp_path / "run")
    before = np.array(ground.store[0].image)
    images = sorted((cache_folder() / "store").rglob("image.npy"))
    for path in images:
        damage(path, how)
    again = pipeline.prepare(config, phantom, tmp_path / "run")
    np.testing.assert_array_equal(np.array(again.store[0].image), before)


def test_a_case_that_is_cut_off_while_training_is_named(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENUMBRA_CACHE", str(tmp_path / "cache"))
    ground = pipeline.prepare(tiny(), phantom, tmp_path / "run")
    for path in (cache_folder() / "store").rglob("image.npy"):
        damage(path, "truncated")
    case = ground.store.cases[0].id
    ground.store._open.clear()  # what is open already stays readable
    with pytest.raises(DataError, match=rf"the prepared case {case} is damaged; remove the folder"):
        ground.store[0]


def test_a_run_is_not_continued_with_other_settings_and_says_which(
    phantom: Path, tmp_path: Path
) -> None:
    pipeline.prepare(tiny(), phantom, tmp_path)
    with pytest.raises(ConfigError, match=r"train\.lr: 0\.002 -> 0\.5"):
        pipeline.prepare(tiny(train__lr=0.5), phantom, tmp_path)
    pipeline.prepare(tiny(data__workers=2), phantom, tmp_path)  # changes no result


@pytest.mark.parametrize("name", ["train/last", "pretrain/last", "model/model"])
def test_a_damaged_result_is_refused_by_name(
    phantom: Path, tmp_path: Path, start: Start, name: str
) -> None:
    path = tmp_path / f"{name}.safetensors"
    checkpoint.save(path, nn.Linear(2, 2), record={"step": 1})
    damage(path, "truncated")
    (tmp_path / "model").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=rf"{path.name}: checkpoint cannot be read"):
        checkpoint.read(path)


def test_a_run_is_not_continued_on_other_cases(phantom: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom, data)
    run = tmp_path / "run"
    pipeline.prepare(tiny(), data, run)
    table = data / "train.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=r"another cohort or split \(0 new case\(s\), 1 gone"):
        pipeline.prepare(tiny(), data, run)
    before = (run / "split.json").read_bytes()
    pipeline.prepare(tiny(), data, run, visiting=True)
    assert (run / "split.json").read_bytes() == before


def test_a_prediction_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(
    small_disk: Path, untrained_ct: Path, tmp_path: Path
) -> None:
    scans = [tmp_path / f"scan-{k}.nii.gz" for k in range(6)]
    hu = np.random.default_rng(0).normal(0, 200, (24, 20, 4)).astype(np.int16)
    for scan in scans:
        nibabel.save(nibabel.Nifti1Image(hu, np.diag([2.0, 2.0, 5.0, 1.0])), scan)
    out = small_disk / "pred"
    with pytest.raises(WriteError, match=r"cannot be written \(.*[Ss]pace") as full:
        predict_scans(untrained_ct, scans, out, draws=1)
    assert "\n" not in str(full.value)
    done = [path.stem for path in out.glob("scan-*.json")]
    assert 0 < len(done) < len(scans)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    times = {name: (out / f"{name}.json").stat().st_mtime_ns for name in done}
    predict_scans(untrained_ct, scans, out, draws=1)
    assert len(list(out.glob("scan-*.json"))) == len(scans)
    assert {name: (out / f"{name}.json").stat().st_mtime_ns for name in done} == times
    assert not list(out.glob(".*.part*"))
