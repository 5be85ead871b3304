"""A real server process: answers as `fssd detect` gives them, timeouts for slow clients, a clean end."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from fssd.cli.main import main
from fssd.errors import ConfigError
from fssd.serve.server import bind, listen

PATIENCE = 300.0  # seconds after which a test that hangs fails
Encoder = Callable[..., bytes]


@pytest.fixture(scope="module")
def strict_server(model: Path, start_server: Callable[..., Any]) -> Any:
    """A server that waits one second for a slow client."""
    return start_server(model, "--stall", 1, "--queue", 4, "--max-mb", 1, "--seconds", 600)


@pytest.fixture
def line(strict_server: Any) -> Iterator[socket.socket]:
    """A raw connection to it."""
    with socket.create_connection(("127.0.0.1", strict_server.port), PATIENCE) as opened:
        yield opened


def everything(line: socket.socket) -> bytes:
    """The bytes until the other side closes."""
    received = b""
    try:
        while data := line.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def code_of(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"])


def test_answers_are_those_of_fssd_detect(server: Any, model: Path, encoder: Encoder, tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    files = {
        "a.jpg": encoder(1, "JPEG", quality=90),
        "b.png": encoder(2, "PNG", width=500, height=333),
        "c.webp": encoder(3, "WEBP"),
        "d.bmp": encoder(4, "BMP", width=80, height=200),
        "e.jpg": encoder(5, "JPEG", exif=exif),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    assert main(["detect", str(model), *paths, "--out", str(tmp_path / "out"), "--no-pictures"]) == 0
    rows = json.loads((tmp_path / "out" / "detections.json").read_text(encoding="utf-8"))
    assert [Path(row["image"]).name for row in rows] == list(files)
    for row, data in zip(rows, files.values(), strict=True):
        answer = httpx.post(f"{server.address}/detect", content=data, timeout=PATIENCE).json()
        assert (answer["width"], answer["height"]) == (row["width"], row["height"])
        assert len(row["objects"]) > 5
        assert [found["name"] for found in answer["objects"]] == [found["name"] for found in row["objects"]]
        for key, tolerance in (("score", 2e-5), ("box", 0.02)):
            served, written = ([found[key] for found in result["objects"]] for result in (answer, row))
            np.testing.assert_allclose(served, written, rtol=0, atol=tolerance)


def test_body_too_large_is_answered_whatever_the_client_does(strict_server: Any) -> None:
    body = bytes(5_000_000)
    # urllib closes the connection after each request and sends all before it reads
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{strict_server.address}/detect", data=body, timeout=PATIENCE)
    assert (caught.value.code, json.load(caught.value)["error"]["code"]) == (413, "body_too_large")
    with httpx.Client(base_url=strict_server.address, timeout=PATIENCE) as client:
        pieces = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
        for content in (body, pieces):  # with its length declared, and in chunks
            response = client.post("/detect", content=content)
            assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


def test_body_that_waits_for_100_continue_is_not_requested(line: socket.socket) -> None:
    head = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n"
    line.sendall(head)
    answer = everything(line)
    assert (status_of(answer), code_of(answer)) == (413, "body_too_large")


def test_silent_client_is_cut_off(line: socket.socket) -> None:
    assert everything(line) == b""


def test_slow_head_is_cut_off(line: socket.socket) -> None:
    line.sendall(b"POST /detect HTTP/1.1\r\nHost:")
    assert everything(line) == b""


def test_slow_body_is_cut_off(line: socket.socket) -> None:
    line.sendall(b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\nabc")
    answer = everything(line)
    assert (status_of(answer), code_of(answer)) == (408, "slow_upload")


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="asks Linux for the state of a connection")
def test_client_that_does_not_read_its_answer_is_cut_off(strict_server: Any) -> None:
    """It requests a picture that is larger than the socket buffers, and reads none of it."""
    noise = Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), np.uint8))
    out = io.BytesIO()
    noise.save(out, "JPEG", quality=5)  # 0.4 MB as JPEG, 15 MB as PNG
    data = out.getvalue()
    head = f"POST /detect HTTP/1.1\r\nHost: a\r\nAccept: image/png\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(PATIENCE)
        line.connect(("127.0.0.1", strict_server.port))
        line.sendall(head.encode() + data)
        assert line.recv(1, socket.MSG_PEEK)  # the answer has started
        wait_until(lambda: not connected(line))


def connected(line: socket.socket) -> bool:
    """Whether the other side still holds a connection, from Linux (state 1 is ESTABLISHED)."""
    local, remote = line.getsockname()[1], line.getpeername()[1]
    pattern = re.compile(rf"\S+:{remote:04X} \S+:{local:04X} (\w\w) ")
    states = [
        found.group(1)
        for found in map(pattern.search, Path("/proc/net/tcp").read_text().splitlines())
        if found
    ]
    return states == ["01"]


def metric(server: Any, name: str) -> float:
    """A number from /metrics, 0 if it is not there yet."""
    text = httpx.get(f"{server.address}/metrics", timeout=PATIENCE).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, flags=re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_not_http(line: socket.socket) -> None:
    line.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    answer = everything(line)
    assert (status_of(answer), code_of(answer)) == (400, "bad_request")
    assert b"uvicorn" not in answer


@pytest.mark.parametrize("target", ["http://a/health", "HTTP://a:80/health", "http://a/health?x=1"])
def test_absolute_form(line: socket.socket, target: str) -> None:
    """RFC 9112, 3.2.2: a server accepts it, although only proxies are sent it."""
    line.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert status_of(everything(line)) == 200


def test_absolute_form_without_a_path(line: socket.socket) -> None:
    line.sendall(b"GET http://a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = everything(line)
    assert status_of(answer) == 200 and b"<!doctype html>" in answer.lower()


def test_head_on_the_wire(line: socket.socket) -> None:
    """The next answer on the connection begins where the one to HEAD ends."""
    line.sendall(b"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n")
    line.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    first, second, nothing = everything(line).split(b"\r\n\r\n", 2)[0:3]
    assert first.startswith(b"HTTP/1.1 200") and second.startswith(b"HTTP/1.1 200")
    assert json.loads(nothing) == {"status": "ok"}


def test_offers_of_other_protocols_are_passed_over_in_silence(strict_server: Any, encoder: Encoder) -> None:
    before = len(strict_server.lines)
    headers = {"connection": "Upgrade, HTTP2-Settings", "http2-settings": "AAMAAABkAAQCAAAAAAIAAAAA"}
    for upgrade in ("h2c", "websocket"):
        for method, path, body in (("GET", "/health", b""), ("POST", "/detect", encoder())):
            response = httpx.request(
                method,
                f"{strict_server.address}{path}",
                content=body,
                headers={**headers, "upgrade": upgrade},
                timeout=PATIENCE,
            )
            assert response.status_code == 200
    assert strict_server.lines[before:] == []


def test_full_queue(strict_server: Any, encoder: Encoder) -> None:
    """Eight at once, room for four: each gets its objects or a 503."""
    data = encoder(0, "PNG", width=1500, height=1000)
    answers: list[httpx.Response] = []

    def send() -> None:
        answers.append(httpx.post(f"{strict_server.address}/detect", content=data, timeout=PATIENCE))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted({answer.status_code for answer in answers}) in ([200], [200, 503])
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["error"]["code"] == "busy"
            assert answer.headers["retry-after"] == "1"


def test_stopping_finishes_accepted_requests(model: Path, start_server: Any, encoder: Encoder) -> None:
    server = start_server(model, "--seconds", 600, "--batch-size", 2)
    data = encoder(0, "PNG", width=1200, height=900)
    answers: list[int] = []

    def send() -> None:
        response = httpx.post(f"{server.address}/detect", content=data, timeout=PATIENCE)
        answers.append(len(response.json()["objects"]))

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    wait_until(lambda: metric(server, "fssd_queue_images") + metric(server, "fssd_images_total") >= 10)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert len(answers) == 10
    assert min(answers) > 5
    assert "Traceback" not in "".join(server.lines)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.address}/health")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "port"),
        (["--workers", "0"], "workers"),
        (["--score", "2"], "score"),
        (["--delay-ms", "-1"], "delay_ms"),
        (["--max-mb", "0"], "max_mb"),
        (["--runtime", "onnx", "--port", "0"], "is for openvino"),
    ],
)
def test_bad_settings(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nothing.xml", *options]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: ") and text.count("\n") == 1 and words in text


def test_port_in_use(server: Any, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(model), "--port", str(server.port)]) == 2
    assert "choose another --port" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["192.168..1", "a" * 64 + ".local"])
def test_a_host_that_is_no_name(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nothing.xml", "--host", host, "--port", "0"]) == 2
    assert "choose another --port or --host" in capsys.readouterr().err


def test_of_two_servers_that_start_together_one_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The other one is loading its model and does not listen yet. This one does not even look at its own."""
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), PATIENCE)
        assert main(["serve", "nothing.safetensors", "--port", str(port)]) == 2
        text = capsys.readouterr().err
        assert f"cannot listen on 127.0.0.1 port {port} (Address already in use)" in text


def test_a_new_server_need_not_wait_for_old_connections(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And whoever comes after it is refused, listening or not."""
    port = 0
    for _ in range(3):
        with bind("127.0.0.1", port) as bound:
            port = bound.getsockname()[1]
            for prepare in (lambda: None, lambda: listen(bound)):
                prepare()
                with pytest.raises(ConfigError, match=f"port {port} .*choose another --port"):
                    bind("127.0.0.1", port)
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                bound.setblocking(True)
                bound.accept()[0].close()  # first, so that its side waits in TIME_WAIT
                assert client.recv(1) == b""


def test_a_port_taken_while_the_model_was_loaded() -> None:
    """By a program that binds with SO_REUSEADDR, in the moment in which it can."""
    with socket.socket() as first, socket.socket() as other:
        for one in (first, other):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))
        try:
            other.bind(first.getsockname())
        except OSError:
            pytest.skip("this system gives a port to one socket only")
        other.listen()
        with pytest.raises(ConfigError, match=f"port {first.getsockname()[1]} .*choose another --port"):
            listen(first)


def test_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "nothing.safetensors", "--port", "0"]) == 2
    assert "nothing.safetensors" in capsys.readouterr().err
