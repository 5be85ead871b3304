"""The schemas of the answers, for the OpenAPI document."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, Field

from fssd.serve.refusals import KINDS

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
BINARY = {"type": "string", "format": "binary"}


class ObjectRow(BaseModel):
    """One object."""

    name: str = Field(description="Class.")
    score: float = Field(description="0 to 1.")
    box: tuple[float, float, float, float] = Field(
        description="x1, y1, x2, y2 in pixels of the upright image."
    )


class DetectAnswer(BaseModel):
    """The objects in an image, best score first."""

    width: int = Field(description="Pixels, after EXIF orientation is applied.")
    height: int
    objects: list[ObjectRow]
    batch: int = Field(description="Images that the network computed together with this one.")
    milliseconds: dict[str, float] = Field(
        description="read, decode, warp, wait (for a thread or a batch), network (of the whole batch),"
        " finish (decoding of boxes, NMS), draw, total."
    )


class ErrorDetail(BaseModel):
    """The reason of an error."""

    code: str = Field(description="Does not change.", json_schema_extra={"enum": list(KINDS)})
    message: str = Field(description="One sentence for people.")


class ErrorAnswer(BaseModel):
    """An error."""

    error: ErrorDetail


class BatchFound(DetectAnswer):
    """An image of a batch that was processed."""

    file: str = Field(description="Name of the file in the form.")


class BatchRefused(ErrorAnswer):
    """An image of a batch that could not be processed."""

    file: str


class BatchAnswer(BaseModel):
    """One entry for each file, in the order of the form."""

    images: list[BatchFound | BatchRefused]
    milliseconds: dict[str, float] = Field(description="read and total, for the request.")


class ClassRow(BaseModel):
    """A class that the model knows."""

    name: str
    colour: str = Field(description="#rrggbb, the colour of its boxes in pictures.")


class LimitsAnswer(BaseModel):
    """The limits of a request."""

    body_bytes: int
    pixels: int
    images: int
    seconds: float


class ModelAnswer(BaseModel):
    """The model being served."""

    model: str
    runtime: str
    precision: str
    image_size: int | tuple[int, int] = Field(
        description="Side of the network's input, or its width and height, pixels."
    )
    classes: list[ClassRow]
    score: float = Field(description="Default of ?score=.")
    class_scores: dict[str, float] = Field(
        description="Defaults of classes that keep a threshold of their own; ?score= replaces them."
    )
    least_score: float = Field(description="Lowest accepted ?score=.")
    max: int = Field(description="Default and largest ?max=.")
    tiles: dict[str, Any] | None = Field(
        description="How images are cut: side, overlap, whole_image, most; null for images as a whole."
    )
    limits: LimitsAnswer
    samples: list[str] = Field(description="Sample images under /assets/.")
    version: str = Field(description="Version of fssd.")


class Status(BaseModel):
    """The state of the server."""

    status: str


class Live(BaseModel):
    """The state of the server, for the Open Inference Protocol."""

    live: bool


class Ready(Live):
    """The state of the server, which takes images, for the Open Inference Protocol."""

    ready: bool


class ServerMetadata(BaseModel):
    """The server, for the Open Inference Protocol."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor that the model takes or gives; -1 is a size that is free."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """The model, for the Open Inference Protocol."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(BaseModel):
    """The state of the model."""

    name: str
    ready: bool


class OutputTensor(TensorMetadata):
    """A tensor of an answer."""

    data: list[float | int | str] = Field(description="In row-major order.")


class InferenceAnswer(BaseModel):
    """The objects of each image, filled up to the image with the most; `count` says how many it has."""

    model_name: str
    model_version: str
    id: str | None = Field(None, description="That of the request, if it had one.")
    outputs: list[OutputTensor]


class InferenceError(BaseModel):
    """An error of the Open Inference Protocol."""

    error: str


def inference_body(inputs: Iterable[str], outputs: Iterable[str]) -> dict[str, Any]:
    """OpenAPI for an inference request."""
    texts = {"type": "string"}
    sizes = {"type": "array", "items": {"type": "integer"}}
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"enum": list(inputs)},
            "shape": sizes,
            "datatype": texts,
            "data": {"type": "array", "items": {}},
        },
    }
    wanted = {"type": "object", "required": ["name"], "properties": {"name": {"enum": list(outputs)}}}
    limits = {"score": {"type": "number"}, "max": {"type": "integer"}}
    properties = {
        "id": texts,
        "parameters": {"type": "object", "properties": limits},
        "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": 1},
        "outputs": {"type": "array", "items": wanted},
    }
    request = {"type": "object", "required": ["inputs"], "properties": properties}
    content = {"application/json": {"schema": request}, "application/octet-stream": {"schema": BINARY}}
    return {"requestBody": {"required": True, "content": content}}


def form_body(field: str, schema: dict[str, Any], others: tuple[str, ...] = ()) -> dict[str, Any]:
    """OpenAPI for a body that is a form with one field. others: types of bodies that are the image itself."""
    form = {"type": "object", "required": [field], "properties": {field: schema}}
    content: dict[str, Any] = {kind: {"schema": BINARY} for kind in others}
    content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def protocol_refusals(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for the errors of a route of the Open Inference Protocol, by status."""
    return {status: {**row, "model": InferenceError} for status, row in refusals(*codes).items()}


def refusals(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for the errors of a route, by status."""
    texts: dict[int, list[str]] = {}
    for code in codes:
        texts.setdefault(KINDS[code].status, []).append(f"`{code}`: {KINDS[code].meaning}")
    return {status: {"model": ErrorAnswer, "description": " ".join(text)} for status, text in texts.items()}
