"""The examples print what `Detector` finds; each is skipped where its compiler or runtime is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.export import write
from fssd.export.onnxruntime_web import VERSION
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.runtimes.choose import find_runtime

EXAMPLES = Path(__file__).parents[2] / "examples"
HEADERS = ("/usr/include", "/usr/local/include", "/usr/include/onnxruntime")

for _package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install "fssd[export]"')


@pytest.fixture(scope="module")
def given(
    detectors: dict[str, Detector],
    traced: Callable[[str], Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with model.onnx, and a picture of the network's size as photo.png and photo.rgb."""
    folder = tmp_path_factory.mktemp("given")
    nms, runtime = Thresholds(score=0.3, keep=30), find_runtime("onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "trace", lambda *_: traced("tiny"))
        write.write_unchecked(detectors["tiny"], folder / "model.onnx", runtime, nms=nms)
    image = np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "photo.png"), image[..., ::-1])
    (folder / "photo.rgb").write_bytes(image.tobytes())
    return folder


def compare(printed: str, detector: Detector, given: Path, names: bool = False) -> None:
    found = detector(given / "photo.png", score=0.3, keep=30)
    rows = [line.split() for line in printed.splitlines()]
    assert len(rows) == len(found.scores) > 0
    labels = [found.names[i] if names else str(label) for i, label in enumerate(found.labels)]
    assert sorted(row[0] for row in rows) == sorted(labels)
    scores = [float(row[1]) for row in rows]
    np.testing.assert_allclose(scores, found.scores, rtol=0, atol=1e-3)
    boxes = np.clip(np.array([row[2:] for row in rows], np.float32), 0, 300)
    np.testing.assert_allclose(np.sort(boxes, axis=0), np.sort(found.boxes, axis=0), rtol=0, atol=0.2)


def printed(*command: object, folder: Path) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_python(given: Path, detectors: dict[str, Detector]) -> None:
    text = printed(
        sys.executable, EXAMPLES / "onnxruntime_python.py", "model.onnx", "photo.png", folder=given
    )
    compare(text, detectors["tiny"], given, names=True)


@pytest.mark.skipif(int(cv2.__version__.partition(".")[0]) < 5, reason="OpenCV 4 cannot read these graphs")
def test_opencv(given: Path, detectors: dict[str, Detector]) -> None:
    words = (EXAMPLES / "opencv_dnn.py", "model.onnx", "photo.png", 300)
    text = printed(sys.executable, *words, folder=given)
    compare(text, detectors["tiny"], given)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_javascript(given: Path, detectors: dict[str, Detector], tmp_path: Path) -> None:
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", f"onnxruntime-web@{VERSION}"]
    if shutil.which("npm") is None or subprocess.run(command, cwd=tmp_path, check=False).returncode:
        pytest.skip("needs npm and its registry")
    program = tmp_path / "onnxruntime_javascript.mjs"
    shutil.copy(EXAMPLES / program.name, program)
    text = printed("node", program, given / "model.onnx", given / "photo.rgb", folder=tmp_path)
    compare(text, detectors["tiny"], given)


def test_cpp(given: Path, detectors: dict[str, Detector], tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    header = next(
        (Path(folder) for folder in HEADERS if (Path(folder) / "onnxruntime_cxx_api.h").is_file()), None
    )
    if compiler is None or header is None:
        pytest.skip("needs a C++ compiler and the headers of ONNX Runtime")
    source, program = EXAMPLES / "onnxruntime_cpp.cpp", tmp_path / "detect"
    printed(compiler, "-std=c++17", f"-I{header}", source, "-lonnxruntime", "-o", program, folder=tmp_path)
    text = printed(program, given / "model.onnx", given / "photo.rgb", folder=tmp_path)
    compare(text, detectors["tiny"], given)
