"""YOLOv2: published counts, reorg's golden tensor, options, and a whole life of a small one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fssd.bench.subject import open_subject
from fssd.config.train_config import TrainConfig
from fssd.data.geometry import Letterbox
from fssd.data.source import open_data
from fssd.errors import ConfigError
from fssd.evaluation.evaluate import evaluate_detections
from fssd.export.images import make_pictures
from fssd.export.trial import Trial
from fssd.export.write import export_model
from fssd.heads.head import Thresholds
from fssd.heads.yolov2.yolov2_head import WARM_IMAGES, YOLOv2Head
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from fssd.model.fold import fold
from fssd.model.network import Network
from fssd.necks.yolov2 import reorganise
from fssd.runtimes.choose import RUNTIMES
from fssd.training.loop import train
from fssd.weights.checkpoint import load_model, read_tensors, save_model
from fssd.weights.subset import write_subset
from fssd.weights.transfer import load_detector


class Small(nn.Module):
    """Maps of stride 8, 16 and 32 with 8, 16 and 24 channels; the same weights every time."""

    std = (255.0, 255.0, 255.0)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU())
            self.middle = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
            self.last = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.stem(images)
        middle = self.middle(fine)
        return {"fine": fine, "middle": middle, "last": self.last(middle)}


def meta(name: str, classes: int = 20, **options: Any) -> Network:
    with torch.device("meta"):
        return build_model(name, classes, **options)


def small(classes: int, **options: Any) -> Network:
    torch.manual_seed(3)
    return build_model("yolov2-128", classes, backbone=Small(), width=32, **options)


def config_for(data: Path, out: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        model="yolov2-128",
        options={"width": 32},
        data=data,
        out=out,
        start="nothing",
        iterations=6,
        batch_size=2,
        lr=1e-3,
        clip_norm=10.0,
        warmup=1,
        ema=0.9,
        workers=0,
        amp="off",
        augment="yolo",
        threads=1,
    )
    return replace(base, **changes)


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("name", "classes", "options", "learnable", "operations"),
    [
        ("yolov2-416", 20, {}, 50_655_389, 29.36),
        ("yolov2-416", 80, {}, 50_962_889, 29.46),
        ("yolov2-608", 80, {"priors": "coco"}, 50_962_889, 62.938),
        ("yolov2-352", 20, {}, 50_655_389, 21.02),
        ("yolov2-544", 20, {}, 50_655_389, 50.21),
        ("yolov2-416", 20, {"generation": 2016}, 67_137_565, None),
    ],
    ids=str,
)
def test_published_counts(
    name: str, classes: int, options: dict[str, Any], learnable: int, operations: float | None
) -> None:
    """62.94 billion operations at 608 px on COCO are darknet's published number."""
    network = meta(name, classes, **options)
    assert parameters(network) == learnable
    if operations is not None:
        assert 2 * multiply_adds(network) / 1e9 == pytest.approx(operations, abs=0.005)


def test_priors_cells_and_geometry() -> None:
    network = meta("yolov2-416")
    assert network.geometry == Letterbox((416, 416))
    assert (network.neck.cells, network.neck.steps, network.neck.channels) == ([(13, 13)], [(32, 32)], [1024])
    raw = network(torch.zeros(1, 3, 416, 416, device="meta"))
    assert [tuple(part.shape) for part in raw] == [(1, 125, 13, 13)]
    assert "845" in network.heads.summary()  # 13 * 13 * 5
    wide = meta("yolov2-416", 2, size=[320, 192])
    assert wide(torch.zeros(1, 3, 192, 320, device="meta"))[0].shape == (1, 35, 6, 10)
    assert network.heads.prior_shapes()[0].tolist() == pytest.approx([1.3221 * 32, 1.73145 * 32])


def test_reorg_is_darknets_permutation() -> None:
    """From the index formula: not the space-to-depth that one would expect."""
    channels, rows, columns = 8, 4, 6
    x = torch.arange(channels * rows * columns).float()
    that = x.reshape(channels // 4, 2 * rows, 2 * columns)
    golden = torch.empty(channels, rows, columns)
    for k in range(channels):
        for j in range(rows):
            for i in range(columns):
                offset = k // (channels // 4)
                golden[k, j, i] = that[k % (channels // 4), 2 * j + offset // 2, 2 * i + offset % 2]
    found = reorganise(x.reshape(1, channels, rows, columns))
    assert torch.equal(found, golden.reshape(1, 4 * channels, rows // 2, columns // 2))
    assert found[0, 0, 0].tolist() == [0, 2, 4] and found[0, 16, 0].tolist() == [12, 14, 16]
    plain = torch.nn.functional.pixel_unshuffle(x.reshape(1, channels, rows, columns), 2)
    assert not torch.equal(found.sort(dim=1).values, plain.sort(dim=1).values)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 400}, "exactly twice the rows and columns .* multiples of 32"),
        ({"generation": 2018}, "no generation 2018 of YOLOv2; did you mean '201"),
        ({"generation": True}, "no generation True"),
        ({"width": 0}, "width is 0; it is a number of channels"),
        ({"neck": "ssd", "backbone": "vgg16"}, "predicts from one map, but this neck gives [67]"),
        ({"merge": "sum"}, "yolov2-416 has no option 'merge'"),
        ({"geometry": "warped"}, "no geometry 'warped'; did you mean 'warp'"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        meta("yolov2-416", 2, **options)


@pytest.mark.parametrize("name", ["yolov2-100", "yolov2-2048"])
def test_sides_have_bounds(name: str) -> None:
    with pytest.raises(ConfigError, match="between 128 and 1024"):
        meta(name)


def test_a_wrong_name_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean 'yolov2-416'"):
        meta("yolo-416")


def test_the_generations_differ_in_the_weight_of_boxes() -> None:
    assert meta("yolov2-416").heads.by_size and not meta("yolov2-416", generation=2016).heads.by_size


# ---------------------------------------------------------------- its life


def test_the_pull_towards_anchors_ends_with_the_images_seen() -> None:
    network = small(2)
    targets = network.heads.targets(np.array([[10, 10, 60, 90]], np.float32), np.array([1], np.int64))
    batch = {key: value[None] for key, value in targets.items()}
    raw = network(torch.rand(1, 3, 128, 128) * 255)
    assert network.heads.loss(raw, batch)["loss_prior"] > 0
    network.heads.count_images(WARM_IMAGES - 1)
    assert network.heads.loss(raw, batch)["loss_prior"] > 0
    network.heads.count_images(1)
    assert network.heads.loss(raw, batch)["loss_prior"] == 0
    assert int(network.state_dict()["heads.seen"]) == 12_800


def test_a_few_updates_lower_the_loss() -> None:
    network = small(3)
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(1)) * 255
    boxes = np.array([[10, 10, 60, 90], [70, 30, 120, 60]], np.float32)
    one = network.heads.targets(boxes, np.array([1, 2], np.int64))
    targets = {key: torch.stack([value, value]) for key, value in one.items()}
    sgd = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    losses = []
    for _ in range(12):
        sgd.zero_grad()
        loss = network.heads.loss(network(images), targets)["loss"]
        loss.backward()
        sgd.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_folding_changes_nothing() -> None:
    network = small(2)
    images = torch.rand(2, 3, 128, 128) * 255
    with torch.no_grad():
        for _ in range(3):
            network(images)
        network.eval()
        folded = fold(network)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.neck.modules())
        torch.testing.assert_close(folded(images)[0], network(images)[0], rtol=1e-3, atol=1e-4)


def test_it_trains_evaluates_exports_and_opens(
    scenes: Path, tmp_path: Path, one_trace: None, few_pictures: None
) -> None:
    pytest.importorskip("onnx", reason='needs onnx: pip install "fssd[export]"')
    pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')
    train(config_for(scenes, tmp_path / "run", multi_scale=(128, 192)), backbone=Small())
    detector = Detector.load(tmp_path / "run", backbone=Small())
    assert int(detector.network.heads.seen) == 12
    data = open_data(scenes, "val")
    found = list(detector.evaluate_on(data))
    assert 0 <= evaluate_detections(data, found).map <= 1
    assert max(map(len, found)) > 200  # darknet has no limit, SSD that one
    image = data.records[0].path
    exports = {name: RUNTIMES[name] for name in ("onnx", "openvino")}
    for to, runtime in exports.items():
        for nms in (None, Thresholds()):
            file = tmp_path / f"{to}-{nms is None}{runtime.suffix}"
            parity = export_model(detector, file, to, nms=nms).parity
            assert parity is not None and parity.detections > 0
            limits = {"top_k": 400, "keep": 200}
            opened = Detector.load(file)(image, score=0.02, **limits)
            assert len(opened) == len(detector(image, score=0.02, **limits)) > 0
    again = list(Detector.load(tmp_path / "onnx-True.onnx").evaluate_on(data))
    assert list(map(len, again)) == list(map(len, found))  # the file knows the thresholds of its head
    trial = Trial(make_pictures(6, (128, 128)), data, few=True)
    for to, runtime in exports.items():
        eight = tmp_path / f"{to}-int8{runtime.suffix}"
        assert export_model(detector, eight, to, trial=trial, allow_drop=True).maps is not None
        assert Detector.load(eight).facts["precision"] == "int8"


def test_a_name_can_be_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fssd.model.designs.SYSTEMS", {"yolov2": _light_system()})
    subject = open_subject("yolov2-128", tmp_path, device="cpu")
    assert subject.random and subject.multiply_adds
    assert subject.detector.image_size == (128, 128)


def _light_system() -> Any:
    from fssd.model.designs import SYSTEMS

    return SYSTEMS["yolov2"]._replace(backbone="lite")


# ---------------------------------------------------------------- training


MODELS = ("last.safetensors", "final.safetensors", "best.safetensors")


def test_multi_scale_runs_resume_in_the_same_bytes(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after every update; each has another side."""
    monkeypatch.setattr("fssd.data.scales.UPDATES", 1)
    changes = {"multi_scale": (128, 192), "iterations": 6, "save_every": 1, "warmup_power": 4.0}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = config_for(scenes, Path("run"), **changes)
    shapes = _shapes(monkeypatch)
    whole.mkdir()
    monkeypatch.chdir(whole)
    train(config, backbone=Small())
    expected, shapes[:] = list(shapes), []
    assert len(set(expected)) > 1 and expected[-1] == 128  # the last ones at the network's own size
    assert all(side % 32 == 0 and 128 <= side <= 192 for side in expected)
    parts.mkdir()
    monkeypatch.chdir(parts)
    while not train(config, backbone=Small(), resume=Path("run").exists(), minutes=1e-9).finished:
        pass
    assert shapes == expected
    for name in MODELS:
        assert (parts / "run" / name).read_bytes() == (whole / "run" / name).read_bytes(), name
    tensors, _ = read_tensors(whole / "run" / "last.safetensors")
    assert int(tensors["model/heads.seen"]) == int(tensors["average/heads.seen"]) == 12


def _shapes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The side of the input of each update, in pixels."""
    sides: list[int] = []
    real = YOLOv2Head.loss

    def noted(self: YOLOv2Head, raw: Any, targets: Any) -> Any:
        sides.append(32 * raw[0].shape[-1])
        return real(self, raw, targets)

    monkeypatch.setattr(YOLOv2Head, "loss", noted)
    return sides


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"multi_scale": (192, 128)}, "smallest and the largest side, multiples of 32: 320 608"),
        ({"multi_scale": (128,)}, r"multi_scale is \[128\]"),
        ({"multi_scale": (130, 192)}, "multiples of 32"),
        ({"multi_scale": (128, 2048)}, "a side of 2048 px; it lies between"),
        ({"multi_scale": (128, 192), "size": (128, 192)}, "needs a square input of a multiple of 32 px"),
        (
            {"multi_scale": (320, 608), "model": "fssd300-lite", "options": {}},
            "does not go with fssd300-lite, whose priors are made for one size",
        ),
        ({"warmup_power": 4.0, "warmup": 0}, "--warmup-power is of a warm-up"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(
    changes: dict[str, Any],
    message: str,
    scenes: Path,
    tmp_path: Path,
    tiny_backbone: Callable[[], nn.Module],
) -> None:
    backbone = tiny_backbone() if "model" in changes else Small()
    with pytest.raises(ConfigError, match=message):
        train(config_for(scenes, tmp_path / "run", **changes), backbone=backbone)


def test_one_set_of_weights_at_several_sizes() -> None:
    """As the paper evaluates it: the network of another name with the same weights."""
    torch.manual_seed(0)
    network = build_model("yolov2-128", 2, backbone="lite", width=16)
    larger = build_model("yolov2-192", 2, backbone="lite", width=16)
    larger.load_state_dict(network.state_dict())
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3)).astype(np.uint8)
    ours = Detector(network, ("a", "b"))(image, score=0.005, scales=[192])
    theirs = Detector(larger, ("a", "b"))(image, score=0.005)
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-2)
    with pytest.raises(ConfigError, match="170"):
        Detector(network, ("a", "b"))(image, scales=[170])  # 11 and 6 cells


# ---------------------------------------------------------------- classes


def test_common_classes_are_transferred(tmp_path: Path) -> None:
    old, new = small(3), small(2)
    file = tmp_path / "old.safetensors"
    save_model(file, old.state_dict(), old, ("cat", "dog", "cow"), {})
    fresh = new.heads.last.weight.detach().clone()
    assert load_detector(new, ("cow", "emu"), file).classes == ("cow",)
    rows_old, rows_new = old.heads.last.weight.view(5, 8, 32), new.heads.last.weight.view(5, 7, 32)
    assert torch.equal(rows_new[:, :5], rows_old[:, :5])  # box and objectness
    assert torch.equal(rows_new[:, 5], rows_old[:, 7])
    assert torch.equal(rows_new[:, 6], fresh.view(5, 7, 32)[:, 6])


def test_a_subset_keeps_the_scores_of_its_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_model("yolov2-128", 3, backbone="lite", width=16).eval()
    file = tmp_path / "all.safetensors"
    save_model(file, network.state_dict(), network, ("cat", "dog", "cow"), {})
    target, *_ = write_subset(file, ("cow", "cat"), tmp_path / "two")
    images = torch.rand(1, 3, 128, 128) * 255
    with torch.no_grad():
        whole = network(images)[0].view(5, 8, 4, 4)
        part = load_model(target).network(images)[0].view(5, 7, 4, 4)
    torch.testing.assert_close(part[:, :5], whole[:, :5])
    torch.testing.assert_close(part[:, 5:], whole[:, [7, 5]])
