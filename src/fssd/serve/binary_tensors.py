"""Tensors as bytes behind the JSON: the extension `binary_tensor_data` of the Open Inference Protocol.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fssd.serve.refusals import bad_tensor

EXTENSION = "binary_tensor_data"
HEADER = "Inference-Header-Content-Length"  # the bytes of the JSON, where others follow it
SIZE = "binary_data_size"  # a parameter of a tensor: its bytes
_LENGTH = struct.Struct("<I")  # before each element of BYTES
_NUMBERS = {"FP32": "<f4", "INT64": "<i8"}


def split_body(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a request, and what follows it. length: the value of `HEADER`. Raises RequestError."""
    if length is None:
        return body, memoryview(b"")
    if not (length.isascii() and length.isdecimal()) or len(length) > 19 or int(length) > len(body):
        raise bad_tensor(f"{HEADER} is not the length of the JSON in a body of {len(body)} bytes")
    return body[: int(length)], memoryview(body)[int(length) :]


def binary_data(tensor: Mapping[str, Any], rest: memoryview) -> memoryview | None:
    """The bytes of the only input of a request; None for one with its data in the JSON.

    rest: what follows the JSON. Raises RequestError.
    """
    parameters = tensor.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise bad_tensor("parameters of an input is no object")
    for name in parameters or {}:
        if name != SIZE:
            raise bad_tensor(f"an input takes no parameter {name}")
    if not parameters:
        if rest:
            raise bad_tensor(f"bytes follow the JSON, but the input has no {SIZE}")
        return None
    if "data" in tensor:
        raise bad_tensor(f"an input has data or {SIZE}, not both")
    if type(parameters[SIZE]) is not int or parameters[SIZE] != len(rest):
        raise bad_tensor(f"{SIZE} is not the number of bytes that follow the JSON, {len(rest)}")
    return rest


def elements(data: memoryview, count: int) -> list[bytes]:
    """The elements of a tensor of BYTES, `count` of them. Raises RequestError."""
    found: list[bytes] = []
    for _ in range(count):
        length = _LENGTH.unpack(data[: _LENGTH.size])[0] if len(data) >= _LENGTH.size else len(data)
        if _LENGTH.size + length > len(data):
            raise bad_tensor(f"the bytes that follow the JSON end within element {len(found) + 1} of {count}")
        found.append(bytes(data[_LENGTH.size :][:length]))
        data = data[_LENGTH.size + length :]
    if data:
        raise bad_tensor(f"{len(data)} bytes are left behind the last of {count} elements")
    return found


def with_binary(
    rows: Sequence[Mapping[str, Any]], names: Collection[str]
) -> tuple[list[dict[str, Any]], bytes]:
    """Output tensors, those of some names without their data, and the bytes that follow the JSON for them."""
    made, parts = [], []
    for row in rows:
        if row["name"] not in names:
            made.append(dict(row))
            continue
        parts.append(_encoded(row["datatype"], row["data"]))
        others = {key: value for key, value in row.items() if key != "data"}
        made.append({**others, "parameters": {SIZE: len(parts[-1])}})
    return made, b"".join(parts)


def _encoded(kind: str, data: Sequence[Any]) -> bytes:
    if kind in _NUMBERS:
        return np.array(data, _NUMBERS[kind]).tobytes()
    texts = [str(text).encode() for text in data]
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
