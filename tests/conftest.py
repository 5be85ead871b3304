"""Fixtures of several tests: digit scenes, sets made by hand, a cheap backbone, a model file, a browser."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from ray_cluster import RayCluster, undisturbed
from torch import Tensor, nn

from fssd.backbones import efficientnet_lite
from fssd.backbones.efficientnet_lite import STAGES
from fssd.data.sample import DataSet, Record
from fssd.data.scenes import CLASSES, make_scenes
from fssd.export.graph import OPSET, trace
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import save_model

# Real data sets and weights are not part of the project. Tests that want them look here, and say so when
# they are skipped: the folders these variables name, or else a folder `shared` beside the checkout.
for _variable, _folder in (("FSSD_TEST_DATA", "data"), ("FSSD_TEST_WEIGHTS", "weights")):
    _beside = Path(__file__).parents[2] / "shared" / _folder
    if _variable not in os.environ and _beside.is_dir():
        os.environ[_variable] = str(_beside)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: most of their time is waiting, which the other process of pytest fills."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none; FSSD_TEST_DEVICE=cpu tries these tests on a CPU."""
    wanted = os.environ.get("FSSD_TEST_DEVICE", "cuda")
    if item.get_closest_marker("cuda") and wanted == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


_POLICY = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None


def pytest_runtest_teardown() -> None:
    """A test that left its process with real-time scheduling would starve all that come after it."""
    if _POLICY is not None and os.sched_getscheduler(0) != _POLICY:
        os.sched_setscheduler(0, _POLICY, os.sched_param(0))
        pytest.fail("the test has changed the scheduling of this process, and not changed it back")


class TinyBackbone(nn.Module):
    """Three maps of 8 channels, 38, 19 and 10 cells a side; the same weights every time."""

    mean = (123.0, 117.0, 104.0)
    std = (58.0, 57.0, 57.0)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.fine = nn.Conv2d(3, 8, 8, stride=8, padding=2)
            self.middle = nn.Conv2d(8, 8, 3, stride=2, padding=1)
            self.coarse = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.fine(images).relu()
        middle = self.middle(fine).relu()
        return {"fine": fine, "middle": middle, "coarse": self.coarse(middle).relu()}


@pytest.fixture(scope="session")
def tiny_backbone() -> Callable[[], nn.Module]:
    """Makes a small backbone, always with the same weights."""
    return TinyBackbone


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC folder of 12 training scenes, one of them empty, and 4 of validation. Not to be changed."""
    pytest.importorskip("sklearn", reason='the scenes need scikit-learn: pip install "fssd[demo]"')
    pytest.importorskip("skimage", reason='the scenes need scikit-image: pip install "fssd[demo]"')
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", train=12, val=4)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of an untrained fssd300-lite for digits: it finds many objects, none of them correct."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("fssd300-lite", len(CLASSES))
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    save_model(path, network.state_dict(), network, CLASSES, {"iteration": 0})
    return path


EXPORTED = ("eight", "five", "zero")  # three of the digit scenes, of detectors that are exported


def outspoken(network: Network) -> Network:
    """The network with class scores that differ from prior to prior, as after training."""
    generator = torch.Generator().manual_seed(7)
    for head in network.heads.conf:
        last = head[-1] if isinstance(head, nn.Sequential) else head
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        last.weight.data.mul_(4)
        last.bias.data.normal_(0, 1, generator=generator)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
        if norm.affine and not norm.weight.any():  # a light block that starts as its shortcut alone
            norm.weight.data.uniform_(0.2, 0.6, generator=generator)
    return network.eval()


@pytest.fixture(scope="session")
def detectors(tiny_backbone: Callable[[], nn.Module]) -> dict[str, Detector]:
    """Untrained detectors: the two lite models, and FSSD's neck on a backbone that costs next to nothing.

    `small` is `tiny` at 128 px instead of 300.
    """
    made = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("fssd300-lite", "ssd300-lite"):
            network = outspoken(build_model(name, len(EXPORTED)))
            made[name] = Detector(network, EXPORTED, {"iteration": 7})
        for name, size in (("tiny", 300), ("small", 128)):
            network = build_model("fssd300-lite", len(EXPORTED), backbone=tiny_backbone(), size=size)
            made[name] = Detector(outspoken(network), EXPORTED, {"iteration": 7})
    return made


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test of something else: an exported file is compared on 5 images and not on all."""
    monkeypatch.setattr("fssd.export.images.CHECKED", 5)


@contextmanager
def short_stages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet_lite, "STAGES", tuple(s._replace(repeats=1) for s in STAGES))
        patch.setattr(efficientnet_lite, "TAPS", {2: 4, 3: 8, 5: 16})
        yield


@pytest.fixture
def few_blocks() -> Iterator[None]:
    """For a test of something else: EfficientNet-lite0 with a block a stage and the same maps."""
    with short_stages():
        yield


@pytest.fixture(scope="module")
def few_blocks_in_module() -> Iterator[None]:
    """`few_blocks` for all tests of a module from the first that asks for it on."""
    with short_stages():
        yield


@pytest.fixture
def one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test whose exports are all of one network: it is traced once for each opset."""
    kept: dict[int, Any] = {}

    def traced(network: Network, opset: int = OPSET) -> Any:
        if opset not in kept:
            kept[opset] = trace(network, opset)
        copy = type(kept[opset])()
        copy.CopyFrom(kept[opset])
        return copy

    monkeypatch.setattr("fssd.export.write.trace", traced)


@pytest.fixture(scope="session")
def traced(detectors: dict[str, Detector], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Gives the ONNX graph of one of `detectors`, new each time; traced once for all processes of pytest."""
    onnx = pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
    pytest.importorskip("onnxscript", reason='needs onnxscript: pip install "fssd[export]"')
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of this run, while without other processes it would be that of all runs

    def get(name: str) -> Any:
        file = folder / f"{name}.onnx"
        with FileLock(f"{file}.lock"):
            if not file.is_file():
                onnx.save(trace(detectors[name].network), file)
        return onnx.load(file)

    return get


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a package as good as not installed."""
    return lambda package: monkeypatch.setitem(sys.modules, package, None)


Rows = Sequence[tuple[int, Sequence[float]]]  # label, box
Scored = Sequence[tuple[int, float, Sequence[float]]]  # label, score, box
MakeSet = Callable[..., tuple[DataSet, list[Detections]]]


def record(rows: Rows, name: str, path: Path, difficult: Sequence[int], crowd: Sequence[int]) -> Record:
    flags = np.zeros((2, len(rows)), bool)
    flags[0, list(difficult)] = True
    flags[1, list(crowd)] = True
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    labels = np.array([label for label, _ in rows], np.int64)
    return Record(name, path, path, None, None, boxes, labels, flags[0], flags[1])


def detections(rows: Scored, classes: tuple[str, ...]) -> Detections:
    return Detections(
        np.array([box for *_, box in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([label for label, *_ in rows], np.int64),
        classes,
    )


@pytest.fixture(scope="session")
def make_set() -> MakeSet:
    """Makes a data set and detections in it: make_set([(objects, detections), ...], classes)."""

    def make(
        images: Sequence[tuple[Rows, Scored]],
        classes: tuple[str, ...] = ("cat", "dog"),
        *,
        paths: Sequence[Path] | None = None,
        difficult: Sequence[int] = (),
        crowd: Sequence[int] = (),
    ) -> tuple[DataSet, list[Detections]]:
        files = paths or [Path(f"{number}.png") for number in range(len(images))]
        records = tuple(
            record(rows, str(number), file, difficult, crowd)
            for number, ((rows, _), file) in enumerate(zip(images, files, strict=True), 1)
        )
        return DataSet(classes, records), [detections(found, classes) for _, found in images]

    return make


@pytest.fixture(scope="session")
def _started_cluster() -> Iterator[RayCluster]:
    if find_spec("ray") is None:
        pytest.skip('needs Ray: pip install "fssd[ray]"')
    with undisturbed():
        cluster = RayCluster()
    yield cluster
    cluster.close()


@pytest.fixture
def ray_cluster(_started_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """The Ray cluster of this session, for one test at a time; RAY_ADDRESS leads to it. See `RayCluster`."""
    monkeypatch.setenv("RAY_ADDRESS", _started_cluster.address)
    with undisturbed():
        yield _started_cluster


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server of this session, in a process of its own."""
    pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')
    pytest.importorskip("moto.server", reason='needs moto: pip install "moto[s3,server]"')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, "the S3 server ended"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(240)


S3_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket, such as `s3://test-1a2b`; the environment leads children to it too."""
    from pyarrow.fs import S3FileSystem

    for name, value in {**S3_SETTINGS, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{secrets.token_hex(6)}"
    options = {
        "scheme": "http",
        "endpoint_override": s3_server.removeprefix("http://"),
        "region": "us-east-1",
    }
    S3FileSystem(allow_bucket_creation=True, **options).create_dir(bucket)
    return f"s3://{bucket}"


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--no-sandbox",  # root, as in most containers, cannot have one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, with a fresh profile (a playwright Browser); or a skip that says why.

    Of a module, not of the session: while it is open no other test of the process could use asyncio.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("needs Chromium, on Debian: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, headless=True, args=list(CHROMIUM_FLAGS))
        yield opened
        opened.close()
