"""The routes: detection as JSON or PNG, and the state of the server."""

import time
from dataclasses import replace
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from python_multipart.multipart import parse_options_header

from fssd.errors import nearest
from fssd.evaluation.results import object_rows
from fssd.serve import schema
from fssd.serve.limits import Clock, all_of, in_time, read_body
from fssd.serve.metrics import CONTENT_TYPE
from fssd.serve.pipeline import DetectOptions, ImageResult
from fssd.serve.refusals import RequestError, sentence
from fssd.serve.service import Service
from fssd.serve.uploads import PARAMETERS, Upload, split_uploads

Score = Annotated[
    float | None, Query(ge=0, le=1, description="Objects score more than this; the server has a default.")
]
Most = Annotated[int | None, Query(alias="max", ge=1, description="Objects in the answer, the best ones.")]
BODY = ("empty_body", "bad_upload", "slow_upload", "body_too_large", "unsupported_encoding", "bad_parameter")
IMAGE = ("unsupported_image", "damaged_image", "too_many_pixels")
LATE = ("busy", "stopping", "timeout")
STAGES = ("read", "decode", "warp", "wait", "network", "finish", "draw", "total")

router = APIRouter()


async def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


Served = Annotated[Service, Depends(_service)]


async def _options(
    request: Request, service: Served, score: Score = None, most: Most = None
) -> DetectOptions:
    """The options of a request. Raises RequestError, also for a parameter that is unknown or given twice."""
    for name in request.query_params:
        if name not in PARAMETERS:
            near = nearest(name, PARAMETERS)
            raise RequestError("bad_parameter", sentence(f"{name}: there is no such parameter{near}"))
        if len(request.query_params.getlist(name)) > 1:
            raise RequestError("bad_parameter", f"{name}: it is given more than once; give it once.")
    return service.options(score, most)


Options = Annotated[DetectOptions, Depends(_options)]


@router.post(
    "/detect",
    summary="Detect objects in one image",
    response_model=schema.DetectAnswer,
    responses={
        200: {"content": {"image/png": {"schema": schema.BINARY}}},
        **schema.refusals(*BODY, *IMAGE, *LATE),
    },
    openapi_extra=schema.form_body("image", schema.BINARY, schema.IMAGE_TYPES),
)
async def detect(request: Request, service: Served, options: Options) -> Response:
    """The body is a JPEG, PNG, WebP or BMP, or a multipart form with one.

    The answer is JSON; with `Accept: image/png` it is the image with boxes drawn on it.
    """
    start = time.perf_counter()
    clock = Clock(service.limits.seconds)
    service.gate.check()
    with service.gate.memory() as take:
        body = await read_body(request, service.limits, clock, take)
        read = time.perf_counter() - start
        with service.gate.admit(1):
            as_png = wants_png(request.headers.get("accept", "*/*"))
            work = _detect_body(service, request.headers.get("content-type", ""), body, options, as_png)
            result, png = await in_time(request, clock, work)
    seconds = {**result.seconds, "read": read, "total": time.perf_counter() - start}
    headers = {"Server-Timing": server_timing(seconds), "Vary": "Accept"}
    if png is not None:
        return Response(png, media_type="image/png", headers=headers)
    return JSONResponse(result_json(result, seconds), headers=headers)


@router.post(
    "/detect/batch",
    summary="Detect objects in several images",
    response_model=schema.BatchAnswer,
    responses=schema.refusals(*BODY, "too_many_images", *LATE),
    openapi_extra=schema.form_body("images", {"type": "array", "items": schema.BINARY}),
)
async def detect_batch(request: Request, service: Served, options: Options) -> Response:
    """The body is a multipart form with several images; the size limit applies to the whole body.

    An image that cannot be read gets an error as its entry; the others are answered.
    """
    start = time.perf_counter()
    clock = Clock(service.limits.seconds)
    service.gate.check()
    with service.gate.memory() as take:
        body = await read_body(request, service.limits, clock, take)
        read = time.perf_counter() - start
        kind = request.headers.get("content-type", "")
        uploads = await service.pipeline.run(split_uploads, kind, body, service.limits)
        with service.gate.admit(len(uploads)):
            work = all_of(_entry(service, upload, options) for upload in uploads)
            images = await in_time(request, clock, work)
    total = time.perf_counter() - start
    return JSONResponse({"images": images, "milliseconds": milliseconds({"read": read, "total": total})})


@router.get("/model", summary="The model being served", response_model=schema.ModelAnswer)
async def model(service: Served) -> Response:
    """Classes, runtime, defaults and limits."""
    return JSONResponse(service.describe())


@router.get("/health", summary="Whether the process is alive", response_model=schema.Status)
async def health() -> Response:
    """The answer is always the same."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/ready",
    summary="Whether an image would be accepted",
    response_model=schema.Status,
    responses=schema.refusals("busy", "stopping"),
)
async def ready(service: Served) -> Response:
    """503 while the queue is full or the server shuts down. The model is warmed up before the port opens."""
    service.gate.check()
    return JSONResponse({"status": "ready"})


@router.get("/metrics", summary="Counts and times for Prometheus", response_class=PlainTextResponse)
async def metrics(service: Served) -> Response:
    """Text format 0.0.4."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def _detect_body(
    service: Service, kind: str, body: bytes, options: DetectOptions, as_png: bool
) -> tuple[ImageResult, bytes | None]:
    uploads = await service.pipeline.run(split_uploads, kind, body, service.limits)
    if len(uploads) > 1:
        raise RequestError("bad_upload", "There are several files in the form; send them to /detect/batch.")
    result = await _detect_upload(service, uploads[0], options)
    if not as_png:
        return result, None
    start = time.perf_counter()
    png = await service.pipeline.draw(uploads[0].data, result.found)
    seconds = time.perf_counter() - start
    service.metrics.stage_seconds.labels("draw").observe(seconds)
    return replace(result, seconds={**result.seconds, "draw": seconds}), png


async def _detect_upload(service: Service, upload: Upload, options: DetectOptions) -> ImageResult:
    if not upload.data:
        raise RequestError("empty_body", "The file in the form is empty.")
    result = await service.pipeline.detect(upload.data, options)
    service.count(result)
    return result


async def _entry(service: Service, upload: Upload, options: DetectOptions) -> dict[str, Any]:
    """The objects of one image of a batch, or its error."""
    try:
        result = await _detect_upload(service, upload, options)
    except RequestError as refusal:
        service.metrics.refuse(refusal.code)
        return {"file": upload.name, **refusal.body()}
    seconds = {**result.seconds, "total": sum(result.seconds.values())}
    return {"file": upload.name, **result_json(result, seconds)}


def result_json(result: ImageResult, seconds: dict[str, float]) -> dict[str, Any]:
    """The objects of an image in the form that `fssd detect` writes, and the times by stage."""
    objects = {"width": result.width, "height": result.height, "objects": object_rows(result.found)}
    return {**objects, "batch": result.batch, "milliseconds": milliseconds(seconds)}


def milliseconds(seconds: dict[str, float]) -> dict[str, float]:
    """Times by stage in milliseconds, rounded to 0.01, in the order of the stages."""
    return {stage: round(1000 * seconds[stage], 2) for stage in STAGES if stage in seconds}


def server_timing(seconds: dict[str, float]) -> str:
    """The same times as a Server-Timing header, which browsers show with a request."""
    return ", ".join(f"{stage};dur={value}" for stage, value in milliseconds(seconds).items())


def wants_png(accept: str) -> bool:
    """Whether an Accept header prefers image/png to JSON; `*/*` gets JSON."""
    ranges = dict(_quality(part) for part in accept.split(",") if part.strip())
    return _wanted("image/png", ranges) > _wanted("application/json", ranges)


def _wanted(kind: str, ranges: dict[str, float]) -> float:
    """The weight of the most specific media range that matches, 0 if none does."""
    names = (kind, kind.partition("/")[0] + "/*", "*/*")
    return next((ranges[name] for name in names if name in ranges), 0.0)


def _quality(part: str) -> tuple[str, float]:
    name, parameters = parse_options_header(part)
    try:
        return name.decode("latin-1"), float(parameters.get(b"q", b"1"))
    except ValueError:
        return name.decode("latin-1"), 0.0
