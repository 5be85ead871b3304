"""ncnn's files: converted, read again with the same detections, and refused when they are damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fssd.errors import CheckpointError, ConfigError, ExportError
from fssd.export.write import export_model
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.runtimes.ncnn import renamed

for _package in ("onnx", "onnxscript", "pnnx", "ncnn"):
    pytest.importorskip(_package, reason=f'needs {_package}: pip install "fssd[ncnn]"')


@pytest.fixture(scope="module")
def file(detectors: dict[str, Detector], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ncnn") / "tiny.ncnn.param"
    done = export_model(detectors["tiny"], path, "ncnn")
    assert done.parity is not None and done.parity.images == 33 and done.parity.detections > 100
    return path


def test_three_files_that_open_like_any_model(file: Path, detectors: dict[str, Detector]) -> None:
    names = ["tiny.ncnn.bin", "tiny.ncnn.json", "tiny.ncnn.param"]
    assert sorted(path.name for path in file.parent.iterdir()) == names
    image = np.random.default_rng(3).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    mine, theirs = (one(image, score=0.3) for one in (Detector.load(file), detectors["tiny"]))
    assert len(mine.scores) == len(theirs.scores) > 0
    np.testing.assert_allclose(mine.boxes, theirs.boxes, rtol=0, atol=0.01)
    blobs = {name for line in file.read_text().splitlines()[2:] for name in line.split()[4:]}
    assert {"images", "offsets", "logits"} <= blobs, "blobs have the names of the graph's ends"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_answers(file: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    detector = Detector.load(file, threads=2)
    before = len(detector(image, score=0.3).scores)
    child = os.fork()
    if not child:
        os._exit(0 if len(detector(image, score=0.3).scores) == before else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_norms_of_pixels(
    tiny_backbone: Callable[[], nn.Module], few_pictures: None, one_trace: None, tmp_path: Path
) -> None:
    """SSD's L2 norm: pnnx writes no axis for its sum, and some pixels are 0 in all channels after ReLU."""
    torch.manual_seed(0)
    network = build_model("fssd300-lite", 3, size=128, backbone=tiny_backbone(), source_norm="l2").eval()
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.affine):
        norm.weight.data.fill_(0.5)  # a light block starts as its shortcut alone, with 0
    detector = Detector(network, ("one", "two", "three"), {})
    for to, file in (("onnx", "a.onnx"), ("ncnn", "a.ncnn.param")):
        done = export_model(detector, tmp_path / file, to)
        assert done.parity is not None and done.parity.images == 5


def test_damage_and_missing_parts(file: Path, tmp_path: Path) -> None:
    paths = [file.with_suffix(suffix) for suffix in (".param", ".bin", ".json")]
    content = [path.read_bytes() for path in paths]

    def copy(*parts: bytes | None) -> Path:
        for path, part in zip(paths, parts, strict=True):
            target = tmp_path / path.name
            target.unlink(missing_ok=True)
            if part is not None:
                target.write_bytes(part)
        return tmp_path / file.name

    changed = bytearray(content[1])
    changed[1000] ^= 4
    with pytest.raises(CheckpointError, match=r"does not fit the files beside it"):
        Detector.load(copy(content[0], bytes(changed), content[2]))
    with pytest.raises(CheckpointError, match=r"tiny.ncnn.json: is missing"):
        Detector.load(copy(content[0], content[1], None))
    with pytest.raises(CheckpointError, match=r"not a model of ncnn"):
        Detector.load(copy(b"other", content[1], content[2]))
    Detector.load(copy(*content))


def test_links_and_capitals(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "lk.param"
    link.symlink_to(file)
    assert Detector.load(link).classes
    for suffix in (".param", ".bin", ".json"):
        (tmp_path / f"W{suffix.upper()}").write_bytes(file.with_suffix(suffix).read_bytes())
    assert Detector.load(tmp_path / "W.PARAM").classes


def test_what_it_cannot_have(detectors: dict[str, Detector], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ncnn are written without --nms"):
        export_model(detectors["tiny"], tmp_path / "a.param", "ncnn", nms=Thresholds())
    with pytest.raises(ConfigError, match="ncnn are written without --fp16"):
        export_model(detectors["tiny"], tmp_path / "a.param", "ncnn", fp16=True)


def test_maps_that_are_summed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    summed = Detector(build_model("fssd300-lite", 2, size=128, merge="sum").eval(), ("a", "b"))
    done = export_model(summed, tmp_path / "sum.ncnn.param", "ncnn")
    assert done.parity is not None and done.parity.detections > 100


def test_layers_that_ncnn_lacks_are_named() -> None:
    text = "7767517\n2 2\nInput in0 0 1 in0\nTensor.to x 1 1 in0 out0\n"
    with pytest.raises(ExportError, match=r"no layer for Tensor\.to"):
        renamed(text, {})
