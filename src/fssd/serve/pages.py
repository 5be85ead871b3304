"""The page to try a model and the page of the API: files served from memory under a strict policy."""

import hashlib
from importlib import resources

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fssd.serve.refusals import RequestError
from fssd.zoo.models import PHOTOS

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # blob: the image that was dropped
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


FILES = {
    file.name: file.read_bytes()
    for file in (*(resources.files("fssd.serve") / "page").iterdir(), *PHOTOS)
    if file.name.rpartition(".")[2] in TYPES
}
TAGS = {name: f'"{hashlib.sha256(content).hexdigest()[:20]}"' for name, content in FILES.items()}


@router.get("/")
async def index(request: Request) -> Response:
    """The page to try the model."""
    return _answer("index.html", request)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The API, as /openapi.json describes it."""
    return _answer("docs.html", request)


@router.get("/assets/{name}")
async def asset(name: str, request: Request) -> Response:
    """A script, a style or an icon of the pages."""
    if name not in FILES or name.endswith(".html"):
        raise RequestError("not_found", "There is nothing at this address.")
    return _answer(name, request)


def _answer(name: str, request: Request) -> Response:
    headers = {**HEADERS, "ETag": TAGS[name]}
    if request.headers.get("if-none-match") == TAGS[name]:
        return Response(status_code=304, headers=headers)
    return Response(FILES[name], media_type=TYPES[name.rpartition(".")[2]], headers=headers)
