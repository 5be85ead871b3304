"""The addresses that detect, and those that tell how the server is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from fssd.errors import nearest
from fssd.serve.answers import looked_json, milliseconds, server_timing, wants_png
from fssd.serve.limits import Clock, in_time, read_body
from fssd.serve.metrics import CONTENT_TYPE
from fssd.serve.pipeline import Ask, Looked
from fssd.serve.refusals import RequestError
from fssd.serve.schema import (
    BatchAnswer,
    DetectAnswer,
    ModelAnswer,
    Status,
    image_body,
    images_body,
    refusals,
)
from fssd.serve.service import Service
from fssd.serve.uploads import Upload, split_uploads

Score = Annotated[
    float | None, Query(ge=0, le=1, description="Objects score more than this; the server has a default.")
]
Most = Annotated[int | None, Query(alias="max", ge=1, description="Objects in the answer, the best ones.")]
BODY = ("empty_body", "bad_upload", "slow_upload", "body_too_large", "unsupported_encoding", "bad_parameter")
PARAMETERS = ("score", "max")
IMAGE = ("unsupported_image", "damaged_image", "too_many_pixels")
LATE = ("busy", "stopping", "timeout")

router = APIRouter()


def service_of(request: Request) -> Service:
    """The service that an application was made for."""
    return cast("Service", request.app.state.service)


@router.post(
    "/detect",
    summary="Detect objects in one image",
    response_model=DetectAnswer,
    responses={
        200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
        **refusals(*BODY, *IMAGE, *LATE),
    },
    openapi_extra=image_body(),
)
async def detect(request: Request, score: Score = None, most: Most = None) -> Response:
    """The body is a JPEG, PNG, WebP or BMP, or a multipart form with one.

    The answer is JSON; with `Accept: image/png` it is the image with the boxes on it.
    """
    service = service_of(request)
    ask = _ask(request, score, most)
    start = time.perf_counter()
    clock = Clock(service.limits.seconds)
    service.gate.check()
    with service.gate.memory() as take:
        body = await read_body(request, service.limits, clock, take)
        read = time.perf_counter() - start
        with service.gate.places(1):
            draws = wants_png(request.headers.get("accept", "*/*"))
            work = _look_at_body(service, request.headers.get("content-type", ""), body, ask, draws)
            looked, png = await in_time(request, clock, work)
    seconds = {**looked.seconds, "read": read, "total": time.perf_counter() - start}
    headers = {"Server-Timing": server_timing(seconds), "Vary": "Accept"}
    if png is not None:
        return Response(png, media_type="image/png", headers=headers)
    answer = {**looked_json(looked), "batch": looked.batch, "milliseconds": milliseconds(seconds)}
    return JSONResponse(answer, headers=headers)


@router.post(
    "/detect/batch",
    summary="Detect objects in several images",
    response_model=BatchAnswer,
    responses=refusals(*BODY, "too_many_images", *LATE),
    openapi_extra=images_body(),
)
async def detect_batch(request: Request, score: Score = None, most: Most = None) -> Response:
    """The body is a multipart form with several images; its size is limited as a whole.

    An image that cannot be looked at has an error in its place and is no reason to refuse the others.
    """
    service = service_of(request)
    ask = _ask(request, score, most)
    start = time.perf_counter()
    clock = Clock(service.limits.seconds)
    service.gate.check()
    with service.gate.memory() as take:
        body = await read_body(request, service.limits, clock, take)
        read = time.perf_counter() - start
        kind = request.headers.get("content-type", "")
        uploads = await service.pipeline.run(split_uploads, kind, body, service.limits)
        with service.gate.places(len(uploads)):
            images = await in_time(request, clock, _entries(service, uploads, ask))
    total = time.perf_counter() - start
    return JSONResponse({"images": images, "milliseconds": milliseconds({"read": read, "total": total})})


@router.get("/model", summary="What is served", response_model=ModelAnswer)
async def model(request: Request) -> Response:
    """Classes, runtime, defaults and limits."""
    return JSONResponse(service_of(request).describe())


@router.get("/health", summary="Whether the process lives", response_model=Status)
async def health() -> Response:
    """Always the same answer, as long as there is one."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/ready",
    summary="Whether an image would be taken on",
    response_model=Status,
    responses=refusals("busy", "stopping"),
)
async def ready(request: Request) -> Response:
    """503 while the queue is full or the server shuts down; the model is warm before the port opens."""
    service_of(request).gate.check()
    return JSONResponse({"status": "ready"})


@router.get("/metrics", summary="Counts and times for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Text format 0.0.4."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE)


def _ask(request: Request, score: float | None, most: int | None) -> Ask:
    """What a request asks for. Raises RequestError, also for a parameter that does not exist."""
    for name in request.query_params:
        if name not in PARAMETERS:
            raise RequestError(
                "bad_parameter", f"{name}: there is no such parameter{nearest(name, PARAMETERS)}."
            )
    return service_of(request).ask(score, most)


async def _look_at_body(
    service: Service, kind: str, body: bytes, ask: Ask, draws: bool
) -> tuple[Looked, bytes | None]:
    uploads = await service.pipeline.run(split_uploads, kind, body, service.limits)
    if len(uploads) > 1:
        raise RequestError("bad_upload", "There are several files in the form; send them to /detect/batch.")
    looked = await _look(service, uploads[0], ask)
    if not draws:
        return looked, None
    start = time.perf_counter()
    png = await service.pipeline.draw(uploads[0].data, looked)
    seconds = time.perf_counter() - start
    service.metrics.stage_seconds.labels("draw").observe(seconds)
    return replace(looked, seconds={**looked.seconds, "draw": seconds}), png


async def _look(service: Service, upload: Upload, ask: Ask) -> Looked:
    if not upload.data:
        raise RequestError("empty_body", "The file in the form is empty.")
    looked = await service.pipeline.detect(upload.data, ask)
    service.count(looked)
    return looked


async def _entries(service: Service, uploads: list[Upload], ask: Ask) -> list[dict[str, Any]]:
    return await asyncio.gather(*(_entry(service, upload, ask) for upload in uploads))


async def _entry(service: Service, upload: Upload, ask: Ask) -> dict[str, Any]:
    """An image of a batch, or why there is nothing to say of it."""
    try:
        looked = await _look(service, upload, ask)
    except RequestError as refusal:
        service.metrics.refuse(refusal.code)
        return {"file": upload.name, **refusal.body()}
    seconds = {**looked.seconds, "total": sum(looked.seconds.values())}
    return {
        "file": upload.name,
        **looked_json(looked),
        "batch": looked.batch,
        "milliseconds": milliseconds(seconds),
    }
