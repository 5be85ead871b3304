"""A neck and a backbone in one file, by name: built, trained, saved, exported and served as any other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from torch import nn

from fssd.config.config_files import load_config
from fssd.config.train_config import TrainConfig
from fssd.data.source import open_data
from fssd.errors import CheckpointError, ConfigError
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.training.loop import train
from fssd.training.optim import make_optimizer
from fssd.weights.checkpoint import load_model

PARTS = {"backbone": "own_parts:SmallBackbone", "neck": "own_parts:PooledNeck"}


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two updates from what the backbone's constructor gave, its first stage frozen, then saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        config = TrainConfig(
            data=scenes,
            out=tmp_path_factory.mktemp("run") / "run",
            size=(256,),
            options={"width": 24},
            iterations=2,
            batch_size=2,
            freeze=1,
            workers=0,
            amp="off",
            **PARTS,
        )
        return train(config).out


def test_it_builds_at_any_size_that_the_backbone_takes() -> None:
    network = build_model("fssd300-lite", 3, size=[320, 256], **PARTS).eval()
    assert network.image_size == (320, 256)
    raw = network(torch.zeros(1, 3, 256, 320))
    assert raw.offsets.shape == (1, len(network.heads.priors), 4)
    with pytest.raises(ConfigError, match="300 px; own_parts:SmallBackbone needs multiples of 32: 288"):
        build_model("fssd300-lite", 3, **PARTS)


def test_it_is_saved_and_loaded_by_name(run: Path) -> None:
    loaded = load_model(run)
    assert type(loaded.network.backbone).__name__ == "SmallBackbone"
    assert type(loaded.network.neck).__name__ == "PooledNeck"
    assert loaded.facts["options"] == {"width": 24, "size": 256, **PARTS}
    assert loaded.facts["own_backbone"] is False
    assert not loaded.network.backbone.fine.weight.eq(0).all()


def test_settings_name_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("backbone: own_parts:SmallBackbone\nneck: own_parts:PooledNeck\nsize: 256\n")
    config = load_config(file)
    assert (config.backbone, config.neck, config.size) == (PARTS["backbone"], PARTS["neck"], (256,))


def test_its_fresh_layers_learn_at_their_own_rate() -> None:
    network = build_model("fssd300-lite", 3, size=256, **PARTS)
    optimizer = make_optimizer(network, momentum=0.9, weight_decay=0.0, new_layers_lr=3.0)
    scales = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    neck = network.neck
    assert scales[id(neck.mixed[0].weight)] == 3
    assert scales[id(neck.shared.weight)] == 1


def test_it_is_exported_with_parity(run: Path, scenes: Path, tmp_path: Path, one_trace: None) -> None:
    pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "fssd[export]"')
    pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')
    from fssd.export.write import export_model
    from fssd.heads.head import Thresholds
    from fssd.runtimes.choose import RUNTIMES

    detector = Detector.load(run)
    image = open_data(scenes, "val").records[0].path
    for to in ("onnx", "openvino"):
        file = tmp_path / f"own{RUNTIMES[to].suffix}"
        done = export_model(detector, file, to, nms=Thresholds())
        assert done.parity is not None and done.parity.detections > 0
        opened = Detector.load(file)
        assert opened.image_size == (256, 256)
        assert len(opened(image, score=0.01)) == len(detector(image, score=0.01)) > 0


def test_it_is_served(run: Path, scenes: Path) -> None:
    pytest.importorskip("fastapi", reason='needs fastapi: pip install "fssd[serve]"')
    from fssd.serve.limits import ServerLimits
    from fssd.serve.pipeline import DetectOptions, Pipeline

    async def ask(data: bytes) -> int:
        pipeline = Pipeline([Detector.load(run)], ServerLimits(), batch=2, delay=0.0)
        pipeline.warm_up()
        await pipeline.start()
        try:
            return len((await pipeline.detect(data, DetectOptions(0.01, 200))).found)
        finally:
            await pipeline.stop()

    assert asyncio.run(ask(open_data(scenes, "val").records[0].path.read_bytes())) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg61"}, "there is no backbone 'vgg61'; did you mean 'vgg16'"),
        ({"neck": "fsd"}, "there is no neck 'fsd'; did you mean"),
        ({"head": "multibocks"}, "there is no head 'multibocks'; did you mean 'multibox'"),
        ({"backbone": "no_such_module:Thing"}, "cannot be imported"),
        ({"backbone": "own_parts:Missing"}, "module own_parts has no 'Missing'"),
        ({"backbone": "own_parts:count_of"}, "is not a subclass of fssd.backbones.backbone.Backbone"),
        ({"neck": "own_parts:SmallBackbone"}, "is not a subclass of fssd.necks.neck.Neck"),
        ({"neck": 3}, 'neck is 3; it is a name, or "package.module:Class"'),
        ({"size": 100}, "side of 100 px; it lies between 128 and 1024"),
        ({"size": "300"}, "size is '300'"),
        ({"size": [300, 300, 3]}, "one side in pixels, or width and height"),
    ],
)
def test_what_is_unknown_is_an_error_with_the_nearest(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model("fssd300-lite", 3, **options)
    assert message in str(caught.value)


def test_a_file_whose_part_is_not_here_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "own_parts")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not p.endswith("extension")])
    with pytest.raises(CheckpointError, match="the neck 'own_parts:PooledNeck' cannot be imported"):
        load_model(run)


def test_modules_are_still_taken_as_they_are(tiny_backbone: object) -> None:
    assert callable(tiny_backbone)
    network = build_model("fssd300-lite", 2, backbone=tiny_backbone())
    assert isinstance(network.backbone, nn.Module)
    assert network.spec.own_backbone
