"""One detector for many: threads, forked processes, and other processes that get it pickled."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest

from fssd.errors import CheckpointError
from fssd.export.images import make_pictures
from fssd.heads.head import Thresholds
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.runtimes.choose import RUNTIMES
from fssd.runtimes.header import write_header
from fssd.zoo.models import PHOTOS

THREADS, IMAGES = 8, 80
SETTINGS: dict[str, Any] = {"score": 0.3, "keep": 20}
KINDS = ("torch", *(f"{name}-{end}" for name in ("onnx", "openvino") for end in ("raw", "nms", "int8")))
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}

Make = Callable[[str], Detector]


@pytest.fixture(scope="module")
def make(
    detectors: dict[str, Detector], traced: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Make:
    """A small detector of a kind; those of exported files are loaded with two threads."""
    folder = tmp_path_factory.mktemp("files")

    def get(kind: str) -> Detector:
        if kind == "torch":
            return detectors["small"]
        name, end = kind.split("-")
        missing = [package for package in PACKAGES[name] if find_spec(package) is None]
        missing += ["nncf"] if kind == "openvino-int8" and find_spec("nncf") is None else []
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")
        file = folder / f"{kind}{RUNTIMES[name].suffix}"
        if not file.is_file():
            write(file, name, end)
        return Detector.load(file, device="cpu", threads=2)

    def write(file: Path, name: str, end: str) -> None:
        network = detectors["small"].network
        graph, nms = traced("small"), Thresholds(score=0.3) if end == "nms" else None
        tail = None if nms is None else network.heads.nms_graph(nms, 18, graph.ir_version)
        header = write_header(network, detectors["small"].classes, {}, nms, "any")
        calibration = make_pictures(4, (128, 128)) if end == "int8" else None
        RUNTIMES[name].write(graph, tail, header, file, calibration)

    return get


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Different noise in each, of different sizes."""
    rng = np.random.default_rng(2)
    sizes = rng.integers(8, 60, (IMAGES, 2))
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes.tolist()]


def assert_same(one: Detections, other: Detections) -> None:
    assert np.array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_threads_get_the_answers_of_one(make: Make, images: list[np.ndarray], kind: str) -> None:
    detector = make(kind)
    expected = [detector(image, **SETTINGS) for image in images]
    different = {found.boxes.tobytes() for found in expected}
    assert len(different) > 0.9 * IMAGES, "an answer tells which image it belongs to"
    with ThreadPoolExecutor(THREADS) as pool:
        for one, other in zip(expected, pool.map(lambda i: detector(i, **SETTINGS), images), strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_several_batch_sizes_at_once(make: Make, images: list[np.ndarray], kind: str) -> None:
    """More sizes than OpenVINO keeps compiled, so that threads drop each other's."""
    detector = make(kind)
    groups = [images[start : start + size] for start, size in enumerate((1, 2, 3, 4, 5, 7, 6, 1, 2, 3))]
    expected = [detector(group, **SETTINGS) for group in groups]
    with ThreadPoolExecutor(THREADS) as pool:
        for one, other in zip(expected, pool.map(lambda g: detector(g, **SETTINGS), groups), strict=True):
            for first, second in zip(one, other, strict=True):
                assert_same(first, second)


@pytest.mark.parametrize("kind", ["torch", "onnx-raw", "openvino-raw", "openvino-nms"])
def test_asyncio(make: Make, images: list[np.ndarray], kind: str) -> None:
    detector = make(kind)

    async def all_at_once() -> list[Detections]:
        calls = (asyncio.to_thread(detector, image, **SETTINGS) for image in images[:60])
        return await asyncio.gather(*calls)

    for image, found in zip(images, asyncio.run(all_at_once()), strict=False):
        assert_same(found, detector(image, **SETTINGS))


FORKED = """
import multiprocessing, sys, threading
from fssd import Detector

detector = Detector.load(sys.argv[1], device="cpu")
image = sys.argv[2]
expected = detector(image).names
assert expected == ["cat"]

def child():
    assert detector(image).names == expected
    assert [found.names for found in detector([image] * 3)] == [expected] * 3  # a size that is new
    own = threading.Thread(target=detector, args=(image,))
    own.start()
    own.join()

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(120)
hangs = process.is_alive()
process.kill()
sys.exit("the child hangs" if hangs else process.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork of POSIX")
@pytest.mark.parametrize("model", ["animals", "animals-int8"])
def test_a_forked_process_answers(model: str) -> None:
    """The parent has used its threads before. A hanging child would be killed after two minutes."""
    if model == "animals-int8":
        pytest.importorskip("openvino", reason="needs openvino")
    words = [sys.executable, "-c", FORKED, model, str(PHOTOS[0])]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_pickled(make: Make, images: list[np.ndarray], kind: str) -> None:
    detector = Detector.load("animals", device="cpu") if kind == "torch" else make(kind)
    again = pickle.loads(pickle.dumps(detector))
    assert (again.classes, again.facts, again.image_size) == (
        detector.classes, detector.facts, detector.image_size,
    )  # fmt: skip
    found = detector(images[0], score=0.3)
    assert_same(found, again(images[0], score=0.3))
    if kind != "torch":
        assert len(found) and len(pickle.dumps(detector)) < 20_000, "the path, not the content"


def test_a_file_that_was_replaced_since_it_was_pickled(make: Make, tmp_path: Path) -> None:
    make("onnx-raw"), make("onnx-int8")
    folder = Path(make("onnx-raw").runner.reopen.args[0]).parent
    file = tmp_path / "model.onnx"
    file.write_bytes((folder / "onnx-raw.onnx").read_bytes())
    pickled = pickle.dumps(Detector.load(file))
    file.write_bytes((folder / "onnx-int8.onnx").read_bytes())
    with pytest.raises(CheckpointError, match="was replaced since it was pickled"):
        pickle.loads(pickled)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"model\.onnx: there is no such model file"):
        pickle.loads(pickled)


REPLACED = """
import shutil, sys
from fssd import Detector

folder = sys.argv[1]
detector = Detector.load(f"{folder}/model.xml")
image = sys.argv[2]
before = detector(image).names
open(f"{folder}/model.bin", "wb").close()
assert [found.names for found in detector([image] * 3)] == [before] * 3  # compiled for this size only now
"""


def test_a_bin_that_is_cut_under_an_open_detector(make: Make, tmp_path: Path) -> None:
    file = make("openvino-raw").runner.reopen.args[0]
    for suffix in (".xml", ".bin"):
        (tmp_path / f"model{suffix}").write_bytes(file.with_suffix(suffix).read_bytes())
    done = forks.run(REPLACED, tmp_path, PHOTOS[0])
    assert done.returncode == 0, (done.returncode, done.stderr)
