"""`fssd import`: a Caffe file becomes a model file or a backbone to start from; mistakes are named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fssd.cli.import_ import file_format, run
from fssd.data.class_names import COCO, COCO_IDS, VOC, names_for
from fssd.errors import CheckpointError, ConfigError
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.weights.pretrained import load_backbone

pytest.importorskip("google.protobuf", reason="the files are written with protobuf: pip install protobuf")
_file = Path(__file__).parents[1] / "importers" / "caffe_writer.py"
_spec = importlib.util.spec_from_file_location("caffe_writer", _file)
assert _spec is not None and _spec.loader is not None
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


@pytest.fixture(scope="module")
def maker() -> writer.Maker:
    return writer.Maker()


@pytest.fixture(scope="module")
def layers(maker: writer.Maker) -> dict[str, list[torch.Tensor]]:
    return maker.vgg()


@pytest.fixture(scope="module")
def ssd_file(maker: writer.Maker, layers: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SSD300 of three classes, with one layer that no SSD has."""
    held = maker.ssd(layers, classes=4) | {"old_layer": [torch.ones(3)]}
    file = tmp_path_factory.mktemp("caffe") / "published.bin"  # the name does not matter
    file.write_bytes(writer.caffemodel(held, data="bytes"))
    return file


def test_a_model_file_is_written_and_loads(
    ssd_file: Path, layers: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n\nbird\n")
    out = tmp_path / "runs" / "ssd"
    given = [str(ssd_file), "--model", "ssd300-vgg16", "--out", str(out), "--classes", str(names)]
    assert run([*given, "--priors", "coco"]) == 0
    told = capsys.readouterr().out
    assert f"written: {out / 'final.safetensors'}" in told
    assert "priors: 8,732, per cell of each level 4 6 6 6 4 4" in told
    assert "classes: 3, cat ... bird" in told
    assert "options: priors=coco" in told
    assert told.endswith("unused: old_layer\n")
    detector = Detector.load(out)
    assert detector.classes == ("cat", "dog", "bird")
    network = detector.network
    assert network.heads.levels[0].shapes[0] == (21, 21)  # COCO's table
    assert torch.equal(network.get_parameter("backbone.conv5_3.weight"), layers["conv5_3"][0])
    with safetensors.safe_open(out / "final.safetensors", framework="pt") as handle:
        facts = handle.metadata()["fssd"]
    assert '"imported_from": "published.bin"' in facts
    assert '"imported_format": "caffemodel"' in facts


def test_a_backbone_is_written_and_starts_a_training(
    ssd_file: Path, layers: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(ssd_file), "--model", "vgg16", "--out", str(tmp_path)]) == 0
    file = tmp_path / "backbone.safetensors"
    told = capsys.readouterr().out
    assert f"--weights {file}" in told
    assert "unused: conv6_1, " in told
    assert len(safetensors.torch.load_file(file)) == 30
    network = build_model("ssd300-vgg16", 1)
    assert load_backbone(network, file) == 30  # fc6 and fc7 too
    own = network.backbone.state_dict()
    for name in ("conv2_1", "fc6", "fc7"):
        assert torch.equal(own[f"{name}.weight"], layers[name][0])
        assert torch.equal(own[f"{name}.bias"], layers[name][1])
    assert torch.equal(own["conv1_1.weight"], layers["conv1_1"][0].flip(1))


# ---- mistakes


def test_a_backbone_replaces_only_its_own_earlier_import(ssd_file: Path, tmp_path: Path) -> None:
    """Not its own input either, nor what another program or version wrote."""
    out = tmp_path / "out"
    given = ["--model", "vgg16", "--out", str(out)]
    for _ in range(2):
        assert run([str(ssd_file), *given]) == 0
    file = out / "backbone.safetensors"
    written = file.read_bytes()
    other = tmp_path / "other.bin"
    other.write_bytes(ssd_file.read_bytes())
    with pytest.raises(ConfigError, match=r"backbone\.safetensors: was not written by .* other\.bin"):
        run([str(other), *given])
    with pytest.raises(ConfigError, match=r"from other\.bin; choose another --out"):
        run([str(other), "--model", "resnet50-caffe", "--out", str(out)])
    with pytest.raises(ConfigError, match="is an input and would be overwritten"):
        run([str(file), *given])
    assert file.read_bytes() == written
    for content in (b"", safetensors.torch.save({"a": torch.ones(1)})):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="was not written by"):
            run([str(ssd_file), *given])
        assert file.read_bytes() == content


def test_wrong_class_names_and_folders(ssd_file: Path, tmp_path: Path) -> None:
    given = [str(ssd_file), "--model", "ssd300-vgg16", "--out", str(tmp_path)]
    with pytest.raises(ConfigError, match="voc: has 20 class names, but the model has 3 classes"):
        run([*given, "--classes", "voc"])
    (tmp_path / "best.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"holds a training, whose models"):
        run(given)
    assert [file.name for file in tmp_path.iterdir()] == ["best.safetensors"]


def test_a_backbone_has_neither_classes_nor_priors(tmp_path: Path) -> None:
    for option in (["--classes", "voc"], ["--priors", "coco"]):
        with pytest.raises(ConfigError, match="without classes and priors"):
            run([str(tmp_path / "x"), "--model", "vgg16", "--out", str(tmp_path), *option])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    given = ["--model", "vgg16", "--out", str(tmp_path / "out")]
    with pytest.raises(CheckpointError, match="no such file"):
        run([str(tmp_path / "none"), *given])
    with pytest.raises(CheckpointError, match="cannot be read"):
        run([str(tmp_path), *given])
    (tmp_path / "text").write_text("layer { }")
    with pytest.raises(CheckpointError, match="is no caffemodel but a text"):
        run([str(tmp_path / "text"), *given])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["caffemodel", "pth", "pth of old", "safetensors"])
def test_the_format_is_told_by_content(form: str, tmp_path: Path) -> None:
    file, tensors = tmp_path / "weights", {"a": torch.ones(2)}
    if form == "caffemodel":
        file.write_bytes(writer.caffemodel({"conv": [tensors["a"]]}))
    elif form == "safetensors":
        safetensors.torch.save_file(tensors, file)
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=form == "pth")
    assert file_format(file) == form.split(maxsplit=1)[0]


@pytest.mark.parametrize("name", ["a.weights", "resnet.conv.1x1.pth", "darknet19_448.conv.23"])
def test_what_pytorch_wrote_is_not_taken_for_darknets(name: str, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / name)
    assert file_format(tmp_path / name) == "pth"
    (tmp_path / name).write_bytes(bytes(20))
    assert file_format(tmp_path / name) == ("caffemodel" if name.endswith("pth") else "darknet")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    ],
)
def test_failed_downloads_of_darknets_weights(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "yolov2.weights"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"yolov2\.weights: {reason}"):
        run([str(file), "--model", "yolov2-416", "--out", str(tmp_path / "out")])
    network = build_model("yolov2-128", 1, width=16)
    with pytest.raises(CheckpointError, match=rf"yolov2\.weights: {reason}"):
        load_backbone(network, file)


# ---- class names


def test_names_by_their_number() -> None:
    assert names_for(20) == VOC
    assert names_for(80) == COCO
    assert names_for(2) == ("class_1", "class_2")
    assert names_for(20, "voc") == VOC
    assert names_for(80, "coco") == COCO


def test_ids_of_coco() -> None:
    assert len(COCO) == len(COCO_IDS) == len(set(COCO)) == 80
    # Contiguous label, category id and name, from the map that turns COCO's networks into VOC's.
    for label, number, name in [
        (1, 1, "person"), (2, 2, "bicycle"), (3, 3, "car"), (4, 4, "motorcycle"), (5, 5, "airplane"),
        (6, 6, "bus"), (7, 7, "train"), (9, 9, "boat"), (15, 16, "bird"), (16, 17, "cat"), (17, 18, "dog"),
        (18, 19, "horse"), (19, 20, "sheep"), (20, 21, "cow"), (40, 44, "bottle"), (57, 62, "chair"),
        (58, 63, "couch"), (59, 64, "potted plant"), (61, 67, "dining table"), (63, 72, "tv"),
        (80, 90, "toothbrush"),
    ]:  # fmt: skip
        assert (COCO_IDS[label - 1], COCO[label - 1]) == (number, name)


def test_files_of_names_that_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("a\nb\na\n")
    with pytest.raises(ConfigError, match=r"names\.txt: has the class name 'a' twice"):
        names_for(3, str(file))
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot be read as class names"):
        names_for(1, str(file))
    with pytest.raises(ConfigError, match="give voc, coco or a text file"):
        names_for(1, str(tmp_path / "none.txt"))
