"""The page without a server, in a real browser; and its parts."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.cli.export import run
from fssd.data.geometry import make_geometry
from fssd.errors import ConfigError, FetchError
from fssd.export import onnxruntime_web as web
from fssd.export import write
from fssd.export.browser import served
from fssd.export.site import export_site
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector

for _package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install "fssd[export]"')
pytest.importorskip("playwright", reason='needs playwright: pip install "fssd[web]"')

PATIENCE = 300_000  # milliseconds after which a wait fails
PAGE = Path(str(web.__file__)).parent / "page"
NMS = Thresholds(score=0.3, keep=50)

RESIZE = """
import { prepare, undo } from "RESIZE_JS";
import { readFileSync, writeFileSync } from "node:fs";
for (const { data, width, height, model, out } of JSON.parse(readFileSync("cases.json"))) {
  writeFileSync(out, prepare(model, { data: readFileSync(data), width, height }));
  console.log(JSON.stringify(undo(model, [10.5, 20.25, 200, 400], width, height)));
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_images_become_the_input_as_opencv_makes_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases, geometries, images = [], [], []
    sizes = [(640, 480), (301, 97), (31, 500), (600, 600), (300, 300), (1, 1), (2, 700)]
    for number, (width, height) in enumerate(sizes):
        for name in ("warp", "letterbox"):
            image = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
            (tmp_path / f"{number}.rgba").write_bytes(image.tobytes())
            model = {"geometry": name, "size": [300, 300], "fill": [123, 117, 104]}
            row = {"data": f"{number}.rgba", "width": width, "height": height, "model": model}
            cases.append({**row, "out": f"{number}-{name}.rgb"})
            (tmp_path / f"{number}.rgba").rename(tmp_path / f"{number}-{name}.rgba")
            cases[-1]["data"] = f"{number}-{name}.rgba"
            geometries.append(make_geometry(name, (300, 300)))
            images.append(image[..., :3])
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    shutil.copy(PAGE / "resize.js", tmp_path / "resize.mjs")
    (tmp_path / "run.mjs").write_text(RESIZE.replace("RESIZE_JS", "./resize.mjs"))
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    for case, geometry, image, line in zip(cases, geometries, images, done.stdout.splitlines(), strict=True):
        made = np.frombuffer((tmp_path / case["out"]).read_bytes(), np.uint8).reshape(300, 300, 3)
        expected = geometry.apply(np.ascontiguousarray(image), cv2.INTER_LINEAR)
        # OpenCV may use another routine on another processor, which rounds by a grey level.
        assert np.abs(made.astype(int) - expected).max() <= 1, case
        box = np.array([[10.5, 20.25, 200, 400]], np.float32)
        undone = geometry.undo(box, (image.shape[1], image.shape[0]))[0]
        np.testing.assert_allclose(json.loads(line), undone, rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def site(
    detectors: dict[str, Detector],
    onnxruntime_web: Path,
    browser: Any,  # for its skip
    traced: Callable[[str], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    out = tmp_path_factory.mktemp("web") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "trace", lambda *_: traced("tiny"))
        done = export_site(detectors["tiny"], out, nms=NMS)
    assert done is not None
    assert (done.wasm.images, done.page.images) == (33, 3)
    assert done.wasm.detections > 0 and done.page.detections > 0
    assert str(done).splitlines()[0].startswith("Chromium")
    return out


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with served(site) as url:
        yield url


def opened(browser: Any, address: str, **settings: Any) -> Any:
    page = browser.new_context(**settings).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached")
    return page


def test_a_site_works_without_a_network_and_with_threads(site: Path, address: str, browser: Any) -> None:
    page = opened(browser, address, viewport={"width": 390, "height": 844})
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    assert page.evaluate("crossOriginIsolated"), "the service worker gives the page threads"
    page.context.set_offline(True)
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    page.set_input_files("#pick", {"name": "noise.png", "mimeType": "image/png", "buffer": encoded})
    page.wait_for_selector("#app[data-state=done]")
    assert page.inner_text("#file") == "noise.png, 80 \u00d7 60"
    assert page.inner_text("#count").endswith(("objects", "object"))
    assert "WebAssembly" in page.inner_text("#timing")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_input_files("#pick", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"})
    page.wait_for_selector("#problem:not([hidden])")
    assert "not an image" in page.inner_text("#problem-text")
    page.context.close()
    assert [url for url in asked if not url.startswith((address, "blob:"))] == []
    assert complaints == []


def test_live_camera(address: str, browser: Any) -> None:
    """With a canvas instead of a camera."""
    page = opened(browser, address)
    page.evaluate(
        """() => {
            const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 240 });
            const pen = canvas.getContext("2d");
            setInterval(() => { pen.fillStyle = "teal"; pen.fillRect(0, 0, 320, 240); }, 50);
            const media = { getUserMedia: async () => (window.camera = canvas.captureStream(20)) };
            Object.defineProperty(navigator, "mediaDevices", { value: media });
        }"""
    )
    page.click("#drop [data-camera]")
    page.wait_for_selector("#app[data-state=done]")
    page.wait_for_function("() => document.querySelector('#timing').textContent.includes('frames a second')")
    assert page.is_visible("#live") and not page.is_visible("#image")
    page.click("#view [data-camera]")  # now it says Stop
    page.wait_for_function("() => document.querySelector('#file').textContent.startsWith('camera.jpg, 320')")
    assert page.is_visible("#image") and not page.is_visible("#live")
    assert page.evaluate("camera.getTracks().every((track) => track.readyState === 'ended')")
    page.context.close()


def test_opened_as_a_file_it_says_what_to_do(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto(f"file://{site}/index.html")
    page.wait_for_selector("#problem:not([hidden])")
    assert "python3 -m http.server" in page.inner_text("#problem-text")
    page.close()


def test_an_earlier_site_is_replaced_and_nothing_else(
    site: Path,
    detectors: dict[str, Detector],
    onnxruntime_web: Path,
    traced: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(write, "trace", lambda *_: traced("tiny"))
    out = tmp_path / "site"
    shutil.copytree(site, out)
    (out / "assets" / "old.js").write_text("")
    tiny = detectors["tiny"]
    kept = Detector(tiny.network, tiny.classes, {"class_scores": {"eight": 0.1, "zero": 0.7}})
    assert export_site(kept, out, nms=NMS, unchecked=True) is None
    assert json.loads((out / "model.json").read_text())["class_scores"] == {"eight": NMS.score, "zero": 0.7}
    assert not (out / "assets" / "old.js").exists()
    assert {path.name for path in out.iterdir()} == {path.name for path in site.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "a.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match="photos: holds other files"):
        export_site(detectors["tiny"], foreign, nms=NMS)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--to", "web", "--raw"], "NMS inside"),
        (["--to", "web", "--opset", "17"], "--opset is for --to onnx"),
        (["--ort", "x"], "--ort and --allow-unchecked are for --to web"),
        (["--to", "web", "--allow-unchecked", "--images", "x"], "choose one"),
        (["--to", "web", "--check", "opencv"], "--check opencv is for --to onnx"),
        (["--check", "opencvv"], "no such check"),
        (["--int8", "--calibrate", "x", "--fp16"], "exclude each other"),
        (["--to", "openvino", "--fp16"], "openvino are written without --fp16"),
        (["--to", "ncnn", "--nms"], "ncnn are written without --nms"),
        (["--to", "safetensors", "--fp16"], "weights only"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_choices_that_do_not_fit(model_file: Path, tmp_path: Path, words: list[str], reason: str) -> None:
    to = words[words.index("--to") + 1] if "--to" in words else "onnx"
    suffix = {"web": "", "openvino": ".xml", "ncnn": ".param", "safetensors": ".safetensors"}.get(to, ".onnx")
    with pytest.raises(ConfigError, match=reason):
        run([str(model_file), *words, "--out", str(tmp_path / f"a{suffix}")])
    assert list(tmp_path.iterdir()) == []


def test_the_package_comes_from_the_registry_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "registry" / "onnxruntime-web" / "-"
    folder.mkdir(parents=True)
    dist = tmp_path / "package" / "dist"
    dist.mkdir(parents=True)
    for name in (*web.WASM, *web.WEBGPU[0], "ort.all.js"):
        (dist / name).write_text(name)
    with tarfile.open(folder / web.PACKAGE, "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    digest = hashlib.sha512((folder / web.PACKAGE).read_bytes()).digest()
    monkeypatch.setattr(web, "SHA512", base64.b64encode(digest).decode())
    cache = tmp_path / "cache"
    with served(tmp_path / "registry") as address:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        files = web.runtime_files(None, cache)
        assert {name: content.decode() for name, content in files.items()} == {
            name: name for name in (*web.WASM, *web.WEBGPU[0])
        }
        monkeypatch.setattr(web, "SHA512", "another")
        with pytest.raises(FetchError, match="another SHA-512"):
            web.runtime_files(None, tmp_path / "second")
    monkeypatch.setattr(web, "SHA512", base64.b64encode(digest).decode())
    assert web.runtime_files(None, cache) == files  # the server is gone
    monkeypatch.setattr(web, "download", _no_network)
    with pytest.raises(FetchError, match=r"place the file at .*third.*\.tgz, or name .* with --ort"):
        web.runtime_files(None, tmp_path / "third")
    assert web.runtime_files(tmp_path / "package") == web.runtime_files(dist) == files
    (dist / web.WASM[1]).unlink()
    with pytest.raises(ConfigError, match=r"has no ort-wasm-simd-threaded.mjs"):
        web.runtime_files(dist)


def _no_network(url: str, file: Path, **settings: Any) -> None:
    raise FetchError(f"{url}: the server does not answer")
