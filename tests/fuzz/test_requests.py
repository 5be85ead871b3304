"""Damaged requests: the server answers each with objects or one of its errors, and goes on."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from damage import Fault, damaged, damages, examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

for _package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(_package, reason=f'the server needs {_package}: pip install "fssd[serve]"')

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads memory from Linux's /proc"
)

PATIENCE = 200.0  # seconds on a busy machine
MEMORY = 1_500_000_000
REFUSED = {400, 404, 405, 408, 413, 415, 422, 503, 504}
PATHS = ["/", "/health", "/ready", "/metrics", "/model", "/docs", "/openapi.json", "/assets/page.js"]
DETECT = ["/detect", "/detect/batch"]
QUERIES = [
    "",
    "?score=nan",
    "?score=1e999",
    "?max=0",
    f"?max={'9' * 5000}",
    "?a=%ff%00",
    "?score=0.5&score=x",
]


class Server(NamedTuple):
    """A server process, the port it listens on and the file of what it prints."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path


@pytest.fixture(scope="module")
def server(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It waits half a second for a silent client."""
    log = tmp_path_factory.mktemp("server") / "log"
    words = ["serve", str(model_file), "--port", "0", "--threads", "1", "--stall", "0.5", "--max-mb", "1"]
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "fssd", *words], stdout=subprocess.PIPE, stderr=out
        ) as process,
    ):
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            if line.startswith(b"listening on "):
                port = int(line.rpartition(b":")[2])
                break
        assert port, log.read_text()
        yield Server(process, port, log)
        process.terminate()


def ask(server: Server, request: bytes) -> bytes:
    """Send bytes and nothing more; what comes back until the server closes."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as line:
        try:
            line.sendall(request)
            while data := line.recv(65536):
                received += data
        except (BrokenPipeError, ConnectionResetError):
            pass
    return received


def check(server: Server, answer: bytes) -> None:
    """An answer, if there is one, is a result or an error of the table, and nothing of it is in the log."""
    if answer:
        status = int(answer.split(b" ", 2)[1])
        assert 200 <= status < 300 or status in REFUSED, answer[:2000]
        head, _, body = answer.partition(b"\r\n\r\n")
        if status in REFUSED and body and b"transfer-encoding" not in head.lower():
            answered = json.JSONDecoder().raw_decode(body.decode())[0]["error"]
            assert set(answered) == {"code", "message"} and answered["code"] != "internal"
    assert b"Traceback" not in server.log.read_bytes()
    assert server.process.poll() is None
    state = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    peak = next(line for line in state if line.startswith("VmHWM"))
    assert int(peak.split()[1]) * 1024 < MEMORY


def picture(kind: str) -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)).save(out, kind)
    return out.getvalue()


def form(bodies: list[bytes]) -> bytes:
    head = b'--xyz\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\n'
    return b"".join(head + body + b"\r\n" for body in bodies) + b"--xyz--\r\n"


def request(method: str, path: str, headers: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@examples(40)
@given(kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]), faults=damages(), png=st.booleans())
def test_bodies(server: Server, kind: str, faults: list[Fault], png: bool) -> None:
    accept = "Accept: image/png\r\n" if png else ""
    answer = ask(server, request("POST", "/detect", accept, damaged(picture(kind), faults)))
    assert answer
    check(server, answer)


@examples(25)
@given(path=st.sampled_from(DETECT), faults=damages(), count=st.integers(0, 3))
def test_forms(server: Server, path: str, faults: list[Fault], count: int) -> None:
    body = damaged(form([picture("PNG")] * count), faults)
    answer = ask(server, request("POST", path, "Content-Type: multipart/form-data; boundary=xyz\r\n", body))
    assert answer
    check(server, answer)


@examples(40)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "TRACE", "CONNECT", "PRI"]),
    path=st.sampled_from(PATHS + DETECT),
    query=st.sampled_from(QUERIES),
    faults=damages(2) | st.just([]),
)
def test_heads(server: Server, method: str, path: str, query: str, faults: list[Fault]) -> None:
    body = picture("PNG") if method == "POST" else b""
    whole = request(method, path + query, "Accept: */*;q=x\r\nExpect: 100-continue\r\n", body)
    check(server, ask(server, damaged(whole, faults, min(1.0, 200 / len(whole)))))


def test_it_still_works(server: Server) -> None:
    answer = ask(server, request("POST", "/detect", "", picture("PNG")))
    assert answer.startswith(b"HTTP/1.1 200")
