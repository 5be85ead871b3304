"""Reads the weights of a .caffemodel without Caffe or protobuf: only these fields of Caffe's protobuf.

    NetParameter      layer 100 (V2), layers 2 (V1)
    LayerParameter    name 1, blobs 7         V1LayerParameter    name 4, blobs 6
    BlobProto         num, channels, height, width 1..4 (legacy), data 5, shape 7, double_data 8
    BlobShape         dim 1

Everything else, including gradients (diff 6), is skipped without being read. Source: caffe.proto,
weiliu89/caffe.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fssd.errors import CheckpointError
from fssd.weights.content import refuse_failed_download

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types; 3 and 4 (groups) are not in Caffe's
WIDTHS = {FIXED64: 8, FIXED32: 4}
NET_FIELDS = {1: BYTES, 2: BYTES, 3: BYTES, 4: VARINT, 5: VARINT, 6: BYTES, 7: VARINT, 8: BYTES, 100: BYTES}
NAME_AND_BLOBS = {100: (1, 7), 2: (4, 6)}  # by the layer's own field in the net: V2, V1
DATA, SHAPE, DOUBLE_DATA = 5, 7, 8

# Far above any network, but low enough that a small file of many empty messages cannot fill the memory.
MOST_LAYERS, MOST_BLOBS, MOST_AXES = 10_000, 16, 32

MAGIC = {
    b"PK\x03\x04": "a zip archive, perhaps a .pth file",
    b"\x80": "a pickle, perhaps an old .pth file",
    b"\x89HDF": "an HDF5 file; save the network as a binary protobuf",
}
HEAD = 512  # bytes to recognise a foreign file by; the name of a network is shorter


class Field(NamedTuple):
    """One field of a message. value: of a varint, else 0. start, stop: its content, positions in the file."""

    number: int
    kind: int
    value: int
    start: int
    stop: int


class _DamageError(Exception):
    """What is wrong and at which byte; `_read_layer` adds the layer's name."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"at byte {position} {reason}")


def read_caffemodel(file: Path) -> dict[str, list[Tensor]]:
    """Blobs of each layer that has any, float32, by the layer's name, in the file's order.

    Reads both layer formats. A blob of shape 1 x 1 x 1 x N (old biases) becomes (N,), one of 1 x 1 x M x N
    (old fully connected weights) (M, N). Of two layers of the same name the last counts, as in Caffe. Peak
    memory is the weights and one blob. Raises CheckpointError for a file that is missing, damaged, no
    caffemodel or without weights.
    """
    try:
        with file.open("rb") as handle:
            layers = _read_net(_Wire(handle), file)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: there is no such file; check the path") from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    except _DamageError as error:
        what = f"is damaged or no caffemodel: {error}"
        raise CheckpointError(f"{file}: {what}; copy or download it again") from error
    if not layers:
        raise CheckpointError(f"{file}: is no caffemodel with weights: none of its layers has any")
    return layers


def _read_net(wire: _Wire, file: Path) -> dict[str, list[Tensor]]:
    _refuse_foreign(wire, file)
    layers: dict[str, list[Tensor]] = {}
    for field in wire.fields(0, wire.size):
        if field.number in NAME_AND_BLOBS and field.kind == BYTES:
            name, blobs = _read_layer(wire, field)
            if blobs:
                layers[name] = blobs
        if len(layers) > MOST_LAYERS:
            raise _DamageError(f"begins layer {len(layers)}, more than any network has", field.start)
    return layers


def _refuse_foreign(wire: _Wire, file: Path) -> None:
    head = wire.read(0, min(wire.size, HEAD))
    refuse_failed_download(file, head)
    for magic, meaning in MAGIC.items():
        if head.startswith(magic):
            raise CheckpointError(f"{file}: is no caffemodel but {meaning}")
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        raise CheckpointError(f"{file}: is no caffemodel but a text; a prototxt holds no weights")
    key, _ = wire.varint(0, wire.size)
    if NET_FIELDS.get(key >> 3) != key & 7:
        raise CheckpointError(f"{file}: is no caffemodel: it does not begin as a network of Caffe does")


def _read_layer(wire: _Wire, layer: Field) -> tuple[str, list[Tensor]]:
    name_number, blobs_number = NAME_AND_BLOBS[layer.number]
    name = ""
    spans: list[Field] = []
    try:
        for field in wire.fields(layer.start, layer.stop):
            if field.kind == BYTES and field.number == name_number:
                name = wire.read(field.start, field.stop).decode(errors="replace")
            elif field.kind == BYTES and field.number == blobs_number:
                spans.append(field)
            if len(spans) > MOST_BLOBS:
                raise _DamageError(f"begins blob {len(spans)}, more than any layer has", field.start)
        return name, [_read_blob(wire, span) for span in spans]
    except _DamageError as error:
        error.args = (f"in layer {name[:80]!r} {error}",)
        raise


def _read_blob(wire: _Wire, blob: Field) -> Tensor:
    data = {DATA: bytearray(), DOUBLE_DATA: bytearray()}
    kinds = {DATA: FIXED32, DOUBLE_DATA: FIXED64}
    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    position = blob.start
    while position < blob.stop:
        field = wire.field(position, blob.stop)
        position = field.stop
        if field.number in data:
            position = _read_numbers(wire, field, blob.stop, kinds[field.number], data[field.number])
        elif field.number == SHAPE and field.kind == BYTES:
            shape = _read_shape(wire, field)
        elif field.number <= 4 and field.kind == VARINT:
            legacy[field.number] = _signed(field.value)
    if shape is None and legacy:
        shape = [legacy.get(axis, 0) for axis in (1, 2, 3, 4)]
    wide = data[DOUBLE_DATA]
    numbers = np.frombuffer(wide, "<f8") if wide else np.frombuffer(data[DATA], "<f4")
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which the caller has to refuse
        flat = torch.from_numpy(numbers.astype(np.float32, copy=False))
    return flat.reshape(_fit(shape, len(flat), blob.start))


def _read_numbers(wire: _Wire, field: Field, stop: int, kind: int, into: bytearray) -> int:
    """Append the numbers of a packed field, or of adjacent unpacked ones; return the position after them."""
    width = WIDTHS[kind]
    if field.kind not in (BYTES, kind) or (field.stop - field.start) % width:
        raise _DamageError(f"are numbers that are not {width} bytes each", field.start)
    into += wire.read(field.start, field.stop)
    if field.kind == BYTES:
        return field.stop
    return wire.read_row(field.stop, stop, field.number << 3 | kind, width, into)


def _read_shape(wire: _Wire, message: Field) -> list[int]:
    shape: list[int] = []
    for field in wire.fields(message.start, message.stop):
        if field.number != 1:
            continue
        if field.kind == VARINT:
            shape.append(_signed(field.value))
        position = field.start
        while field.kind == BYTES and position < field.stop and len(shape) <= MOST_AXES:
            value, position = wire.varint(position, field.stop)
            shape.append(_signed(value))
        if len(shape) > MOST_AXES:
            raise _DamageError(f"begins a shape of over {MOST_AXES} axes", message.start)
    return shape


def _fit(shape: list[int] | None, count: int, position: int) -> tuple[int, ...]:
    if count == 0:
        raise _DamageError("begins a blob without numbers", position)
    if shape is None:
        return (count,)
    if min(shape, default=1) < 0 or math.prod(shape) != count:
        shown = " x ".join(str(axis) for axis in shape)
        raise _DamageError(f"begins a blob of shape {shown} that holds {count} numbers", position)
    if len(shape) == 4 and shape[:2] == [1, 1]:
        return tuple(shape[3:] if shape[2] == 1 else shape[2:])
    return tuple(shape)


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


class _Wire:
    """Protobuf's wire format in an open file. Positions are bytes from its beginning."""

    def __init__(self, handle: BinaryIO) -> None:
        self.handle = handle
        self.size = handle.seek(0, 2)

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message between two positions."""
        while start < stop:
            field = self.field(start, stop)
            yield field
            start = field.stop

    def field(self, start: int, stop: int) -> Field:
        """The field that begins at `start`, in a message that ends at `stop`."""
        key, position = self.varint(start, stop)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, end = self.varint(position, stop)
            return Field(number, kind, value, position, end)
        if kind == BYTES:
            length, position = self.varint(position, stop)
        elif kind in WIDTHS:
            length = WIDTHS[kind]
        else:
            raise _DamageError(f"is a field of kind {kind}, which Caffe never writes", start)
        if length > stop - position:
            left = stop - position
            raise _DamageError(f"begins a field of {length} bytes where only {left} are left", position)
        return Field(number, kind, 0, position, position + length)

    def varint(self, start: int, stop: int) -> tuple[int, int]:
        """A number of seven bits per byte, and the position after it."""
        value = 0
        read = self.read(start, min(stop, start + 10))
        for index, byte in enumerate(read):
            value |= (byte & 127) << (7 * index)
            if byte < 128:
                return value, start + index + 1
        reason = "begins a number of over ten bytes" if len(read) == 10 else "the content ends in a number"
        raise _DamageError(reason, start)

    def read_row(self, start: int, stop: int, key: int, width: int, into: bytearray) -> int:
        """Append the contents of adjacent equal fields: one byte `key`, then `width` bytes each.

        Returns the position after them. The reads grow while they hold nothing else, so that one long row and
        many short ones are both fast.
        """
        stride = width + 1
        window = 1
        while (rows := min(window, (stop - start) // stride)) > 0:
            read = self.read(start, start + rows * stride)
            table = np.frombuffer(read, np.uint8).reshape(rows, stride)
            others = np.flatnonzero(table[:, 0] != key)
            good = int(others[0]) if len(others) else rows
            into += table[:good, 1:].tobytes()
            start += good * stride
            if good < rows:
                break
            window = min(2 * window, 65536)
        return start

    def read(self, start: int, stop: int) -> bytes:
        """The bytes between two positions."""
        self.handle.seek(start)
        read = self.handle.read(stop - start)
        if len(read) < stop - start:
            raise _DamageError("the file ended while it was being read", start + len(read))
        return read
