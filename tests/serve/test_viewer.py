"""The viewer in a real browser; screenshots are kept when PENUMBRA_SHOTS names a folder."""

import io
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
import uvicorn
from PIL import Image

from penumbra.serve.app import create_app

BTCV = Path(__file__).parents[2] / ".." / "shared" / "data" / "btcv_mini"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "token"
LAYERS = ("segmentation", "epistemic", "aleatoric", "attention")


def write_case(folder: Path) -> None:
    """A real CT and its organ labels where they are at hand, else a ball in a box."""
    scans = sorted((BTCV / "imagesTr").glob("*.nii.gz"))
    if scans:
        image = nibabel.load(scans[0])
        shape, affine = image.shape, image.affine
        hu = np.asarray(image.dataobj, dtype=np.float32)
        name = scans[0].name.replace("img", "label")
        labels = np.asarray(nibabel.load(BTCV / "labelsTr" / name).dataobj).astype(np.uint8)
        labels[labels > 3] = 0
    else:
        shape, affine = (40, 36, 20), np.diag([2.0, 2.0, 3.0, 1.0])
        distance = np.linalg.norm(np.mgrid[-1:1:40j, -1:1:36j, -1:1:20j], axis=0)
        hu = np.where(distance < 0.9, 40.0, -150.0).astype(np.float32)
        labels = (distance < 0.5).astype(np.uint8)
    ramp = np.linspace(0, 1, shape[0], dtype=np.float32)[:, None, None] * np.ones(shape)
    arrays = {"image": hu, "segmentation": labels}
    arrays |= {name: ramp.astype(np.float32) for name in LAYERS[1:]}
    folder.mkdir()
    for name, array in arrays.items():
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"c1_{name}.nii.gz")
    record = {
        "schema": "penumbra-prediction-1",
        "case": "c1",
        "decision": {"verdict": "review", "reasons": ["uncertain"], "need_of_review": 1.5},
        "volumes_ml": {"spleen": dict(mean=210.0, low=190.0, high=230.0, level=0.9, draws=8)},
        "task": {"classes": ["background", "spleen", "right kidney", "left kidney"]},
        "files": {name: [f"c1_{name}.nii.gz"] for name in arrays},
    }
    (folder / "c1.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("view") / "pred"
    write_case(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = create_app(folder, token=TOKEN)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def page(address: str):
    """The viewer with a case open; what it asked for and complained of is on the page object."""
    if not os.environ.get("PENUMBRA_BROWSER"):
        pytest.skip("opt in with PENUMBRA_BROWSER=1: software rendering needs a quiet machine")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None and os.environ.get("CI") == "true":
        pytest.fail("chromium is missing; CI must have it")
    if browser_path is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        found = browser.new_page(viewport={"width": 1200, "height": 800})
        found.set_default_timeout(120_000)
        found.requests, found.complaints = [], []
        found.on("request", lambda request: found.requests.append(request.url))
        found.on("pageerror", lambda error: found.complaints.append(str(error)))
        found.on(
            "console",
            lambda line: found.complaints.append(line.text) if line.type == "error" else None,
        )
        found.goto(f"{address}/login?token={TOKEN}")
        found.wait_for_selector("body[data-state=ready], body[data-state=failed]")
        yield found
        browser.close()


def picture(page, name: str) -> np.ndarray:
    page.wait_for_timeout(500)
    shot = page.locator("#view").screenshot()
    if os.environ.get("PENUMBRA_SHOTS"):
        (Path(os.environ["PENUMBRA_SHOTS"]) / f"{name}.png").write_bytes(page.screenshot())
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def slide(page, layer: str, value: float) -> None:
    page.evaluate(
        "([id, v]) => { const s = document.getElementById(id); s.value = v;"
        " s.dispatchEvent(new Event('input')); }",
        [f"opacity-{layer}", value],
    )


def test_the_case_opens_with_its_verdict_and_intervals_beside_it(page) -> None:
    assert page.get_attribute("body", "data-state") == "ready", page.complaints
    assert page.inner_text("#verdict") == "review"
    assert "210.0 ml (190.0 to 230.0)" in page.inner_text("#volumes")
    shown = picture(page, "open")
    assert (shown.max(axis=2) > 60).mean() > 0.05


@pytest.mark.parametrize("layer", LAYERS)
def test_a_slider_changes_the_picture_and_back(page, layer: str) -> None:
    for other in LAYERS:
        slide(page, other, 0)
    before = picture(page, f"{layer}-off")
    slide(page, layer, 0.8)
    during = picture(page, f"{layer}-on")
    slide(page, layer, 0)
    after = picture(page, f"{layer}-off-again")
    changed = np.abs(during - before).max(axis=2) > 15
    assert changed.mean() > 0.002
    assert np.abs(during - during.mean(axis=2, keepdims=True))[changed].mean() > 5  # in color
    assert (np.abs(after - before).max(axis=2) > 15).mean() < 0.001


def test_keys_choose_and_change_a_layer_and_move_the_crosshair(page) -> None:
    page.locator("#view").focus()
    page.keyboard.press("2")
    assert "epistemic" in page.inner_text(".layer.chosen")
    page.keyboard.press("+")
    assert float(page.input_value("#opacity-epistemic")) == pytest.approx(0.1)
    page.keyboard.press("-")
    before = page.inner_text("#place")
    page.keyboard.press("ArrowUp")
    page.wait_for_timeout(300)
    assert page.inner_text("#place") != before


def test_no_request_leaves_the_machine_and_nothing_complains(page, address: str) -> None:
    foreign = [u for u in page.requests if not u.startswith((address, "data:", "blob:"))]
    assert foreign == []
    assert page.complaints == []
