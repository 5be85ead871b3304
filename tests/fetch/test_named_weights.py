"""Published weights by name, from a server of our own: the files have the formats of the real ones."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from fssd.cli.main import main
from fssd.config.train_config import TrainConfig
from fssd.data.class_names import COCO
from fssd.errors import CheckpointError, FetchError
from fssd.importers.named_weights import fetch_weights
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.training.start import check_start, start_weights
from fssd.weights.checkpoint import model_file
from fssd.zoo.models import PHOTOS, find_model
from fssd.zoo.published import PUBLISHED, fetched_file, note_file, weights_file, weights_folder

GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # COCO's ids without a category
TESTS = Path(__file__).parents[1]


def module_of(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, TESTS / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pickled(tensors: dict[str, torch.Tensor]) -> bytes:
    packed = io.BytesIO()
    torch.save(tensors, packed)
    return packed.getvalue()


@pytest.fixture(scope="module")
def mobilenet() -> bytes:
    """A file of torchvision's mobilenet_v2, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors, _ = module_of("backbones/test_mobilenet.py").v2()
    return pickled(tensors)


@pytest.fixture(scope="module")
def ssd() -> bytes:
    """A file of torchvision's ssd300_vgg16, with random weights and its 91 outputs."""
    return pickled(module_of("importers/test_pth.py").torchvision_ssd())


@pytest.fixture
def publish(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a file on the server, in place of the published one of a name; its digest is known by 8 digits."""
    monkeypatch.setenv("FSSD_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)

    def put(name: str, content: bytes, digits: int = 8) -> None:
        digest = hashlib.sha256(content).hexdigest()[:digits]
        file = PUBLISHED[name].file_name
        server.files[file] = content
        monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], url=server.url(file), sha256=digest))

    return put


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_backbone_to_train_from(
    publish: Any, mobilenet: bytes, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("mobilenetv2-imagenet", mobilenet)
    assert run("fetch", "mobilenetv2-imagenet") == 0
    out = capsys.readouterr().out
    file = weights_folder() / "mobilenet_v2-b0353104.pth"
    digest = hashlib.sha256(mobilenet).hexdigest()
    assert out.splitlines() == [
        f"mobilenetv2-imagenet: done, {file}",
        f"sha256: {digest}, begins with {digest[:8]}; no more digits are published",
        "licence: BSD-3-Clause (torchvision); trained on ImageNet-1k, whose terms may apply too",
        "train from it with: fssd train --model fssd300-mobilenetv2 --weights mobilenetv2-imagenet ...",
    ]
    assert file.read_bytes() == mobilenet
    server.gets.clear()
    assert run("fetch", "mobilenetv2-imagenet") == 0
    assert "already there" in capsys.readouterr().out and server.gets == []

    config = TrainConfig(model="fssd128-mobilenetv2", weights=Path("mobilenetv2-imagenet"), out=Path("run"))
    check_start(config, resume=False)
    network = build_model("fssd128-mobilenetv2", 1)
    start_weights(network, ("one",), config)
    stored = torch.load(io.BytesIO(mobilenet), weights_only=True)["features.0.0.weight"]
    own = next(x for x in network.backbone.state_dict().values() if x.shape == stored.shape)
    torch.testing.assert_close(own, stored)


def test_a_detector_becomes_a_model(
    publish: Any, ssd: bytes, server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("ssd300-coco", ssd, 64)
    with pytest.raises(CheckpointError, match=r"^ssd300-coco: has not been fetched yet; run: fssd fetch ssd"):
        find_model(Path("ssd300-coco"))
    assert run("fetch", "ssd300-coco") == 0
    out = capsys.readouterr().out
    assert f"sha256: {hashlib.sha256(ssd).hexdigest()}, as published" in out
    assert "try it with: fssd detect ssd300-coco photo.jpg" in out
    names = sorted(path.name for path in weights_folder().iterdir())
    assert names == ["ssd300-coco.json", "ssd300-coco.safetensors"], "the download is gone"
    detector = Detector.load("ssd300-coco", device="cpu")
    assert detector.classes == COCO
    assert detector.facts["published_as"] == "ssd300-coco" and detector.facts["url"].startswith("http")
    assert detector.facts["licence"].startswith("BSD-3-Clause")
    stored, own = torch.load(io.BytesIO(ssd), weights_only=True), detector.network.state_dict()
    torch.testing.assert_close(own["backbone.conv1_1.weight"], stored["backbone.features.0.weight"])
    kept = [0, *(number for number in range(1, 91) if number not in GAPS)]
    scores = stored["head.classification_head.module_list.5.weight"].reshape(4, 91, -1)[:, kept]
    torch.testing.assert_close(own["heads.conf.5.weight"].reshape(4, 81, -1), scores)

    arguments = ("detect", "ssd300-coco", PHOTOS[0], "--score", 0.02, "--keep", 2, "--device", "cpu")
    assert run(*arguments, "--out", tmp_path / "found") == 0
    assert model_file(Path("ssd300-coco")) == fetched_file("ssd300-coco")
    config = TrainConfig(model="fssd300-vgg16", start="ssd", weights=Path("ssd300-coco"), out=Path("run"))
    check_start(config, resume=False)
    with pytest.raises(CheckpointError, match=r"is a whole detector.*--start ssd or model"):
        check_start(TrainConfig(weights=Path("ssd300-coco"), out=Path("run")), resume=False)


def test_a_wrong_digest_is_refused(publish: Any, mobilenet: bytes, server: Any) -> None:
    publish("mobilenetv2-imagenet", mobilenet)
    server.files["mobilenet_v2-b0353104.pth"] = mobilenet[:-1] + bytes([mobilenet[-1] ^ 1])
    with pytest.raises(FetchError, match=r"its sha256 is \w{64}, not \w{8}; the file was deleted"):
        fetch_weights("mobilenetv2-imagenet")
    assert list(weights_folder().iterdir()) == []
    with pytest.raises(CheckpointError, match="has not been fetched"):
        weights_file(Path("mobilenetv2-imagenet"))


def test_without_a_network_a_file_placed_by_hand_is_taken(
    publish: Any, mobilenet: bytes, server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    publish("mobilenetv2-imagenet", mobilenet)
    name, folder = "mobilenetv2-imagenet", weights_folder()
    unreachable = replace(PUBLISHED[name], url=f"http://127.0.0.1:9/{PUBLISHED[name].file_name}")
    monkeypatch.setitem(PUBLISHED, name, unreachable)
    monkeypatch.setattr("fssd.importers.named_weights.PAUSES", ())
    with pytest.raises(FetchError) as error:
        fetch_weights(name, pauses=())
    by_hand = f"or place mobilenet_v2-b0353104.pth into {folder} by hand first"
    assert str(error.value).endswith(f"1 times in a row; run the same command again, {by_hand}")

    file = folder / "mobilenet_v2-b0353104.pth"
    file.write_bytes(b"something else")
    assert run("fetch", name) == 2
    assert f"{file}: its sha256 is" in capsys.readouterr().err
    assert file.read_bytes() == b"something else", "what a user brought is not removed"
    file.write_bytes(mobilenet)
    assert run("fetch", name) == 0
    assert weights_file(Path(name)) == file and file.is_file()


def test_what_was_fetched_and_then_changed_is_not_used(publish: Any, mobilenet: bytes) -> None:
    publish("mobilenetv2-imagenet", mobilenet)
    file = fetch_weights("mobilenetv2-imagenet")
    file.write_bytes(mobilenet[:1000])
    with pytest.raises(CheckpointError, match="has not been fetched yet"):
        weights_file(Path("mobilenetv2-imagenet"))
    note_file("mobilenetv2-imagenet").write_text("[]")
    with pytest.raises(CheckpointError, match="has not been fetched yet"):
        weights_file(Path("mobilenetv2-imagenet"))


def test_an_existing_path_wins(publish: Any) -> None:
    Path("vgg16-imagenet").write_bytes(b"mine")
    assert weights_file(Path("vgg16-imagenet")) == Path("vgg16-imagenet")


def test_names_that_do_not_fit(publish: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (["fetch"], "name what to fetch"),
        (["fetch", "ssd300-coc"], "did you mean 'ssd300-coco'?"),
        (["fetch", "vgg16-imagenet", "--to", "x"], "which the variable FSSD_WEIGHTS names; leave out --to"),
        (["fetch", "vgg16-imagenet", "--parts", "x"], "leave out --parts"),
        (["fetch", "voc2007", "--list"], "--list prints all names; leave out the name"),
        (["eval", "vgg16-imagenet", "--data", "x"], "a backbone alone, where a model is needed"),
        (["bench", "ssd300-coco"], "ssd300-coco: has not been fetched yet"),
        (["train", "--data", "x", "--out", "y", "--weights", "resnet5-imagenet"], "mean 'resnet50-imagenet'"),
    ):
        assert run(*arguments) == 2
        assert told in capsys.readouterr().err, arguments


def test_a_table_of_trainings_takes_names(
    publish: Any, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"title: two\nsettings: {{data: {scenes}, val_split: val, epochs: 1}}\n"
        "rows:\n  - {name: a, set: {model: fssd300-vgg16, weights: vgg16-imagenet}}\n"
    )
    assert run("ablate", plan) == 2
    assert "vgg16-imagenet: has not been fetched yet" in capsys.readouterr().err


def test_the_list_names_everything(publish: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fetch", "--list") == 0
    out = capsys.readouterr().out
    for name, row in PUBLISHED.items():
        assert f"  {name} " in out and row.url in out and row.digest in out and row.licence in out
    assert "voc2007" in out and str(weights_folder()) in out


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table(name: str) -> None:
    from fssd.backbones import BACKBONES

    row = PUBLISHED[name]
    assert set(row.sha256) <= set("0123456789abcdef") and len(row.sha256) in (8, 64)
    if row.licence.endswith("(torchvision)"):
        assert row.url == f"https://download.pytorch.org/models/{row.file_name}"
        assert row.file_name.endswith(f"-{row.sha256}.pth"), "torchvision's names end in the digest"
    assert row.detector != (row.model in BACKBONES)
    assert name.endswith("-coco") == row.detector


def test_where_weights_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FSSD_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_folder() == tmp_path / "fssd" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_folder() == tmp_path / ".cache" / "fssd" / "weights"


def test_the_importer_of_darknet_is_asked_for_its_files(publish: Any) -> None:
    """A file of the right digest and the wrong content: the importer says what is wrong."""
    publish("yolov2-coco", b"\0" * 400, 64)
    with pytest.raises(FetchError, match="which a YOLOv2 has with no number of classes"):
        fetch_weights("yolov2-coco")
