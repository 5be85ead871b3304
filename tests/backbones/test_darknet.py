"""Darknet-19: its maps and counts, its files, and folding."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from fssd.backbones.backbone import probe_shapes
from fssd.backbones.darknet import Darknet19
from fssd.errors import CheckpointError

# Inputs, outputs and kernel of each convolution, from darknet19.cfg.
CONVS = [
    (3, 32, 3), (32, 64, 3), (64, 128, 3), (128, 64, 1), (64, 128, 3), (128, 256, 3), (256, 128, 1),
    (128, 256, 3), (256, 512, 3), (512, 256, 1), (256, 512, 3), (512, 256, 1), (256, 512, 3),
    (512, 1024, 3), (1024, 512, 1), (512, 1024, 3), (1024, 512, 1), (512, 1024, 3),
]  # fmt: skip
BODY = 19_831_776  # floats, of which 14,400 are running statistics


@pytest.mark.parametrize("size", [(300, 300), (416, 416), (321, 257), (608, 352)])
def test_shapes_are_those_of_a_pass(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = Darknet19()
        shapes = backbone.shapes(*size)
        assert shapes == probe_shapes(backbone, *size)
    if size == (300, 300):
        assert shapes == {"C3": (256, 38, 38), "C4": (512, 19, 19), "C5": (1024, 10, 10)}
    if size == (416, 416):
        assert shapes == {"C3": (256, 52, 52), "C4": (512, 26, 26), "C5": (1024, 13, 13)}


def test_it_has_the_18_convolutions() -> None:
    with torch.device("meta"):
        backbone = Darknet19()
    assert sum(p.numel() for p in backbone.parameters()) == 19_817_376
    convs = [m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convs] == CONVS
    assert [len(stage) for stage in backbone.stages()] == [1, 1, 3, 3, 5, 5]
    assert len(list(backbone.children())) == 18


def write_file(file: Path, floats: np.ndarray, version: tuple[int, int, int] = (0, 1, 0)) -> Path:
    """An independent writer."""
    seen = struct.pack("<i", 77) if version[1] < 2 else struct.pack("<Q", 77)
    file.write_bytes(struct.pack("<3i", *version) + seen + floats.astype("<f4").tobytes())
    return file


def random_body(extra: int = 0) -> np.ndarray:
    return np.random.default_rng(0).random(BODY + extra, np.float32)


@pytest.mark.parametrize(
    "name, extra, version",
    [
        ("darknet19_448.conv.23", 0, (0, 1, 0)),
        ("body.weights", 0, (0, 2, 5)),
        ("darknet19.weights", 1000 * 1025, (0, 1, 0)),
        ("yolov2-voc.weights", 50_676_061 - BODY, (0, 1, 0)),
        ("yolo-voc.weights", (268_632_452 - 16) // 4 - BODY, (0, 1, 0)),
    ],
)
def test_read_takes_the_body_of_a_file(
    tmp_path: Path, name: str, extra: int, version: tuple[int, int, int]
) -> None:
    floats = random_body(extra)
    file = write_file(tmp_path / name, floats, version)
    with torch.device("meta"):
        tensors = Darknet19().read(file)
    assert tensors is not None
    place = 0
    for number, (inputs, outputs, kernel) in enumerate(CONVS, start=1):
        for key in ("1.bias", "1.weight", "1.running_mean", "1.running_var"):
            assert (tensors[f"conv{number}.{key}"].numpy() == floats[place : place + outputs]).all()
            place += outputs
        weight = tensors[f"conv{number}.0.weight"]
        assert weight.shape == (outputs, inputs, kernel, kernel)
        assert (weight.numpy().ravel() == floats[place : place + weight.numel()]).all()
        place += weight.numel()
    assert place == BODY
    assert len(tensors) == 18 * 5


@pytest.mark.parametrize("extra", [-1, 1, 1025, 50_676_061 - BODY + 1])
def test_read_refuses_another_length(tmp_path: Path, extra: int) -> None:
    file = tmp_path / "other.weights"
    with file.open("wb") as handle:
        handle.write(struct.pack("<4i", 0, 1, 0, 0))
        handle.truncate(16 + 4 * (BODY + extra))
    with (
        torch.device("meta"),
        pytest.raises(CheckpointError, match=r"bytes; the 18 convolutions .* 79,327,120"),
    ):
        Darknet19().read(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"x" * 64,
        struct.pack("<4i", 0, 1, 0, 0) + b"123",
        struct.pack("<4i", 0, 2, 0, 0),  # ends within the header of this version
        struct.pack("<3iQ", 0, 2, 0, 2**63) + bytes(8),  # more images than anybody has
    ],
)
def test_read_refuses_what_is_no_darknet_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.weights"
    file.write_bytes(content)
    with torch.device("meta"), pytest.raises(CheckpointError, match=r"is damaged or not a darknet"):
        Darknet19().read(file)


def test_other_files_are_read_as_pytorch(tmp_path: Path) -> None:
    with torch.device("meta"):
        assert Darknet19().read(tmp_path / "body.pth") is None


def test_folding_changes_no_output() -> None:
    torch.manual_seed(0)
    backbone = Darknet19().eval()
    for norm in (m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    images = torch.rand(1, 3, 64, 96) * 255
    std = torch.full((3, 1, 1), 255.0)
    with torch.no_grad():
        expected = backbone(images / std)
        rest = backbone.fold(std)
        folded = backbone(images / rest)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in backbone.modules())
    for name, x in expected.items():
        torch.testing.assert_close(folded[name], x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))
