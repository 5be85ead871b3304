"""A browser to check exported pages in: Chromium without a window, and a web server for a folder."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fssd.errors import ConfigError
from fssd.runtimes.packages import require

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
FLAGS = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}


class _Quiet(SimpleHTTPRequestHandler):
    """A static server like any other, without log lines."""

    extensions_map: Mapping[str, str] = {  # type: ignore[assignment]
        **SimpleHTTPRequestHandler.extensions_map,
        **TYPES,
    }

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a web server for `folder` on this machine, while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def open_browser() -> Iterator[Any]:
    """Chromium, Chrome or Edge, as a playwright Browser. Raises ConfigError if there is none."""
    playwright = require("playwright.sync_api", "web")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    flags = list(FLAGS)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")  # root cannot have one
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=program, headless=True, args=flags)
        except playwright.Error as error:
            raise ConfigError(
                "the page is checked in Chromium, and none could be started"
                f" ({str(error).strip().splitlines()[0]}); run `playwright install chromium`, or write it"
                " unchecked with --allow-unchecked"
            ) from error
        try:
            yield browser
        finally:
            browser.close()
