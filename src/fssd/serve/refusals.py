"""The errors that the server answers: a stable code, a status, one sentence."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException


class Kind(NamedTuple):
    """status: the HTTP status. meaning: for the documentation."""

    status: int
    meaning: str


KINDS: dict[str, Kind] = {
    "bad_request": Kind(400, "The request is not valid HTTP."),
    "empty_body": Kind(400, "There is no image in the request."),
    "bad_upload": Kind(400, "The multipart form is damaged or does not hold the expected files."),
    "bad_tensor": Kind(400, "The JSON of an inference request does not hold what its model takes."),
    "not_found": Kind(404, "There is nothing at this address."),
    "method_not_allowed": Kind(405, "This address needs another method."),
    "slow_upload": Kind(408, "The body took too long to arrive."),
    "body_too_large": Kind(413, "The body is larger than the server accepts."),
    "unsupported_image": Kind(415, "The image is not JPEG, PNG, WebP or BMP."),
    "unsupported_encoding": Kind(415, "The body is compressed by Content-Encoding."),
    "damaged_image": Kind(422, "The image is damaged or cut short."),
    "too_many_pixels": Kind(422, "The image has more pixels, or more scans, than the server decodes."),
    "too_many_images": Kind(422, "There are more images in the request than the server accepts."),
    "bad_parameter": Kind(422, "A parameter is out of range or not a number."),
    "internal": Kind(500, "The server failed; its log says why."),
    "busy": Kind(503, "Too many images are waiting; try again after Retry-After seconds."),
    "stopping": Kind(503, "The server is shutting down."),
    "timeout": Kind(504, "The answer was not ready in time."),
}
RETRY_SECONDS = 1
GONE = 499  # nginx's status for a client that disconnected; only the metrics see it
OF_STATUS = {404: "not_found", 405: "method_not_allowed"}


class RequestError(Exception):
    """A request that is answered by an error. code: a key of `KINDS`. message: a sentence for the client.

    What the client sent and cannot be written as UTF-8 stands in the message as question marks.
    """

    def __init__(self, code: str, message: str) -> None:
        message = message.encode("utf-8", "replace").decode()
        super().__init__(message)
        self.code = code
        self.message = message

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message}}


def bad_tensor(reason: str) -> RequestError:
    """The error of an inference request that does not hold what it should."""
    return RequestError("bad_tensor", sentence(f"The request cannot be used: {reason}"))


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends as a question (`did you mean 'score'?`)."""
    return text if text.endswith("?") else f"{text}."


class DisconnectError(Exception):
    """The client disconnected; no answer is needed."""


def add_handlers(app: FastAPI, count: Callable[[str], None], plain_below: str) -> None:
    """Answer every error of an application as JSON of one form that reveals nothing about the machine.

    count: called with the code of each error. plain_below: a path below which the message alone is the error,
    as the Open Inference Protocol wants it.
    """

    def answer(
        request: Request, refusal: RequestError, headers: Mapping[str, str] | None = None
    ) -> JSONResponse:
        count(refusal.code)
        status = KINDS[refusal.code].status
        extra = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
        path = f"{request.scope['path']}/"
        body = {"error": refusal.message} if path.startswith(f"{plain_below}/") else refusal.body()
        return JSONResponse(body, status, {**(headers or {}), **extra})

    @app.exception_handler(RequestError)
    async def on_refusal(request: Request, error: RequestError) -> Response:
        return answer(request, error)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        code = OF_STATUS.get(error.status_code, "bad_request")
        return answer(request, RequestError(code, KINDS[code].meaning), error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_parameters(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return answer(request, RequestError("bad_parameter", f"{name}: {first['msg']}."))

    @app.exception_handler(DisconnectError)
    async def on_gone(_: Request, __: Exception) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(Exception)
    async def on_fault(request: Request, _: Exception) -> Response:
        return answer(
            request, RequestError("internal", "The server failed on this request; its log says why.")
        )
