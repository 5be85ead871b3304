"""The reader of .caffemodel files: every form that Caffe writes; for the rest, CheckpointError alone."""

from __future__ import annotations

import importlib.util
import io
import pickle
import struct
import tracemalloc
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fssd.errors import CheckpointError
from fssd.importers.caffemodel import read_caffemodel

pytest.importorskip("google.protobuf", reason="the files are written with protobuf: pip install protobuf")
_spec = importlib.util.spec_from_file_location("caffe_writer", Path(__file__).with_name("caffe_writer.py"))
assert _spec is not None and _spec.loader is not None
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)


def some_layers() -> dict[str, list[Tensor]]:
    torch.manual_seed(1)
    return {
        "conv1_1": [torch.randn(2, 3, 2, 2), torch.randn(2)],
        "fc8": [torch.randn(5, 6), torch.randn(5)],
        "bn": [torch.randn(4), torch.rand(4), torch.tensor([999.5])],
    }


def read(tmp_path: Path, content: bytes) -> dict[str, list[Tensor]]:
    file = tmp_path / "some.caffemodel"
    file.write_bytes(content)
    return read_caffemodel(file)


def assert_same(found: dict[str, list[Tensor]], expected: dict[str, list[Tensor]]) -> None:
    assert list(found) == list(expected)
    for name, blobs in expected.items():
        assert [blob.shape for blob in found[name]] == [blob.shape for blob in blobs], name
        assert all(torch.equal(a, b) for a, b in zip(found[name], blobs, strict=True)), name
        assert all(blob.dtype == torch.float32 for blob in found[name])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("data", ["packed", "unpacked", "bytes"])
@pytest.mark.parametrize("shapes", ["shape", "legacy", "legacy-in-shape"])
def test_every_form_of_layers_numbers_and_shapes(
    tmp_path: Path, version: int, data: str, shapes: str
) -> None:
    content = writer.caffemodel(some_layers(), version=version, data=data, shapes=shapes)
    assert_same(read(tmp_path, content), some_layers())


@pytest.mark.parametrize("data", ["packed", "unpacked"])
def test_doubles_and_gradients(tmp_path: Path, data: str) -> None:
    content = writer.caffemodel(some_layers(), data=data, double=True, gradients=True)
    assert_same(read(tmp_path, content), some_layers())


def test_the_last_of_two_layers_with_one_name_counts_and_empty_ones_do_not(tmp_path: Path) -> None:
    first, second = torch.ones(2), torch.full((3,), 2.0)
    content = writer.caffemodel([("a", [first]), ("b", [first]), ("a", [second]), ("a", [])])
    assert_same(read(tmp_path, content), {"a": [second], "b": [first]})


def test_a_long_row_of_unpacked_numbers(tmp_path: Path) -> None:
    weight = torch.arange(200_000, dtype=torch.float32).reshape(400, 500)
    assert_same(read(tmp_path, writer.caffemodel({"fc": [weight]}, data="unpacked")), {"fc": [weight]})


# ---- by hand: messages that no writer makes


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def part(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def net(blob: bytes, name: bytes = b"conv1_1") -> bytes:
    return part(1, b"net") + part(100, part(1, name) + part(7, blob))


TWO = struct.pack("<2f", 1, 2)


def shape(*axes: int) -> bytes:
    return part(7, part(1, b"".join(varint(axis % 2**64) for axis in axes)))


def test_hand_made_blobs(tmp_path: Path) -> None:
    assert read(tmp_path, net(part(5, TWO)))["conv1_1"][0].tolist() == [1, 2]  # no shape at all
    blob = shape(2, 1) + part(5, TWO[:4]) + part(6, TWO) + part(5, TWO[4:])  # in two pieces
    assert read(tmp_path, net(blob))["conv1_1"][0].tolist() == [[1], [2]]
    name_last = part(1, b"net") + part(100, part(7, part(5, TWO)) + part(1, b"late"))
    assert list(read(tmp_path, name_last)) == ["late"]
    scalar = part(7, b"") + part(5, TWO[:4])
    assert read(tmp_path, net(scalar))["conv1_1"][0].shape == ()
    unusual_key = b"\xad\x00" + TWO[:4] + b"\x2d" + TWO[4:]  # the key of data in two bytes, then in one
    assert read(tmp_path, net(unusual_key))["conv1_1"][0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (shape(3) + part(5, TWO), "shape 3 that holds 2 numbers"),
        (shape(-1, -2) + part(5, TWO), "shape -1 x -2 that holds 2"),
        (shape(2**62, 2**62) + part(5, TWO), "that holds 2 numbers"),
        (shape(*[1] * 33) + part(5, TWO), "over 32 axes"),
        (b"\x08\x02\x10\x01" + part(5, TWO), "shape 2 x 1 x 0 x 0"),  # num and channels alone
        (part(5, TWO[:7]), "not 4 bytes each"),
        (part(8, TWO[:4]), "not 8 bytes each"),
        (shape(2), "without numbers"),
        (b"", "without numbers"),
        (varint(5 << 3 | 2) + varint(2**40) + TWO, "field of 1099511627776 bytes where only 8"),
        (b"\x08" + b"\xff" * 11, "number of over ten bytes"),
        (b"\x0b", "a field of kind 3"),
        (b"\x08\x80", "ends in a number"),
    ],
)
def test_damage_is_named_with_its_layer_and_byte(tmp_path: Path, blob: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=r"in layer 'conv1_1' at byte \d+") as error:
        read(tmp_path, net(blob))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_position_is_that_of_the_file(tmp_path: Path) -> None:
    content = net(part(5, TWO[:7]))
    with pytest.raises(CheckpointError, match=f"at byte {content.index(TWO[:7])} "):
        read(tmp_path, content)


def test_gradients_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "some.caffemodel"
    file.write_bytes(net(part(6, bytes(2_000_000)) + part(5, TWO)))
    tracemalloc.start()
    read_caffemodel(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_a_layer_of_very_many_blobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="blob 17"):
        read(tmp_path, part(100, part(1, b"a") + part(7, part(5, TWO)) * 17))


# ---- foreign and damaged files


def torch_file(*, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        torch_file(zipped=True), torch_file(zipped=False), pickle.dumps([1], protocol=0),
        safetensors.torch.save({"a": torch.ones(2)}), b"\x89HDF\r\n\x1a\n" + bytes(90),
        b'name: "VGG"\nlayer {\n  name: "data"\n}\n', b"\n0123456789 text", bytes(100), b"\xff" * 100,
        b"\xa2", part(100, b""), part(100, part(1, b"relu")), b"\x08\x05" + part(2, b"x.caffemodel"),
    ],
)  # fmt: skip
def test_a_foreign_file_is_no_caffemodel(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"some\.caffemodel: is .*no caffemodel"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\): its download or copy failed"),
        (b"\n <!DOCTYPE html><title>Quota exceeded</title>", "is a web page: its download failed"),
        (b"<HTML><body>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a pointer of Git LFS"),
    ],
)
def test_a_download_that_failed(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(CheckpointError, match=rf"some\.caffemodel: {reason}"):
        read(tmp_path, content)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_caffemodel(tmp_path / "none.caffemodel")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_caffemodel(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_cut_short_is_damaged_or_has_fewer_layers(tmp_path: Path, version: int) -> None:
    content = writer.caffemodel(some_layers(), version=version)
    whole = some_layers()
    refused = 0
    for length in range(len(content)):
        try:
            found = read(tmp_path, content[:length])
        except CheckpointError:
            refused += 1
        else:  # cut between two layers
            assert_same(found, {name: whole[name] for name in list(whole)[: len(found)]})
    assert len(content) - refused < 10


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 500), value=st.binary(min_size=1, max_size=6))
def test_changed_bytes_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: bytes
) -> None:
    content = bytearray(writer.caffemodel(some_layers(), data="unpacked" if place % 2 else "packed"))
    content[place : place + len(value)] = value
    _never_anything_else(tmp_path_factory.getbasetemp() / "fuzz.caffemodel", bytes(content))


@settings(max_examples=80, deadline=None)
@given(content=st.binary(max_size=60), head=st.sampled_from([b"", b"\x0a\x01a", b"\xa2\x06\x20\x3a\x1e"]))
def test_random_bytes_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, head: bytes
) -> None:
    _never_anything_else(tmp_path_factory.getbasetemp() / "fuzz.caffemodel", head + content)


def _never_anything_else(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        read_caffemodel(file)
    except CheckpointError as error:
        assert "\n" not in str(error)
