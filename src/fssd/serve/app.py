"""The ASGI application of a service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fssd import __version__
from fssd.serve import inference_protocol, pages, routes
from fssd.serve.guard import Guard
from fssd.serve.memory import trim_when_idle
from fssd.serve.refusals import add_handlers
from fssd.serve.service import Service


def make_app(service: Service) -> Guard:
    """The application. It computes only during its lifespan, which ASGI servers start and end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.pipeline.start()
        trimming = asyncio.create_task(trim_when_idle(service.gate))
        yield
        trimming.cancel()
        await service.pipeline.stop()

    summary = "An object detector of the SSD family."
    app = FastAPI(
        title="fssd",
        summary=summary,
        version=__version__,
        docs_url=None,  # these pages would load scripts from another host
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy a redirect would lead out of HTTPS and of the proxy's path
        lifespan=lifespan,
    )
    app.state.service = service
    protocol = inference_protocol.make_router(service)
    app.include_router(routes.router)
    app.include_router(pages.router)
    app.include_router(protocol)
    add_handlers(app, service.metrics.refuse, plain_below=inference_protocol.PREFIX)
    paths = {
        str(getattr(route, "path", "")) for route in (*app.routes, *routes.router.routes, *protocol.routes)
    }
    return Guard(app, service.metrics, frozenset(paths))
