"""The viewer in a real browser; screenshots are kept when PENUMBRA_SHOTS names a folder.

Pixels are read from the canvas in the very task that draws them, so nothing depends on how fast
a starved machine composes the page; everything else waits for a condition, not for a time.
"""

import base64
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
from scipy.ndimage import gaussian_filter
from skimage.segmentation import find_boundaries

from penumbra.serve.app import create_app

BTCV = Path(__file__).parents[2] / ".." / "shared" / "data" / "btcv_mini"
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOTS = os.environ.get("PENUMBRA_SHOTS")
SIZE = {"width": 1280, "height": 800} if SHOTS else {"width": 760, "height": 400}
PATIENCE_MS = 300_000
TOKEN = "token"
LAYERS = ("segmentation", "epistemic", "aleatoric", "attention")


def write_case(folder: Path) -> None:
    """A real CT and its organ labels where they are at hand, else a ball in a box."""
    scans = sorted((BTCV / "imagesTr").glob("*.nii.gz"))
    if scans:
        image = nibabel.load(scans[0])
        affine = image.affine
        hu = np.asarray(image.dataobj, dtype=np.float32)
        name = scans[0].name.replace("img", "label")
        labels = np.asarray(nibabel.load(BTCV / "labelsTr" / name).dataobj).astype(np.uint8)
        if not SHOTS:  # every second voxel: software rendering pays for each
            hu, labels = hu[::2, ::2, ::2], labels[::2, ::2, ::2]
            affine = affine @ np.diag([2, 2, 2, 1])
        labels[labels > 3] = 0
    else:
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        distance = np.linalg.norm(np.mgrid[-1:1:40j, -1:1:36j, -1:1:20j], axis=0)
        hu = np.where(distance < 0.9, 40.0, -150.0).astype(np.float32)
        labels = (distance < 0.5).astype(np.uint8)
    rim = gaussian_filter(find_boundaries(labels, mode="thick").astype(np.float32), 1)
    arrays = {"image": hu, "segmentation": labels, "epistemic": 0.2 * rim}
    arrays["aleatoric"] = 0.4 * gaussian_filter((labels > 0).astype(np.float32), 2)
    arrays["attention"] = gaussian_filter((labels > 0).astype(np.float32), 6)
    folder.mkdir()
    for name, array in arrays.items():
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / f"c1_{name}.nii.gz")
    conformal = {"low": 172.0, "high": 251.0, "level": 0.9, "patients": 9}
    volume = {"mean": 210.0, "low": 190.0, "high": 230.0, "level": 0.9, "draws": 8}
    classes = ["background", "spleen", "right kidney", "left kidney"]
    record = {
        "schema": "penumbra-prediction-1",
        "case": "c1",
        "decision": {"verdict": "review", "reasons": ["uncertain"], "need_of_review": 1.5},
        "trust": ["expected Dice 0.84"],
        "volumes_ml": {name: volume | {"conformal": conformal} for name in classes[1:]},
        "task": {
            "modality": "ct",
            "classes": classes,
            "regions": {name: [k] for k, name in enumerate(classes) if k},
        },
        "files": {name: [f"c1_{name}.nii.gz"] for name in arrays},
    }
    (folder / "c1.json").write_text(json.dumps(record))
    (folder / "c1.html").write_text("<title>c1</title>summary of c1")


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
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None and os.environ.get("CI") == "true":
        pytest.fail("chromium is missing; CI must have it")
    if browser_path is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=FLAGS, timeout=PATIENCE_MS
        )
        found = browser.new_page(viewport=SIZE)
        found.set_default_timeout(PATIENCE_MS)
        found.set_default_navigation_timeout(PATIENCE_MS)
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
    """The canvas, read in the task that draws it."""
    drawn = page.evaluate("() => { nv.drawScene(); return at('view').toDataURL('image/png'); }")
    if SHOTS:
        (Path(SHOTS) / f"{name}.png").write_bytes(page.screenshot())
    png = io.BytesIO(base64.b64decode(drawn.partition(",")[2]))
    return np.asarray(Image.open(png).convert("RGB")).astype(int)


def slide(page, layer: str, value: float) -> None:
    page.evaluate(
        "([id, v]) => { const s = document.getElementById(id); s.value = v;"
        " s.dispatchEvent(new Event('input')); }",
        [f"opacity-{layer}", value],
    )


def test_the_case_opens_with_its_verdict_and_intervals_beside_it(page) -> None:
    assert page.get_attribute("body", "data-state") == "ready", page.complaints
    assert page.inner_text("#verdict") == "! review"  # a sign too, for who cannot tell the color
    assert page.inner_text("#trust") == "expected Dice 0.84"
    spleen = page.inner_text("#volumes tr:first-child")
    assert "210 ml" in spleen
    assert "190 to 230 · 90 % credible" in spleen
    assert "172 to 251 · 90 % conformal" in spleen
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
    page.keyboard.press("0")
    assert float(page.input_value("#opacity-epistemic")) == 0
    page.keyboard.press("0")
    assert float(page.input_value("#opacity-epistemic")) == pytest.approx(0.1)
    page.keyboard.press("-")
    before = page.inner_text("#place")
    page.keyboard.press("ArrowUp")
    page.wait_for_function("before => at('place').textContent !== before", arg=before)


def test_the_first_slice_shows_a_segmented_place_and_says_what_is_there(page) -> None:
    page.evaluate(
        "() => { nv.scene.crosshairPos = fullest(shown.layers); nv.createOnLocationChange(); }"
    )
    values = page.evaluate("() => nv.volumes.map(v => v.name)")
    assert len(values) == 1 + len(LAYERS)
    here = page.inner_text("label[for=opacity-segmentation]")
    assert "here" in here
    assert "background" not in here
    assert "spleen" in page.inner_text(".legend")


def test_the_summary_of_the_case_can_be_opened(page, address: str) -> None:
    assert page.get_attribute("#page", "href") == "/api/pages/c1"
    answer = page.request.get(f"{address}/api/pages/c1")
    assert answer.text() == "<title>c1</title>summary of c1"
    assert page.request.get(f"{address}/api/pages/..%2Fc1").status == 404


def test_no_request_leaves_the_machine_and_nothing_complains(page, address: str) -> None:
    foreign = [u for u in page.requests if not u.startswith((address, "data:", "blob:"))]
    assert foreign == []
    assert page.complaints == []
