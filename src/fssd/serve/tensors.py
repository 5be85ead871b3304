"""Requests and answers of the Open Inference Protocol (KServe v2): JSON to images, detections to tensors.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fssd.data.sample import Image
from fssd.errors import nearest
from fssd.inference.detections import Detections
from fssd.serve.binary_tensors import binary_data, elements, split_body
from fssd.serve.limits import ServerLimits
from fssd.serve.refusals import RequestError, bad_tensor

INPUTS = {  # by name: datatype and shape; a request has one of them
    "image": ("BYTES", [-1]),
    "pixels": ("UINT8", [-1, -1, -1, 3]),
}
OUTPUTS = {
    "boxes": ("FP32", [-1, -1, 4]),
    "scores": ("FP32", [-1, -1]),
    "labels": ("INT64", [-1, -1]),
    "names": ("BYTES", [-1, -1]),
    "count": ("INT64", [-1]),
}
PARAMETERS = {"score": (0, 1), "max": (1, math.inf)}
ALL_BINARY, BINARY = "binary_data_output", "binary_data"  # parameters of a request, and of one of its outputs
NO_LABEL = -1  # fills the rows of an image that has fewer objects than another


class InferenceRequest(NamedTuple):
    """A request that was read. images: files, or pixels (H, W, 3) uint8 RGB. outputs: names, in order.

    binary: the names of outputs that are wanted as bytes. id: what the answer repeats, None if there is none.
    score, most: None for the server's own.
    """

    images: list[bytes] | list[Image]
    outputs: list[str]
    binary: frozenset[str]
    id: str | None
    score: float | None
    most: int | None


def read_inference(body: bytes, length: str | None, limits: ServerLimits) -> InferenceRequest:
    """A request from its body. length: of its JSON, as the header says, see `split_body`.

    Raises RequestError.
    """
    if not body:
        raise RequestError("empty_body", "There is no request; send a JSON object with inputs.")
    text, rest = split_body(body, length)
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise bad_tensor("the body is no JSON object") from error
    if not isinstance(document, dict):
        raise bad_tensor("the body is no JSON object")
    given = document.get("id")
    if given is not None and not isinstance(given, str):
        raise bad_tensor("id is no string")
    if given is not None and not _is_text(given):
        raise bad_tensor("id holds half a surrogate pair")
    parameters = document.get("parameters")
    score, most, all_binary = _parameters({} if parameters is None else parameters)
    outputs, binary = _outputs(document, all_binary)
    return InferenceRequest(_images(document, rest, limits), outputs, binary, given, score, most)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, of which Python would take the last of two values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise bad_tensor(f"{name} stands twice in one object")
    return found


def metadata(table: Mapping[str, tuple[str, list[int]]]) -> list[dict[str, Any]]:
    """The tensors of a table as the protocol describes them."""
    return [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in table.items()]


def output_tensors(found: Sequence[Detections], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The detections of some images as tensors, filled up to the image with the most objects.

    Boxes are xyxy in pixels of the upright image, rounded to 0.01, scores to 5 decimals, as `fssd detect`
    writes them. Where an image has fewer objects there are zeros, label -1 and empty names.
    """
    most = max((len(one) for one in found), default=0)
    rows: dict[str, list[Any]] = {name: [] for name in OUTPUTS}
    for one in found:
        missing = most - len(one)
        boxes = [round(float(value), 2) for value in one.boxes.flatten()]
        rows["boxes"] += [*boxes, *[0.0] * (4 * missing)]
        rows["scores"] += [*(round(float(value), 5) for value in one.scores), *[0.0] * missing]
        rows["labels"] += [*map(int, one.labels), *[NO_LABEL] * missing]
        rows["names"] += [*one.names, *[""] * missing]
        rows["count"].append(len(one))
    sizes = {"boxes": [len(found), most, 4], "count": [len(found)]}
    return [
        {
            "name": name,
            "shape": sizes.get(name, [len(found), most]),
            "datatype": OUTPUTS[name][0],
            "data": rows[name],
        }
        for name in wanted
    ]


def _is_text(value: str) -> bool:
    """Whether the answer can repeat it: JSON can hold halves of surrogate pairs, which UTF-8 has not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parameters(given: Any) -> tuple[float | None, int | None, bool]:
    """Score, number of objects, and whether all outputs are wanted as bytes."""
    if not isinstance(given, dict):
        raise bad_tensor("parameters is no object")
    for name, value in given.items():
        if name == ALL_BINARY:
            if not isinstance(value, bool):
                raise bad_tensor(f"parameter {name} is neither true nor false")
            continue
        if name not in PARAMETERS:
            raise bad_tensor(f"there is no parameter {name}{nearest(name, (*PARAMETERS, ALL_BINARY))}")
        low, high = PARAMETERS[name]
        whole = name != "max" or isinstance(value, int)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not whole or not low <= value <= high:
            raise bad_tensor(f"parameter {name} is not a number in its range")
    return given.get("score"), given.get("max"), given.get(ALL_BINARY, False)


def _outputs(document: Mapping[str, Any], all_binary: bool) -> tuple[list[str], frozenset[str]]:
    """The names of the wanted outputs, in order, and of those that are wanted as bytes."""
    asked = document.get("outputs")
    if asked is None:
        return list(OUTPUTS), frozenset(OUTPUTS if all_binary else ())
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise bad_tensor("outputs is no list of objects")
    names = [str(one.get("name")) for one in asked]
    for name in names:
        if name not in OUTPUTS:
            raise bad_tensor(f"there is no output {name}{nearest(name, OUTPUTS)}")
    if len(set(names)) < len(names):  # the answer would grow with each
        ((name, _),) = Counter(names).most_common(1)
        raise bad_tensor(f"output {name} is wanted twice")
    chosen = zip(names, asked, strict=True)
    return names, frozenset(name for name, one in chosen if _is_binary(one, all_binary))


def _is_binary(output: Mapping[str, Any], otherwise: bool) -> bool:
    parameters = output.get("parameters")
    if parameters is None:
        return otherwise
    if not isinstance(parameters, dict) or set(parameters) - {BINARY}:
        raise bad_tensor(f"the only parameter of an output is {BINARY}")
    if not isinstance(value := parameters.get(BINARY, otherwise), bool):
        raise bad_tensor(f"{BINARY} of an output is neither true nor false")
    return value


def _images(document: Mapping[str, Any], rest: memoryview, limits: ServerLimits) -> list[bytes] | list[Image]:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise bad_tensor("inputs must be a list of one tensor, image or pixels")
    (tensor,) = inputs
    name, shape = tensor.get("name"), tensor.get("shape")
    if not isinstance(name, str) or name not in INPUTS:
        raise bad_tensor(f"there is no input {name}{nearest(str(name), INPUTS)}")
    kind = INPUTS[name][0]
    if tensor.get("datatype") != kind:
        raise bad_tensor(f"input {name} is of datatype {kind}")
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        raise bad_tensor("shape must be a list of sizes, each 1 or more")
    if (binary := binary_data(tensor, rest)) is not None:
        return _binary_files(shape, binary, limits) if name == "image" else _pixels(shape, binary, limits)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise bad_tensor("data is no list")
    return _files(shape, data, limits) if name == "image" else _pixels(shape, data, limits)


def _require_few(count: int, limits: ServerLimits) -> None:
    if count > limits.batch:
        raise RequestError("too_many_images", f"A request holds at most {limits.batch} images.")


def _files(shape: list[int], data: list[Any], limits: ServerLimits) -> list[bytes]:
    while len(data) == 1 and isinstance(data[0], list):  # [1, N], as some clients send a batch
        (data,) = data
    if math.prod(shape) != len(data) or not all(isinstance(text, str) for text in data):
        raise bad_tensor("data must hold as many strings as shape says, each an image file in base64")
    _require_few(len(data), limits)
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError) as error:
        raise bad_tensor("data is not in base64") from error


def _binary_files(shape: list[int], data: memoryview, limits: ServerLimits) -> list[bytes]:
    _require_few(count := math.prod(shape), limits)
    return elements(data, count)


def _pixels(shape: list[int], data: list[Any] | memoryview, limits: ServerLimits) -> list[Image]:
    if len(shape) == 3:
        shape = [1, *shape]
    if len(shape) != 4 or shape[3] != 3:
        raise bad_tensor("the shape of pixels is [images, height, width, 3], RGB")
    _require_few(shape[0], limits)
    if shape[1] * shape[2] > limits.pixels:
        raise RequestError("too_many_pixels", "The image has too many pixels; scale it down.")
    try:
        values = np.frombuffer(data, np.uint8) if isinstance(data, memoryview) else np.asarray(data)
    except ValueError as error:  # rows of different lengths
        raise bad_tensor("data does not have the shape that is stated") from error
    if values.size != math.prod(shape):
        raise bad_tensor("data does not have the shape that is stated")
    if values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise bad_tensor("data must be whole numbers from 0 to 255")
    return list(values.astype(np.uint8).reshape(shape))
