"""The way through a real PACS: store, fetch, predict, store back, read again."""

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from penumbra.errors import DataError
from penumbra.export import dicomweb
from penumbra.export.dicom import export_case
from penumbra.export.dicomweb import fetch_series, find_series, store

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
BTCV = Path(__file__).parents[2] / ".." / "shared" / "data" / "btcv_mini"


@pytest.fixture(scope="module")
def pacs(need, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = need("Orthanc")
    folder = tmp_path_factory.mktemp("orthanc")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)
    try:
        _wait(f"http://127.0.0.1:{port}/system")
        yield f"http://127.0.0.1:{port}/dicom-web"
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("Orthanc did not start")


def ids(folder: Path) -> dict[str, str]:
    first = dcmread(next(iter(sorted(folder.iterdir()))), stop_before_pixels=True)
    return {"study": first.StudyInstanceUID, "series": first.SeriesInstanceUID}


def round_trip(pacs: str, sent: Path, folder: Path, predict) -> None:
    store(pacs, sorted(sent.iterdir()))
    place = ids(sent)
    assert (place["study"], place["series"]) in find_series(pacs, modality="CT")
    fetched = fetch_series(pacs, folder / "fetched", **place)
    predicted, case = predict(fetched)
    store(pacs, export_case(predicted, case, fetched, folder / "dicom"))
    segmentation = dcmread(folder / "dicom" / f"{case}_labelmap.dcm")
    back = fetch_series(
        pacs, folder / "back", study=place["study"], series=segmentation.SeriesInstanceUID
    )
    volume = hd.seg.segread(next(back.iterdir())).get_volume(combine_segments=True)
    labels = nibabel.load(predicted / f"{case}_segmentation.nii.gz")
    index = np.indices(labels.shape).reshape(3, -1)
    mm = labels.affine @ np.vstack([index, np.ones(index.shape[1])])
    there = np.linalg.inv(np.diag([-1, -1, 1, 1]) @ volume.affine) @ mm
    np.testing.assert_allclose(there, np.rint(there), atol=1e-2)
    found = volume.array[tuple(np.rint(there[:3]).astype(int))].reshape(labels.shape)
    np.testing.assert_array_equal(found, np.asarray(labels.dataobj))
    maps = dcmread(folder / "dicom" / f"{case}_epistemic.dcm")
    back = fetch_series(pacs, folder / "maps", study=place["study"], series=maps.SeriesInstanceUID)
    assert dcmread(next(back.iterdir())).FloatPixelData == maps.FloatPixelData


def test_a_prediction_returns_from_the_pacs_voxel_for_voxel(
    pacs: str, tmp_path: Path, write_ct, write_prediction
) -> None:
    turn = np.deg2rad(15)
    axes = (np.cos(turn), np.sin(turn), 0, -np.sin(turn), np.cos(turn), 0)
    hu = np.random.default_rng(0).integers(-200, 300, (9, 8, 5))
    sent = write_ct(tmp_path / "sent", hu, axes=axes, down=True)

    def predict(fetched: Path) -> tuple[Path, str]:
        return write_prediction(tmp_path / "pred", fetched), "c1"

    round_trip(pacs, sent, tmp_path, predict)


@pytest.mark.real
def test_a_real_ct_is_predicted_and_returns_to_its_place(
    pacs: str, tmp_path: Path, write_ct, untrained_ct: Path
) -> None:
    from penumbra.inference.scan import predict_scans

    scans = sorted((BTCV / "imagesTr").glob("*.nii.gz"))
    if not scans:
        pytest.skip("btcv_mini is not here")
    image = nibabel.load(scans[0])
    hu = np.rint(np.asarray(image.dataobj)[::2, ::2, :12]).astype(np.int16)
    x, y, z = (float(v) for v in image.header.get_zooms()[:3])
    # L-A-S voxels in DICOM's L-P-S directions: the second axis runs backward.
    axes = (1, 0, 0, 0, -1, 0)
    sent = write_ct(tmp_path / "sent", hu[:, :, ::-1], axes=axes, spacing=(2 * y, 2 * x), step=z)

    def predict(fetched: Path) -> tuple[Path, str]:
        predict_scans(untrained_ct, [fetched], tmp_path / "pred", draws=2)
        return tmp_path / "pred", "fetched"

    round_trip(pacs, sent, tmp_path, predict)


def test_a_study_is_queried_predicted_and_answered_in_one_command(
    pacs: str, tmp_path: Path, write_ct, untrained_ct: Path
) -> None:
    from penumbra import cli

    hu = np.random.default_rng(2).integers(-200, 300, (16, 16, 4))
    sent = write_ct(tmp_path / "sent", hu)
    store(pacs, sorted(sent.iterdir()))
    study = ids(sent)["study"]
    words = ["export", "dicomweb", str(untrained_ct), pacs, "--study", study]
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--out", str(tmp_path / "out")])
    assert stop.value.code == 0
    kinds = [len(find_series(pacs, modality=m, study=study)) for m in ("CT", "SEG", "SR")]
    assert kinds == [1, 3, 1]
    names = {p.name for p in (tmp_path / "out").rglob("*")}
    assert not any("Secret" in name for name in names)
    with pytest.raises(SystemExit):
        cli.main(["export", "dicomweb", str(untrained_ct), pacs, "--study", "1.2.3"])


def test_a_second_fetch_leaves_nothing_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Instance:
        def save_as(self, path: Path, **_: object) -> None:
            path.write_text("pixels")

    class Server:
        def __init__(self, count: int) -> None:
            self.count = count

        def retrieve_series(self, **_: str) -> list[Instance]:
            return [Instance()] * self.count

    (tmp_path / "notes.txt").touch()
    for count in (3, 2):
        monkeypatch.setattr(dicomweb, "_client", lambda url, count=count: Server(count))
        fetch_series("http://pacs", tmp_path, study="1.2", series="1.3")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00001.dcm", "00002.dcm", "notes.txt"]


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot retrieve"):
        fetch_series("http://127.0.0.1:9/x", tmp_path, study="1.2", series="1.3")


def test_an_address_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected http"):
        store("file:///etc", [tmp_path])
