"""A head whose scores are sigmoids, with no background: exported, reduced to some classes, started from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fssd.data.scenes import CLASSES
from fssd.errors import CheckpointError
from fssd.export import images as pictures
from fssd.export.write import export_model
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import load_model, save_model
from fssd.weights.subset import write_subset
from fssd.weights.transfer import load_detector

NMS = Thresholds(score=0.05, nms=0.4, top_k=150, keep=60)


def vivid(network: Network) -> Network:
    """The network with class scores that differ from prior to prior, as after training."""
    generator = torch.Generator().manual_seed(7)
    for head in network.heads.conf:  # type: ignore[union-attr]
        last = head[-1] if isinstance(head, nn.Sequential) else head
        last.weight.data.mul_(4)
        last.bias.data.add_(torch.randn(len(last.bias), generator=generator))
    return network.eval()


@pytest.fixture
def detector(tiny_backbone: Callable[[], nn.Module]) -> Detector:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("fssd300-lite", 3, backbone=tiny_backbone(), conf_loss="quality_focal")
    return Detector(vivid(network), ("a", "b", "c"), {"iteration": 7})


@pytest.fixture
def looked_at() -> np.ndarray:
    """(300, 300, 3) uint8."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (300, 300, 3), dtype=torch.uint8, generator=generator).numpy()


def test_an_exported_file_finds_what_pytorch_finds(
    detector: Detector,
    looked_at: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_trace: None,
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    monkeypatch.setattr(pictures, "CHECKED", 5)
    expected = detector(looked_at, **vars(NMS))
    assert len(expected.scores) > 0
    for to, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        for nms in (None, NMS):
            out = tmp_path / f"a{suffix}"
            done = export_model(detector, out, to, nms=nms)
            assert done.parity is not None
            assert done.parity.detections > 100 and done.parity.box < 0.01 and done.parity.score < 1e-4
            found = Detector.load(out)(looked_at, **vars(NMS))
            assert found.scores.tolist() == pytest.approx(expected.scores.tolist(), abs=1e-4)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Network]:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = vivid(build_model("ssd300-lite", len(CLASSES), size=128, conf_loss="focal"))
    file = tmp_path / "whole" / "best.safetensors"
    file.parent.mkdir()
    save_model(file, network.state_dict(), network, CLASSES, {})
    return file, network


def test_a_subset_keeps_the_scores_of_its_classes(saved: tuple[Path, Network], tmp_path: Path) -> None:
    file, network = saved
    part, *_ = write_subset(file, ["seven", "two"], tmp_path / "part")
    loaded = load_model(part).network.eval()
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad():
        whole, some = network(image).logits, loaded(image).logits
    indices = [CLASSES.index("seven"), CLASSES.index("two")]
    assert some.shape[-1] == 2
    torch.testing.assert_close(some, whole[..., indices])


def test_starting_from_it_keeps_the_scores_of_shared_classes(saved: tuple[Path, Network]) -> None:
    file, before = saved
    image = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 255
    network = build_model("ssd300-lite", 2, size=128, conf_loss="quality_focal")
    assert load_detector(network, ("horse", "seven"), file).classes == ("seven",)
    with torch.no_grad():
        old, new = before(image).logits, network.eval()(image).logits
    torch.testing.assert_close(new[..., 1], old[..., CLASSES.index("seven")])
    other = build_model("ssd300-lite", 1, size=128, conf_loss="focal")
    assert load_detector(other, ("horse",), file).classes == ()


def test_scores_of_another_kind_are_refused(saved: tuple[Path, Network]) -> None:
    with pytest.raises(CheckpointError, match="give the conf_loss that it was trained with"):
        load_detector(build_model("ssd300-lite", 2, size=128), ("horse", "seven"), saved[0])
