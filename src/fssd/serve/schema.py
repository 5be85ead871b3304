"""The forms of answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from fssd.serve.refusals import KINDS

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp")
_BYTES = {"type": "string", "format": "binary"}


class ObjectRow(BaseModel):
    """One object."""

    name: str = Field(description="Class.")
    score: float = Field(description="0 to 1.")
    box: tuple[float, float, float, float] = Field(
        description="x1, y1, x2, y2 in pixels of the upright image."
    )


class DetectAnswer(BaseModel):
    """What was found in an image, best score first."""

    width: int = Field(description="Pixels, once EXIF orientation is applied.")
    height: int
    objects: list[ObjectRow]
    batch: int = Field(description="Images that the network computed together with this one.")
    milliseconds: dict[str, float] = Field(
        description="read, decode, warp, wait (for a thread or a batch), network (of the whole batch),"
        " finish (decoding of boxes, NMS), draw, total."
    )


class Problem(BaseModel):
    """Why there is no answer."""

    code: str = Field(description="Stable.", json_schema_extra={"enum": list(KINDS)})
    message: str = Field(description="One sentence for people.")


class ErrorAnswer(BaseModel):
    """An error."""

    error: Problem


class BatchFound(DetectAnswer):
    """An image of a batch in which objects were looked for."""

    file: str = Field(description="Name of the file in the form.")


class BatchRefused(ErrorAnswer):
    """An image of a batch that could not be looked at."""

    file: str


class BatchAnswer(BaseModel):
    """One entry for each file, in their order."""

    images: list[BatchFound | BatchRefused]
    milliseconds: dict[str, float] = Field(description="read and total, of the request.")


class ClassRow(BaseModel):
    """A class the model knows."""

    name: str
    colour: str = Field(description="#rrggbb, of its boxes in pictures.")


class LimitsAnswer(BaseModel):
    """What a request may hold."""

    body_bytes: int
    pixels: int
    images: int
    seconds: float


class ModelAnswer(BaseModel):
    """What is being served."""

    model: str
    runtime: str
    precision: str
    image_size: int = Field(description="Side of the network's input, pixels.")
    classes: list[ClassRow]
    score: float = Field(description="Default of ?score=.")
    least_score: float = Field(description="Lowest ?score= that is taken.")
    max: int = Field(description="Default and greatest ?max=.")
    limits: LimitsAnswer
    samples: list[str] = Field(description="Images under /assets/ to try it on.")
    version: str = Field(description="Of fssd.")


class Status(BaseModel):
    """How the server is."""

    status: str


def image_body() -> dict[str, Any]:
    """OpenAPI for a body that is an image or a form with one."""
    form = {"type": "object", "required": ["image"], "properties": {"image": _BYTES}}
    content: dict[str, Any] = {kind: {"schema": _BYTES} for kind in IMAGE_TYPES}
    content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def images_body() -> dict[str, Any]:
    """OpenAPI for a form with several images."""
    files = {"type": "array", "items": _BYTES}
    form = {"type": "object", "required": ["images"], "properties": {"images": files}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def refusals(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI for the errors of a route, by status."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = KINDS[code]
        text = f"`{code}`: {kind.meaning}"
        if kind.status in found:
            text = f"{found[kind.status]['description']} {text}"
        found[kind.status] = {"model": ErrorAnswer, "description": text}
    return found
