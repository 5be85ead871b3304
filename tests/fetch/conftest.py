"""A small web server for the tests of downloads, which can fail like real servers."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Files(ThreadingHTTPServer):
    """Serves `files` by name, with an ETag for each of its contents.

    ranges: whether Range is understood. etags: whether ETag is sent. break_after: bytes after which the
    connection is cut, once for each number. refuse: status codes to answer first. gets: path and Range header
    of each GET received.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.etags = True
        self.break_after: list[int] = []
        self.refuse: list[int] = []
        self.gets: list[tuple[str, str | None]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class _Handler(BaseHTTPRequestHandler):
    server: Files

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.gets.append((self.path, asked))
        if self.server.refuse:
            self.send_error(self.server.refuse.pop(0))
            return
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        etag = f'"{hash(content)}"'
        start = self._start(asked, etag)
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        if self.server.etags:
            self.send_header("ETag", etag)
        self.end_headers()
        end = start + self.server.break_after.pop(0) if self.server.break_after else None
        self.wfile.write(content[start:end])

    def _start(self, asked: str | None, etag: str) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        if match is None or not self.server.ranges or self.headers.get("If-Range", etag) != etag:
            return 0
        return int(match[1])

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Files]:
    server = Files()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
