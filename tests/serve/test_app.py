import io
import json
import logging
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from penumbra.serve.app import Jobs, create_app
from penumbra.serve.jobs import Queue

TOKEN = "a-token"
LIMIT = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    record = {
        "schema": "penumbra-prediction-1",
        "case": "c1",
        "decision": {"verdict": "accept", "reasons": ["calm"], "need_of_review": 0.1},
        "files": {"image": ["c1_image.nii.gz"], "evil": ["../secret.txt"]},
    }
    (predictions / "c1.json").write_text(json.dumps(record))
    (predictions / "c1_image.nii.gz").write_bytes(b"pixels")
    (predictions / "unlisted.txt").write_text("private")
    (tmp_path / "secret.txt").write_text("secret")
    return predictions


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    def predict(scan: Path) -> str:
        return "" if scan.read_bytes() != b"bad" else "not a scan"

    jobs = Jobs(Queue(tmp_path / "jobs.sqlite"), tmp_path / "uploads", predict, limit=LIMIT)
    with TestClient(
        create_app(folder, token=TOKEN, jobs=jobs), base_url="http://127.0.0.1"
    ) as found:
        found.headers["Authorization"] = f"Bearer {TOKEN}"
        yield found


def finished(client: TestClient, id: str) -> dict:
    for _ in range(200):
        job = client.get(f"/api/jobs/{id}").json()
        if job["state"] in {"done", "failed"}:
            return job
        time.sleep(0.05)
    raise AssertionError(job)


@pytest.mark.parametrize("path", ["/", "/api/cases", "/static/viewer.js", "/openapi.json"])
@pytest.mark.parametrize("token", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", "Bearer é"])
def test_nothing_is_shown_without_the_token(client: TestClient, path: str, token: str) -> None:
    answer = client.get(path, headers={"Authorization": token.encode()})
    assert answer.status_code == 401


def test_the_login_address_leaves_a_cookie_that_scripts_cannot_read(client: TestClient) -> None:
    del client.headers["Authorization"]
    assert client.get("/login", params={"token": "wrong"}).status_code == 401
    answer = client.get("/login", params={"token": TOKEN}, follow_redirects=False)
    assert answer.status_code == 303
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert "samesite=strict" in answer.headers["set-cookie"].lower()
    assert client.get("/").status_code == 200


def test_a_page_under_a_foreign_name_cannot_reach_in(client: TestClient) -> None:
    answer = client.get("/api/cases", headers={"Host": "evil.example:8765"})
    assert answer.status_code == 421


def test_every_answer_forbids_foreign_content(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "'unsafe-eval'" not in policy


def test_a_listed_map_is_served(client: TestClient) -> None:
    assert client.get("/api/maps/c1/image/c1_image.nii.gz").content == b"pixels"


@pytest.mark.parametrize(
    "path",
    [
        "/api/maps/c1/image/unlisted.txt",
        "/api/maps/c1/image/..%2f..%2fsecret.txt",
        "/api/maps/c1/evil/..%2fsecret.txt",
        "/api/maps/..%2f/image/c1_image.nii.gz",
        "/api/pages/..%2fc1",
        "/api/pages/c1",
        "/static/..%2fapp.py",
        "/static/%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_outside(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert b"secret" not in answer.content.replace(b"secret.txt", b"")


def test_two_jobs_at_once_both_end(client: TestClient) -> None:
    ids = [
        client.post("/api/jobs", params={"name": "x.nii.gz"}, content=body).json()["id"]
        for body in (b"good", b"bad")
    ]
    assert finished(client, ids[0])["state"] == "done"
    failed = finished(client, ids[1])
    assert (failed["state"], failed["error"]) == ("failed", "not a scan")


@pytest.mark.parametrize("streamed", [False, True])
def test_an_oversized_upload_is_refused_and_leaves_nothing(
    client: TestClient, tmp_path: Path, streamed: bool
) -> None:
    body = iter([b"x" * LIMIT, b"x"]) if streamed else b"x" * (LIMIT + 1)
    answer = client.post("/api/jobs", params={"name": "x.nii.gz"}, content=body)
    assert answer.status_code == 413
    assert not [*(tmp_path / "uploads").glob("*"), *(tmp_path / "uploads").glob(".*")]
    assert client.get("/api/jobs").json() == []


@pytest.mark.parametrize("name", ["x.exe", "", "nii.gz.sh", "x.html"])
def test_an_unknown_kind_of_file_is_refused(client: TestClient, name: str) -> None:
    answer = client.post("/api/jobs", params={"name": name}, content=b"x")
    assert answer.status_code == 400
    assert "unknown kind of file" in answer.json()["detail"]


def test_an_empty_upload_is_refused(client: TestClient) -> None:
    answer = client.post("/api/jobs", params={"name": "x.nii"}, content=b"")
    assert answer.status_code == 400


def packed(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (packed({"../../evil.dcm": b"x"}), "outside itself"),
        (packed({"/etc/evil.dcm": b"x"}), "outside itself"),
        (packed({"a\\..\\..\\evil.dcm": b"x"}), "outside itself"),
        (packed({"bomb.dcm": bytes(600_000)}), "would unpack"),
        (packed({"a.dcm": b"x"})[:-8], "damaged or cut short"),
    ],
)
def test_a_hostile_archive_is_refused(client: TestClient, body: bytes, message: str) -> None:
    answer = client.post("/api/jobs", params={"name": "x.zip"}, content=body)
    assert answer.status_code == 400
    assert message in answer.json()["detail"]


def test_the_name_of_an_upload_is_written_nowhere(
    client: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "penumbra")
    name = "Doe^John.nii.gz"
    id = client.post("/api/jobs", params={"name": name}, content=b"good").json()["id"]
    finished(client, id)
    assert "Doe" not in caplog.text
    for path in tmp_path.rglob("*"):
        assert "Doe" not in path.name
        assert not path.is_file() or b"Doe" not in path.read_bytes()
