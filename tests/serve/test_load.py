"""32 clients send 1,000 requests, good, broken, oversized, malicious: no crash, no leak, no wrong answer."""

from __future__ import annotations

import http.client
import json
import random
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from fssd.cli.main import main

CLIENTS = 32
REQUESTS = 1000
GROWTH = 50_000_000  # bytes of memory
PATIENCE = 600.0  # seconds after which a request that hangs fails
BUSY = {503, 504}
SURE = 0.5 + 1e-4  # above the threshold despite rounding
Encoder = Callable[..., bytes]

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="reads memory from Linux's /proc"
)


class Request(NamedTuple):
    """status: the answer of a server that is not busy; None if the client disconnects first."""

    name: str
    body: bytes
    status: int | None
    kind: str = "application/octet-stream"
    chunked: bool = False


class Answer(NamedTuple):
    request: Request
    status: int | None
    body: Any


@pytest.fixture(scope="module")
def good(encoder: Encoder) -> list[Request]:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    images = [encoder(seed, kind) for seed, kind in enumerate(["JPEG", "PNG", "WEBP", "BMP"] * 2)]
    images += [encoder(8, "JPEG", exif=exif), encoder(9, "JPEG", width=1600, height=1200)]
    return [Request(f"good{number}", image, 200) for number, image in enumerate(images)]


@pytest.fixture(scope="module")
def bad(encoder: Encoder) -> list[Request]:
    jpeg, png = encoder(1, "JPEG"), encoder(1, "PNG")
    cut_form = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    noise = random.Random(0).randbytes(20_000)
    return [
        Request("text", b"just words", 415),
        Request("noise", noise, 415),
        Request("nothing", b"", 400),
        Request("cut JPEG", jpeg[: len(jpeg) // 2], 422),
        Request("cut PNG", png[: len(png) // 2], 422),
        Request("spoilt PNG", png[:100] + noise[:400] + png[500:], 422),
        Request("GIF", encoder(1, "GIF"), 415),
        Request("form of nothing", noise, 400, "multipart/form-data; boundary=x"),
        Request("form cut short", cut_form, 400, "multipart/form-data; boundary=x"),
        Request("hangs up", jpeg, None),
    ]


@pytest.fixture(scope="module")
def oversized() -> list[Request]:
    body = bytes(11_000_000)
    return [Request("large", body, 413), Request("large in chunks", body, 413, chunked=True)]


@pytest.fixture(scope="module")
def bombs(encoder: Encoder) -> list[Request]:
    webp = b"RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0/" + struct.pack("<I", 16382 | 16382 << 14) + bytes(9)
    flat = encoder(0, "JPEG", width=4000, height=4000, progressive=True, quality=1)
    last = flat.rindex(b"\xff\xda")
    scans = flat[:last] + flat[last:-2] * 60 + b"\xff\xd9"
    return [
        Request("900 megapixels of nothing", png_of_zeros(30_000, 30_000), 422),
        Request("268 megapixels in 34 bytes", webp, 422),
        Request("70 passes over 16 megapixels", scans, 422),
        Request("text of 60 MB in a PNG", png_with_text(60_000_000), 422),
    ]


@pytest.fixture(scope="module")
def large(encoder: Encoder) -> list[Request]:
    """Images that are large, but within the limits."""
    return [Request("6 megapixels", encoder(3, "JPEG", width=3000, height=2000), 200)]


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of_zeros(width: int, height: int, *extra: bytes) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(min(height * (width + 1), 10_000_000)), 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + pixels + png_chunk(b"IEND", b"")


def png_with_text(size: int) -> bytes:
    text = b"comment\0\0" + zlib.compress(bytes(size), 9)
    return png_of_zeros(64, 64, png_chunk(b"zTXt", text))


def send(port: int, request: Request) -> Answer:
    if request.status is None:
        hang_up(port, request)
        return Answer(request, None, None)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        pieces = (request.body[start : start + 65536] for start in range(0, len(request.body), 65536))
        connection.request(
            "POST",
            "/detect",
            pieces if request.chunked else request.body,
            {"Content-Type": request.kind},
            encode_chunked=request.chunked,
        )
        response = connection.getresponse()
        return Answer(request, response.status, json.loads(response.read()))
    finally:
        connection.close()


def hang_up(port: int, request: Request) -> None:
    """Send half of the announced body, or all of it without waiting for the answer."""
    head = f"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: {len(request.body)}\r\n\r\n".encode()
    for share in (len(request.body) // 2, len(request.body)):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as line:
            line.sendall(head + request.body[:share])


def send_all(port: int, requests: list[Request]) -> list[Answer]:
    """All requests by 32 clients at once."""
    left = iter(requests)
    taking = threading.Lock()
    answers: list[Answer] = []
    faults: list[BaseException] = []

    def client() -> None:
        try:
            while True:
                with taking:
                    request = next(left)
                answers.append(send(port, request))
        except StopIteration:
            return
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults[:3]
    return answers


def references(good: list[Request], model: Path, folder: Path) -> dict[str, Any]:
    """The output of `fssd detect` for the good images, including objects just below the threshold."""
    for request in good:
        (folder / f"{request.name}.jpg").write_bytes(request.body)
    paths = [str(folder / f"{request.name}.jpg") for request in good]
    options = ["--out", str(folder / "out"), "--no-pictures", "--score", "0.499", "--batch-size", "1"]
    assert main(["detect", str(model), *paths, *options]) == 0
    rows = json.loads((folder / "out" / "detections.json").read_text(encoding="utf-8"))
    return {Path(row["image"]).stem: row for row in rows}


def missing(wanted: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects clearly above the threshold that the other list lacks."""

    def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
        near = np.abs(np.subtract(one["box"], other["box"])).max() <= 0.02
        return bool(one["name"] == other["name"] and abs(one["score"] - other["score"]) <= 2e-5 and near)

    return [one for one in wanted if one["score"] > SURE and not any(same(one, other) for other in found)]


def settled(running: Any, bound: int) -> int:
    """Its memory once it is below a bound: an idle server returns free memory. Waits up to a minute."""
    for _ in range(300):
        if running.memory < bound:
            break
        time.sleep(0.2)
    return int(running.memory)


@pytest.fixture
def loaded(model: Path, start_server: Any) -> Iterator[Any]:
    running = start_server(model, "--seconds", 600)
    yield running
    assert running.stop() == 0


@pytest.mark.long
def test_load(
    loaded: Any,
    good: list[Request],
    bad: list[Request],
    oversized: list[Request],
    bombs: list[Request],
    large: list[Request],
    model: Path,
    tmp_path: Path,
) -> None:
    shuffled = random.Random(1)
    mix = [
        *(shuffled.choice(good) for _ in range(350)),
        *(shuffled.choice(bad) for _ in range(400)),
        *(shuffled.choice(oversized) for _ in range(60)),
        *(shuffled.choice(bombs) for _ in range(170)),
        *(shuffled.choice(large) for _ in range(20)),
    ]
    assert len(mix) == REQUESTS
    shuffled.shuffle(mix)
    send_all(loaded.port, good * 5)  # now it holds the memory that any work makes it keep
    before = settled(loaded, loaded.memory - 10_000_000)
    answers = send_all(loaded.port, mix)

    assert loaded.process.poll() is None
    assert len(answers) == REQUESTS
    wrong = [
        (answer.request.name, answer.status, answer.body)
        for answer in answers
        if answer.status != answer.request.status and answer.status not in BUSY
    ]
    assert wrong == []
    counts = Counter(answer.status for answer in answers)
    assert counts[200] > 200, counts  # most of them, so that the rest of this test means something

    rows = references(good, model, tmp_path)
    for answer in answers:
        if answer.status == 200 and answer.request.name in rows:
            row = rows[answer.request.name]
            assert (answer.body["width"], answer.body["height"]) == (row["width"], row["height"])
            assert len(answer.body["objects"]) > 5
            assert missing(row["objects"], answer.body["objects"]) == []
            assert missing(answer.body["objects"], row["objects"]) == []

    batches = httpx.get(f"{loaded.address}/metrics", timeout=PATIENCE).text
    assert "\nfssd_queue_images 0.0\n" in batches and "\nfssd_body_bytes 0.0\n" in batches
    grown = settled(loaded, before + GROWTH) - before
    assert grown < GROWTH, f"memory grew by {grown / 1e6:.0f} MB"
    assert "Traceback" not in "".join(loaded.lines)
