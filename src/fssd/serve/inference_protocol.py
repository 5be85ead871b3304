"""The routes of the Open Inference Protocol (KServe v2), for platforms that speak it.

A server has one model of one version, so the addresses hold both as they are, and metrics count each of them.
"""

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from fssd import __version__
from fssd.data.sample import Image
from fssd.serve import schema
from fssd.serve.binary_tensors import EXTENSION, HEADER, with_binary
from fssd.serve.limits import Clock, all_of, in_time, read_body
from fssd.serve.pipeline import DetectOptions, ImageResult
from fssd.serve.refusals import RequestError
from fssd.serve.service import Service
from fssd.serve.tensors import INPUTS, OUTPUTS, PARAMETERS, metadata, output_tensors, read_inference

PREFIX, VERSION = "/v2", "1"
PLATFORMS = {"torch": "pytorch", "onnx": "onnx_onnxv1", "openvino": "openvino_ir"}
BODY = ("empty_body", "slow_upload", "body_too_large", "unsupported_encoding", "bad_tensor")
IMAGES = ("too_many_images", "unsupported_image", "damaged_image", "too_many_pixels")
REFUSED = (*BODY, *IMAGES, "bad_parameter", "busy", "stopping", "timeout")


def make_router(service: Service) -> APIRouter:
    """The routes for the model of a service."""
    router = APIRouter(prefix=PREFIX, tags=["Open Inference Protocol (KServe v2)"])
    _add_server(router, service)
    _add_model(router, service)
    return router


def _add_server(router: APIRouter, service: Service) -> None:
    @router.get("", summary="The server", response_model=schema.ServerMetadata)
    @router.get("/", include_in_schema=False)
    async def server() -> Response:
        """Name, version and extensions."""
        return JSONResponse({"name": "fssd", "version": __version__, "extensions": [EXTENSION]})

    @router.get("/health/live", summary="Whether the process is alive", response_model=schema.Live)
    async def live() -> Response:
        """As `/health`."""
        return JSONResponse({"live": True})

    @router.get("/health/ready", summary="Whether an image would be accepted", response_model=schema.Ready)
    async def ready() -> Response:
        """As `/ready`: 503 while the queue is full or the server shuts down."""
        service.gate.check()
        return JSONResponse({"live": True, "ready": True})


def _add_model(router: APIRouter, service: Service) -> None:
    own = f"/models/{service.name}"
    versioned = f"{own}/versions/{VERSION}"

    @router.get(own, summary="The tensors of the model", response_model=schema.ModelMetadata)
    @router.get(versioned, include_in_schema=False)
    async def model() -> Response:
        """Give one of the inputs: files, in JSON in base64, or pixels of images of one size."""
        platform = PLATFORMS.get(service.settings.runtime, service.settings.runtime)
        tensors = {"inputs": metadata(INPUTS), "outputs": metadata(OUTPUTS)}
        return JSONResponse({"name": service.name, "versions": [VERSION], "platform": platform, **tensors})

    @router.get(f"{own}/ready", summary="Whether the model is ready", response_model=schema.ModelReady)
    @router.get(f"{versioned}/ready", include_in_schema=False)
    async def model_ready() -> Response:
        """As `/ready`."""
        service.gate.check()
        return JSONResponse({"name": service.name, "ready": True})

    @router.post(
        f"{own}/infer",
        summary="Detect objects in images",
        response_model=schema.InferenceAnswer,
        responses=schema.protocol_refusals(*REFUSED),
        openapi_extra=schema.inference_body(INPUTS, OUTPUTS),
    )
    @router.post(f"{versioned}/infer", include_in_schema=False)
    async def infer(request: Request) -> Response:
        """Parameters: score and max, as of `/detect`. With tensors as bytes, the body is not JSON alone."""
        return await _infer(service, request)


async def _infer(service: Service, request: Request) -> Response:
    clock = Clock(service.limits.seconds)
    service.gate.check()
    for name in request.query_params:
        if name.casefold() in PARAMETERS:
            raise RequestError("bad_parameter", f"{name}: put it into the JSON, under parameters.")
    with service.gate.memory() as take:
        body = await read_body(request, service.limits, clock, take)
        asked = await service.pipeline.run(read_inference, body, request.headers.get(HEADER), service.limits)
        options = service.options(asked.score, asked.most)
        with service.gate.admit(len(asked.images)):
            numbers = range(len(asked.images))
            work = all_of(_detect(service, asked.images, number, options) for number in numbers)
            results = await in_time(request, clock, work)
    for result in results:
        service.count(result)
    outputs = output_tensors([result.found for result in results], asked.outputs)
    repeated = {} if asked.id is None else {"id": asked.id}
    about = {"model_name": service.name, "model_version": VERSION, **repeated}
    return (
        _binary_answer(about, outputs, asked.binary)
        if asked.binary
        else JSONResponse({**about, "outputs": outputs})
    )


def _binary_answer(about: dict[str, str], outputs: list[dict[str, Any]], names: frozenset[str]) -> Response:
    rows, rest = with_binary(outputs, names)
    text = json.dumps({**about, "outputs": rows}).encode()
    return Response(text + rest, media_type="application/octet-stream", headers={HEADER: str(len(text))})


async def _detect(
    service: Service, images: Sequence[bytes | Image], number: int, options: DetectOptions
) -> ImageResult:
    """Raises RequestError, which says which of several images is at fault."""
    try:
        return await service.pipeline.detect(images[number], options)
    except RequestError as refusal:
        if len(images) == 1:
            raise
        what = f"Image {number + 1} of {len(images)}: {refusal.message}"
        raise RequestError(refusal.code, what) from refusal
