"""Model files: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.errors import CheckpointError
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import describe, load_model, model_file, read_tensors, save_model, write_tensors

CLASSES = ("chat", "Straße", "犬")


def randomised(net: Network) -> Network:
    generator = torch.Generator().manual_seed(4)
    for key, tensor in net.state_dict().items():
        if key.endswith("num_batches_tracked"):
            tensor.fill_(17)
        elif key.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        else:
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.05)
    return net


# How a file of `fssd export --to onnx` begins and ends: IR version, producer, and the digest.
ONNX = b"\x08\x08\x12\x07pytorch:\x05\n\x03net" + b'r\x09{"content_sha256": "' + b"0" * 64 + b'"}'


@pytest.fixture(scope="module")
def network() -> Network:
    options = {"merge": "sum", "norm": "batch-affine", "pyramid": "bottleneck", "priors": "voc"}
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (3.5,))
    return randomised(
        build_model("fssd300-lite", 3, sources=("stride16", "stride8"), ratios=ratios, **options)
    )


@pytest.fixture(scope="module")
def file(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_model(path, network.state_dict(), network, CLASSES, {"iteration": 7, "note": {"mAP": 0.5}})
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small file that is right in all but its network."""
    path = tmp_path / "small.safetensors"
    write_tensors(path, {"a": torch.arange(6.0)}, {"format": 2, "kind": "model"})
    return path


def document_of(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as handle:
        return json.loads(handle.metadata()["fssd"])


# ---------------------------------------------------------------- round trip


def test_loaded_network_gives_identical_outputs(network: Network, file: Path) -> None:
    torch.manual_seed(99)  # another start than the network's
    loaded = load_model(file)
    assert not loaded.network.training
    assert loaded.classes == CLASSES
    images = torch.rand(1, 3, 300, 300) * 255
    with torch.no_grad():
        for found, expected in zip(loaded.network(images), network.eval()(images), strict=True):
            assert expected.std() > 0
            assert torch.equal(found, expected)
    for key, tensor in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], tensor), key
    assert torch.equal(loaded.network.heads.priors, network.heads.priors)


def test_options_and_facts_survive(network: Network, file: Path) -> None:
    loaded = load_model(str(file))
    assert loaded.facts["iteration"] == 7
    assert loaded.facts["note"] == {"mAP": 0.5}
    assert loaded.facts["kind"] == "model"
    assert loaded.facts["model"] == "fssd300-lite"
    assert loaded.facts["options"] == {
        "merge": "sum",
        "norm": "batch-affine",
        "pyramid": "bottleneck",
        "priors": "voc",
        "sources": ["stride16", "stride8"],
        "ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [3.5]],
    }
    again = loaded.network
    assert again.neck.fusion.merge == "sum"
    assert again.neck.fusion.names == ["stride16", "stride8"]
    assert again.heads.levels == network.heads.levels
    wide, high = again.heads.levels[5].shapes[2]
    assert wide / high == pytest.approx(3.5)
    assert again.heads.levels[0].shapes[0] == (30, 30)  # 10 % of 300 px, the VOC table


def test_equal_input_gives_equal_bytes(network: Network, file: Path, tmp_path: Path) -> None:
    turned = dict(reversed(list(network.state_dict().items())))
    facts = {"note": {"mAP": 0.5}, "iteration": 7}  # the other way round
    save_model(tmp_path / "a.safetensors", turned, network, CLASSES, facts)
    assert (tmp_path / "a.safetensors").read_bytes() == file.read_bytes()
    loaded = load_model(file)
    save_model(tmp_path / "b.safetensors", loaded.network.state_dict(), loaded.network, CLASSES, facts)
    assert (tmp_path / "b.safetensors").read_bytes() == file.read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.safetensors", "b.safetensors"]


def test_averaged_weights_are_written_instead_of_the_networks(network: Network, tmp_path: Path) -> None:
    averaged = {
        key: tensor + 1 if tensor.is_floating_point() else tensor
        for key, tensor in network.state_dict().items()
    }
    save_model(tmp_path / "ema.safetensors", averaged, network, CLASSES, {})
    key = "heads.loc.0.0.weight"
    found = load_model(tmp_path / "ema.safetensors").network.state_dict()[key]
    assert torch.equal(found, averaged[key])
    assert not torch.equal(found, network.state_dict()[key])


def test_strided_tensors_are_written_as_they_read(tmp_path: Path) -> None:
    x = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    write_tensors(tmp_path / "x.safetensors", {"x": x, "turned": x[0, 0].T}, {"format": 2})
    tensors, _ = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["x"], x)
    assert torch.equal(tensors["turned"], x[0, 0].T)


def test_file_is_plain_safetensors(file: Path) -> None:
    assert "heads.loc.0.0.weight" in safetensors.torch.load_file(file)
    assert document_of(file)["classes"] == list(CLASSES)
    assert document_of(file)["format"] == 2


@pytest.mark.parametrize(
    ("model", "then", "now"),
    [
        ("fssd300-lite", {}, {"variant": "narrow"}),
        ("fssd300-lite", {"pyramid": "with-fused"}, {"pyramid": "with-fused", "variant": "narrow"}),
        ("fssd300-lite", {"variant": "released"}, {"variant": "narrow"}),
        ("fssd300-lite", {"transform": "none"}, {"transform": "none", "variant": "narrow"}),
        (
            "fssd300-lite",
            {"neck": "fssd.necks.fssd:FSSD"},
            {"neck": "fssd.necks.fssd:FSSD", "variant": "narrow"},
        ),
        ("fssd300-mobilenetv2", {"light": True}, {"light": True, "variant": "narrow"}),
        ("ssd300-lite", {}, {}),
        ("fssd300-mobilenetv2", {}, {}),
        (
            "blitznet300-resnet50",
            {"backbone": "mobilenetv1", "x4": False},
            {"backbone": "mobilenetv1", "x4": False, "mean": (123.15, 115.9, 103.06)},
        ),
        ("yolov2-416", {"light": True, "width": 8}, {"width": 8}),
    ],
)
def test_models_of_format_1_are_the_networks_that_they_were(
    tmp_path: Path, model: str, then: dict[str, Any], now: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    net = build_model(model, 2, size=128, **now).eval()
    file = tmp_path / "earlier.safetensors"
    facts = {"model": model, "options": {"size": 128, **then}, "classes": ["a", "b"], "own_backbone": False}
    write_tensors(file, net.state_dict(), {"format": 1, "kind": "model", **facts})
    loaded = load_model(file)
    assert loaded.network.spec.options == {"size": 128, **now}
    x = torch.rand(1, 3, 128, 128) * 255
    with torch.no_grad():
        assert torch.equal(loaded.network(x)[-1], net(x)[-1])


class Own(nn.Module):
    """A backbone that a name cannot stand for."""

    mean = (1.0, 2.0, 3.0)

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.conv(images)
        return {f"s{step}": F.avg_pool2d(x, step, ceil_mode=True) for step in (8, 16, 32)}


def test_own_backbone_has_to_be_passed_again(tmp_path: Path) -> None:
    net = build_model("ssd300-lite", 2, backbone=Own(), std=(2.0, 2.0, 2.0)).eval()
    path = tmp_path / "own.safetensors"
    save_model(path, net.state_dict(), net, ("a", "b"), {})
    with pytest.raises(CheckpointError, match=r"own\.safetensors: .*backbone="):
        load_model(path)
    backbone = Own()
    again = load_model(path, backbone=backbone).network
    assert again.backbone is backbone
    assert torch.equal(backbone.conv.weight, net.backbone.conv.weight)
    assert again.mean.flatten().tolist() == [1, 2, 3]
    assert again.std.flatten().tolist() == [2, 2, 2]
    images = torch.rand(1, 3, 300, 300) * 255
    with torch.no_grad():
        assert torch.equal(again(images).logits, net(images).logits)
    with pytest.raises(CheckpointError, match=r"own\.safetensors: 'backbone\.conv\.weight' has shape"):
        load_model(path, backbone=Own(9))


# ---------------------------------------------------------------- which file


def test_folder_stands_for_its_best_then_its_final_model(network: Network, tmp_path: Path) -> None:
    for name, classes in (("final", ("f", "f2", "f3")), ("best", ("b", "b2", "b3"))):
        save_model(tmp_path / f"{name}.safetensors", network.state_dict(), network, classes, {})
    assert load_model(tmp_path).classes[0] == "b"
    (tmp_path / "best.safetensors").unlink()
    assert load_model(tmp_path).classes[0] == "f"
    assert model_file(tmp_path) == tmp_path / "final.safetensors"
    (tmp_path / "final.safetensors").unlink()
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"holds no best\.safetensors or final\.safetensors"):
        load_model(tmp_path)


def test_missing_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors: there is no such model file"):
        load_model(tmp_path / "nowhere.safetensors")
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors: there is no such model file"):
        read_tensors(tmp_path / "nowhere.safetensors")


def test_state_of_a_training_is_refused_with_advice(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    tensors = {f"model/{key}": value for key, value in network.state_dict().items()}
    write_tensors(path, tensors, {**describe(network, CLASSES), "kind": "training", "iteration": 3})
    with pytest.raises(CheckpointError, match=r"last\.safetensors: .*training.*use best\.safetensors"):
        load_model(path)


# ---------------------------------------------------------------- what is refused


def refused(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_truncated_file_at_any_length(small: Path) -> None:
    whole = small.read_bytes()
    read_tensors(small)
    for length in range(len(whole)):
        small.write_bytes(whole[:length])
        refused(small, "damaged or not a safetensors file" if length else "is empty")


def test_truncated_model(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(file.read_bytes()[:-1])
    refused(path, "damaged")


def test_every_changed_byte_of_the_weights_is_found(small: Path) -> None:
    whole = small.read_bytes()
    for place in range(len(whole) - 24, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        small.write_bytes(changed)
        with pytest.raises(CheckpointError, match="is damaged or was changed after it was written"):
            read_tensors(small)


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(small: Path) -> None:
    whole, digest = small.read_bytes(), document_of(small)["content_sha256"].encode()
    assert digest.decode() == hashlib.sha256(whole.replace(digest, b"0" * 64)).hexdigest()
    assert "content_sha256" not in read_tensors(small)[1]


def test_a_file_without_a_digest_opens(small: Path) -> None:
    tensors, document = read_tensors(small)
    safetensors.torch.save_file(tensors, small, {"fssd": json.dumps(document)})
    assert torch.equal(read_tensors(small)[0]["a"], tensors["a"])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(file: Path, tmp_path: Path, value: float) -> None:
    tensors, document = read_tensors(file)
    key = "heads.conf.3.0.weight"
    tensors[key].view(-1)[7] = value
    write_tensors(tmp_path / "x.safetensors", tensors, document)
    refused(tmp_path / "x.safetensors", f"'{key}' has numbers that are not finite")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.bin",
            b"\0" * 99,
            r"weights of an exported file; name the \.xml \(OpenVINO\) or \.param \(ncnn\)",
        ),
        ("x.xml", b"<?xml", r"x\.xml: is an exported file, which has no PyTorch network; name the model"),
        ("x.PARAM", b"7767517\n2 2\n", r"x\.PARAM: is an exported file, which has no PyTorch network"),
        ("x", b'<?xml version="1.0"?>\n<net name="m">', r"x: is an exported file without .* end in \.xml"),
        ("x", b"7767517\n2 2\nInput in0", r"x: is an exported file without .* end in \.param"),
        ("x", ONNX, r"x: is an exported file without its suffix; let its name end in \.onnx"),
        ("x", ONNX[:20], "damaged or not a safetensors file"),
        ("x.pth", b"PK\x03\x04" + b"\0" * 99, r"fssd import \S+x\.pth --model NAME --out FOLDER"),
        ("x.PT", b"\x80\x02" + b"\0" * 99, "fssd import"),
        ("x.caffemodel", b"\n\x03VGG" + b"\0" * 99, "fssd import"),
        ("x.safetensors", b"<!doctype html>", "is a web page: its download failed"),
        ("x.pth", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
    ],
)
def test_other_files_that_are_given_as_a_model(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


@pytest.mark.parametrize(
    ("part", "main"), [("m.bin", "m.xml"), ("m.bin", "m.param"), ("M.BIN", "M.PARAM"), ("m.json", "m.param")]
)
def test_parts_of_exported_files(tmp_path: Path, part: str, main: str) -> None:
    (tmp_path / part).write_bytes(b'{"format": 1}')
    (tmp_path / main).touch()
    refused(tmp_path / part, rf"{part}: is a part of the model {main} beside it; name that one")


def test_changed_header_never_ends_in_another_error(small: Path) -> None:
    whole = small.read_bytes()
    for place in range(len(whole) - 24):  # the last 24 bytes are the six numbers
        for value in (0, ord('"'), ord("["), 255):
            changed = bytearray(whole)
            changed[place] = value
            small.write_bytes(bytes(changed))
            with pytest.raises(CheckpointError):
                load_model(small)


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"\x80\x02}q\x00.", b"{}", b"\xff" * 64, b"text\n" * 20])
def test_other_kinds_of_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    refused(tmp_path / "x.safetensors", "damaged or not a safetensors file")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_safetensors_file_of_another_program(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    safetensors.torch.save_file({"a": torch.zeros(3)}, tmp_path / "x.safetensors", metadata)
    refused(tmp_path / "x.safetensors", "not one of fssd's")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_tensors_that_are_no_plain_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(3).to(dtype)}, {"format": 2, "kind": "model"})
    refused(path, "'a' is (complex64|float8_e4m3fn); save it as plain floating-point numbers")


def test_metadata_that_is_null(tmp_path: Path) -> None:
    header = b'{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    refused(tmp_path / "x.safetensors", "not one of fssd's")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ("", "damaged"),
        ("[1, 2]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("null", "not a JSON object"),
        ("{}", "has format None"),
        ('{"format": 3, "kind": "model"}', "has format 3; this fssd reads 1 and 2"),
        ('{"format": "1"}', "has format '1'"),
        ('{"format": 1, "kind": "model"}', "no usable 'model'"),
        ('{"format": 1, "kind": "model", "model": "fssd300-lit", "options": {}}', "no usable 'own_backbone'"),
        ('{"format": 2, "kind": "model"}', "no usable 'model'"),
        ('{"format": 2}', "use best.safetensors"),
    ],
)
def test_json_that_is_no_document(tmp_path: Path, header: str, message: str) -> None:
    safetensors.torch.save_file({"a": torch.zeros(3)}, tmp_path / "x.safetensors", {"fssd": header})
    refused(tmp_path / "x.safetensors", message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "no usable 'model'"),
        ({"classes": None}, "no usable 'classes'"),
        ({"classes": "abc"}, "no usable 'classes'"),
        ({"options": [1]}, "no usable 'options'"),
        ({"own_backbone": None}, "no usable 'own_backbone'"),
        ({"model": "fssd300-lite-2"}, "there is no model 'fssd300-lite-2'"),
        ({"classes": []}, "at least one class"),
        ({"options": {"blend": 1}}, "no option 'blend'"),
        ({"classes": [1, 2, 3]}, "its classes are no list of names"),
        ({"options": {"geometry": []}}, "its network cannot be rebuilt"),
        ({"classes": ["a"]}, "has shape"),  # two logits a prior, not four
        ({"model": "ssd300-lite", "options": {}}, "another network"),
    ],
)
def test_document_that_does_not_fit(file: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    tensors, document = read_tensors(file)
    write_tensors(tmp_path / "x.safetensors", tensors, {**document, **change})
    refused(tmp_path / "x.safetensors", message)


def test_missing_surplus_and_misshapen_tensors(file: Path, tmp_path: Path) -> None:
    tensors, document = read_tensors(file)
    path, key = tmp_path / "x.safetensors", "heads.conf.3.0.weight"
    write_tensors(path, {name: t for name, t in tensors.items() if name != key}, document)
    refused(path, "has no tensor 'heads.conf.3.0.weight'")
    write_tensors(path, {**tensors, "zusatz": torch.zeros(1)}, document)
    refused(path, "has 1 tensors too many, such as 'zusatz'")
    write_tensors(path, {**tensors, key: tensors[key][:-1]}, document)
    refused(path, "'heads.conf.3.0.weight' has shape")
