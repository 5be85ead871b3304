"""Whether an exported page finds in a browser what PyTorch finds: the network alone, and the whole page."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from fssd.counted import counted
from fssd.data.geometry import Geometry
from fssd.data.sample import Image
from fssd.errors import ExportError
from fssd.export.browser import open_browser, served
from fssd.export.images import fill_up
from fssd.export.parity import HALVED, ROUNDING, Parity, Tolerance, check, compare
from fssd.heads.head import Candidates, Found, Thresholds
from fssd.inference.detector import Detector
from fssd.inference.draw import encode_png
from fssd.model.network import Network
from fssd.runtimes.runner import Runner

PATIENCE = 600_000  # milliseconds after which a wait fails, on a machine however busy
PICTURES = 3  # that go through the whole page
SHAPE = (1.7, 1.3)  # of these pictures, in sides of the input: neither its size nor its proportions
# A picture is scaled by two programs, which may differ by a grey level.
SCALED = Tolerance(box=1.0, share=0.025, score=0.02, overlap=0.05, tie=0.02)

OPEN = """async (on) => {
    const { Network, hasWebGpu } = await import("./assets/network.js");
    const model = await (await fetch("model.json")).json();
    if (on === "webgpu" && !(model.webgpu && (await hasWebGpu()))) return 0;
    window.network = await Network.open(location.href, model, on);
    return window.network.threads;
}"""
RUN = """(text) => window.network.run(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)))"""


class SiteParity(NamedTuple):
    """How closely a page agrees with PyTorch.

    browser: name and version. threads: of WebAssembly. wasm, webgpu: the network's detections on the check
    images; None where there is no WebGPU. page: those of pictures in the whole page.
    """

    browser: str
    threads: int
    wasm: Parity
    webgpu: Parity | None
    page: Parity

    def __str__(self) -> str:
        threads = counted(self.threads, "thread")
        lines = [f"{self.browser}, WebAssembly, {threads}: {self.wasm}"]
        lines.append(f"{self.browser}, WebGPU: {self.webgpu or 'there is none, so it was not checked'}")
        return "\n".join([*lines, f"the page: {self.page}"])


class _PageRunner(Runner):
    """The network in a page; `predict` gives its detections."""

    def __init__(self, page: Any, geometry: Geometry, defaults: Thresholds) -> None:
        self.page, self.geometry, self.defaults = page, geometry, defaults

    def predict(self, images: Tensor) -> list[Found]:
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        return [as_found(self.page.evaluate(RUN, base64.b64encode(one).decode())) for one in pixels]

    def rows(self, predicted: list[Found]) -> list[list[Found]]:
        return [[found] for found in predicted]

    def finish(self, predicted: list[Found], **settings: Any) -> list[Found]:  # noqa: ARG002 (built in)
        return predicted


def as_found(answer: dict[str, Any]) -> Found:
    """The answer of network.js."""
    boxes = torch.tensor(answer["boxes"], dtype=torch.float32).reshape(-1, 4)
    return Found(boxes, torch.tensor(answer["scores"]), torch.tensor(answer["labels"], dtype=torch.int64))


def check_site(
    detector: Detector, folder: Path, nms: Thresholds, images: Tensor | None, fp16: bool = False
) -> SiteParity:
    """Compare a page in Chromium with PyTorch. Raises ConfigError if there is no browser, ExportError.

    images: (N, 3, H, W) uint8 RGB; synthetic ones are added to a small number.
    """
    # In a thread of its own, because playwright refuses a thread with an event loop, such as a notebook's.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_check, detector, folder, nms, images, fp16).result()


def _check(
    detector: Detector, folder: Path, nms: Thresholds, images: Tensor | None, fp16: bool
) -> SiteParity:
    network = detector.network
    tolerance = HALVED if fp16 else ROUNDING
    with served(folder) as address, open_browser() as browser:
        context = browser.new_context()
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        _until_ready(page, problems)
        runner = _PageRunner(page, network.geometry, nms)
        threads = page.evaluate(OPEN, "wasm")
        wasm = check(network, runner, nms, images, tolerance)
        webgpu = None
        if page.evaluate(OPEN, "webgpu"):
            webgpu = check(network, runner, nms, images, HALVED)  # graphics processors round otherwise
        shown = _check_page(page, detector, nms, fill_up(images, network.image_size))
        if problems:
            raise ExportError(f"the page reports an error ({problems[0]}); nothing was written")
        return SiteParity(f"Chromium {browser.version}", threads, wasm, webgpu, shown)


def _until_ready(page: Any, problems: Sequence[str]) -> None:
    page.wait_for_selector("html[data-ready], #problem:not([hidden])", state="attached")
    if page.is_visible("#problem"):
        text = "; ".join([page.inner_text("#problem-text"), *problems])
        raise ExportError(f"the page does not work in Chromium ({text}); nothing was written")


def _check_page(page: Any, detector: Detector, nms: Thresholds, images: Tensor) -> Parity:
    """Give the page the pictures that show most, and compare what it offers as JSON."""
    least = float(page.get_attribute("#threshold", "min")) / 100
    thresholds = Thresholds(max(nms.score, least), nms.nms, nms.top_k, nms.keep)
    network = detector.network
    pictures = sorted(
        _pictures(images, network), key=lambda one: -len(_expected(network, one, nms)[0].scores)
    )
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for index, picture in enumerate(pictures[:PICTURES]):
            file = Path(folder) / f"{index}.png"
            file.write_bytes(encode_png(picture))
            found.append(_shown(page, file, detector))
    expected, candidates = zip(
        *(_expected(network, one, thresholds) for one in pictures[:PICTURES]), strict=True
    )
    if not any(len(one.scores) for one in (*expected, *found)):
        return Parity(images=PICTURES)
    return compare(expected, candidates, found, thresholds, SCALED)


def _pictures(images: Tensor, network: Network) -> Iterator[Image]:
    """The check images in another size, so that the page has to scale them."""
    width, height = network.image_size
    size = (round(SHAPE[0] * width), round(SHAPE[1] * height))
    for image in images:
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        yield np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8)


@torch.inference_mode()
def _expected(network: Network, picture: Image, thresholds: Thresholds) -> tuple[Found, Candidates]:
    """PyTorch's detections and candidates in a picture, clipped to it, in pixels of the input."""
    pixels = torch.from_numpy(network.geometry.apply(picture)).permute(2, 0, 1)[None]
    raw = network(pixels.float())
    (found,), (candidates,) = network.heads.detect(raw, thresholds), network.heads.candidates(raw)
    size = picture.shape[1], picture.shape[0]

    def clipped(boxes: Tensor) -> Tensor:
        geometry = network.geometry
        return torch.from_numpy(geometry.apply_boxes(geometry.undo(boxes.numpy(), size), size))

    return found._replace(boxes=clipped(found.boxes)), candidates._replace(boxes=clipped(candidates.boxes))


def _shown(page: Any, file: Path, detector: Detector) -> Found:
    """The objects of a picture that the page saves as JSON, with the slider at its lowest."""
    page.set_input_files("#pick", file)
    page.wait_for_function(
        "(name) => document.querySelector('#problem:not([hidden])')"
        " || (document.querySelector('#app').dataset.state === 'done'"
        " && document.querySelector('#file').textContent.startsWith(`${name}, `))",
        arg=file.name,
    )
    _until_ready(page, [])
    page.locator("#threshold").fill(page.get_attribute("#threshold", "min"))
    with page.expect_download() as download:
        page.click("#save-json")
    (row,) = json.loads(Path(download.value.path()).read_bytes())
    boxes = np.array([one["box"] for one in row["objects"]], np.float32).reshape(-1, 4)
    geometry = detector.network.geometry
    return Found(
        torch.from_numpy(geometry.apply_boxes(boxes, (row["width"], row["height"]))),
        torch.tensor([one["score"] for one in row["objects"]]),
        torch.tensor([detector.classes.index(one["name"]) for one in row["objects"]], dtype=torch.int64),
    )
