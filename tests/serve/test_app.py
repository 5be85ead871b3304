"""Every address, in this process: answers, errors, headers."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image as Pillow
from torch import nn

from fssd import __version__
from fssd.data.geometry import Warp
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.model.build import build_model
from fssd.runtimes.header import Header
from fssd.runtimes.runner import FileRunner
from fssd.serve.app import make_app
from fssd.serve.limits import ServerLimits
from fssd.serve.refusals import KINDS
from fssd.serve.server import bind
from fssd.serve.service import Service, Settings

CLASSES = ("eight", "five", "zero")
SCORE = 0.3
Encoder = Callable[..., bytes]


@pytest.fixture(scope="module")
def detector(tiny_backbone: Callable[[], nn.Module]) -> Detector:
    """A detector on a backbone that costs next to nothing; it finds something in any image."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = build_model("fssd300-lite", len(CLASSES), backbone=tiny_backbone(), variant="narrow")
        for head in network.heads.conf:
            last = head[-1] if isinstance(head, nn.Sequential) else head
            assert isinstance(last, nn.Conv2d) and last.bias is not None
            last.weight.data.normal_(0, 0.3)
            last.bias.data.normal_(0, 1)
            last.bias.data[:: len(CLASSES) + 1] += 2  # mostly background
    facts = {"model": "fssd300-lite", "config": {"data": "/home/somebody/secret"}}
    return Detector(network, CLASSES, facts)


Made = tuple[httpx.Client, Service]
Host = Callable[[Service], httpx.Client]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Serves a service from a thread of this process; gives a client."""
    opened: list[tuple[uvicorn.Server, threading.Thread, httpx.Client]] = []

    def serve(service: Service) -> httpx.Client:
        bound = bind("127.0.0.1", 0)
        config = uvicorn.Config(make_app(service), log_config=None, lifespan="on", server_header=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        client = httpx.Client(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}", timeout=120)
        opened.append((server, thread, client))
        return client

    yield serve
    for server, thread, client in opened:
        client.close()
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def made(detector: Detector, host: Host) -> Made:
    """A client and the service it speaks to."""
    service = Service([detector], Settings(score=SCORE, batch=4))
    return host(service), service


@pytest.fixture(scope="module")
def client(made: Made) -> httpx.Client:
    return made[0]


@pytest.fixture
def small(detector: Detector, host: Host) -> Callable[..., Made]:
    """Makes clients of services with other limits."""

    def make(**limits: Any) -> Made:
        service = Service([detector], Settings(score=SCORE, limits=replace(ServerLimits(), **limits)))
        return host(service), service

    return make


def error(response: Any, status: int) -> str:
    """The code of an error, after checking that the answer has the form all errors have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"code", "message"}
    assert KINDS[body["error"]["code"]].status == status
    message = body["error"]["message"]
    assert message and "\n" not in message and "/" not in message.replace("/detect/batch", "")
    return str(body["error"]["code"])


def expected(detector: Detector, data: bytes, **settings: Any) -> list[dict[str, Any]]:
    """What the detector says of an image when it is asked directly, rounded as its files are."""
    found = detector(Pillow.open(io.BytesIO(data)), **settings)
    return [
        {"name": name, "score": round(float(score), 5), "box": [round(float(value), 2) for value in box]}
        for name, score, box in zip(found.names, found.scores, found.boxes, strict=True)
    ]


# ---- detecting


def test_json(client: httpx.Client, detector: Detector, kinds: dict[str, bytes]) -> None:
    for kind in ("PNG", "WebP", "BMP"):  # lossless: whoever decodes them sees the same
        response = client.post("/detect", content=kinds[kind])
        assert response.status_code == 200
        answer = response.json()
        assert (answer["width"], answer["height"], answer["batch"]) == (160, 120, 1)
        assert len(answer["objects"]) > 3
        assert answer["objects"] == expected(detector, kinds[kind], score=SCORE)


def test_times_by_stage(client: httpx.Client, jpeg: bytes) -> None:
    response = client.post("/detect", content=jpeg)
    times = response.json()["milliseconds"]
    assert list(times) == ["read", "decode", "warp", "wait", "network", "finish", "total"]
    assert all(value >= 0 for value in times.values())
    assert sum(times.values()) - times["total"] <= times["total"] + 0.1  # the stages are parts of the whole
    assert response.headers["server-timing"].startswith("read;dur=")


def test_form(client: httpx.Client, kinds: dict[str, bytes]) -> None:
    plain = client.post("/detect", content=kinds["PNG"]).json()["objects"]
    form = client.post("/detect", files={"image": ("a.png", kinds["PNG"], "image/png")})
    assert form.json()["objects"] == plain


def test_score_and_max(client: httpx.Client, detector: Detector, kinds: dict[str, bytes]) -> None:
    answer = client.post("/detect?score=0.1&max=5", content=kinds["PNG"]).json()
    assert answer["objects"] == expected(detector, kinds["PNG"], score=0.1, keep=5)
    assert len(answer["objects"]) == 5
    assert client.post("/detect?score=1", content=kinds["PNG"]).json()["objects"] == []


@pytest.mark.parametrize(
    "query",
    [
        "score=2",
        "score=-0.1",
        "score=nan",
        "score=x",
        "max=0",
        "max=1.5",
        "max=201",
        "scores=0.5",
        "score=0.5&score=0.9",
    ],
)
def test_parameters_out_of_range(client: httpx.Client, jpeg: bytes, query: str) -> None:
    for route in ("/detect", "/detect/batch"):
        response = client.post(f"{route}?{query}", content=jpeg)
        assert error(response, 422) == "bad_parameter"
        message = response.json()["error"]["message"]
        assert query.partition("=")[0] in message
        assert re.search(r"\w['?)]*[.?]$", message) and "?." not in message


def test_picture(client: httpx.Client, detector: Detector, kinds: dict[str, bytes]) -> None:
    response = client.post("/detect", content=kinds["PNG"], headers={"accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    assert response.headers["vary"] == "Accept"
    drawn = np.asarray(Pillow.open(io.BytesIO(response.content)))
    wanted = detector(Pillow.open(io.BytesIO(kinds["PNG"])), score=SCORE).draw()
    np.testing.assert_array_equal(drawn, wanted)
    assert not np.array_equal(drawn, np.asarray(Pillow.open(io.BytesIO(kinds["PNG"]))))


def test_exif_orientation(client: httpx.Client, detector: Detector, encoder: Encoder) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    data = encoder(kind="PNG", exif=exif)
    answer = client.post("/detect", content=data).json()
    assert (answer["width"], answer["height"]) == (120, 160)
    assert answer["objects"] == expected(detector, data, score=SCORE)
    drawn = client.post("/detect", content=data, headers={"accept": "image/png"})
    assert Pillow.open(io.BytesIO(drawn.content)).size == (120, 160)


def test_batch(client: httpx.Client, detector: Detector, encoder: Encoder) -> None:
    images = [encoder(seed, "PNG") for seed in range(5)]
    files = [("images", (f"{number}.png", data)) for number, data in enumerate(images)]
    files[2:2] = [("images", ("note.jpg", b"just words")), ("images", ("empty.jpg", b""))]
    response = client.post("/detect/batch?max=7", files=files)
    assert response.status_code == 200
    entries = response.json()["images"]
    assert [entry["file"] for entry in entries] == [name for _, (name, _) in files]
    assert [entry["error"]["code"] for entry in entries[2:4]] == ["unsupported_image", "empty_body"]
    good = entries[:2] + entries[4:]
    # The network may round otherwise in another batch size, by one in the last digit that is kept.
    for entry, data in zip(good, images, strict=True):
        wanted = expected(detector, data, score=SCORE, keep=7)
        assert [row["name"] for row in entry["objects"]] == [row["name"] for row in wanted]
        np.testing.assert_allclose(
            [row["score"] for row in entry["objects"]], [row["score"] for row in wanted], rtol=0, atol=2e-5
        )
        np.testing.assert_allclose(
            [row["box"] for row in entry["objects"]], [row["box"] for row in wanted], rtol=0, atol=0.02
        )
    assert set(response.json()["milliseconds"]) == {"read", "total"}


# ---- refusals


def test_what_is_no_image(client: httpx.Client, jpeg: bytes, encoder: Encoder) -> None:
    def send(data: bytes, **headers: str) -> Any:
        return client.post("/detect", content=data, headers=headers)

    assert error(send(b"hello"), 415) == "unsupported_image"
    assert error(send(encoder(kind="GIF")), 415) == "unsupported_image"
    assert error(send(jpeg[:-400]), 422) == "damaged_image"
    assert error(send(b""), 400) == "empty_body"
    assert error(send(jpeg, **{"content-encoding": "gzip"}), 415) == "unsupported_encoding"
    assert error(send(jpeg, **{"content-type": "multipart/form-data; boundary=x"}), 400) == "bad_upload"


def test_one_image_alone(client: httpx.Client, jpeg: bytes) -> None:
    files = [("image", ("a.jpg", jpeg)), ("image", ("b.jpg", jpeg))]
    assert error(client.post("/detect", files=files), 400) == "bad_upload"


def test_limits(small: Callable[..., Made], jpeg: bytes) -> None:
    client, _ = small(body=len(jpeg), pixels=160 * 120, batch=2)
    assert client.post("/detect", content=jpeg).status_code == 200
    assert error(client.post("/detect", content=jpeg + b"\0"), 413) == "body_too_large"
    client, _ = small(pixels=160 * 120 - 1, batch=2)
    assert error(client.post("/detect", content=jpeg), 422) == "too_many_pixels"
    files = [("images", ("a.jpg", jpeg))] * 3
    assert error(client.post("/detect/batch", files=files), 422) == "too_many_images"


def test_full_queue(made: Made, jpeg: bytes) -> None:
    client, service = made
    with service.gate.admit(service.limits.queue - 1):
        assert client.get("/ready").json() == {"status": "ready"}
        assert client.post("/detect", content=jpeg).status_code == 200
        two = client.post("/detect/batch", files=[("images", ("a.jpg", jpeg))] * 2)
        assert error(two, 503) == "busy"
        with service.gate.admit(1):
            for response in (client.post("/detect", content=jpeg), client.get("/ready")):
                assert error(response, 503) == "busy"
                assert int(response.headers["retry-after"]) >= 1
            assert client.get("/health").json() == {"status": "ok"}
    assert client.post("/detect", content=jpeg).status_code == 200


def test_answer_that_is_not_ready_in_time(small: Callable[..., Made], jpeg: bytes) -> None:
    client, service = small(seconds=0.5)

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    service.pipeline.detect = never  # type: ignore[assignment, method-assign]
    assert error(client.post("/detect", content=jpeg), 504) == "timeout"
    assert error(client.post("/detect/batch", files=[("images", ("a.jpg", jpeg))]), 504) == "timeout"
    assert service.gate.images == 0


def test_a_fault_says_nothing_of_the_machine(
    small: Callable[..., Made], jpeg: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client, service = small()

    async def fail(*_: object) -> None:
        raise RuntimeError("/home/somebody/secret")

    service.pipeline.detect = fail  # type: ignore[assignment, method-assign]
    with caplog.at_level(logging.CRITICAL):
        response = client.post("/detect", content=jpeg)
    assert error(response, 500) == "internal"
    assert "secret" not in response.text
    assert service.gate.images == 0 and service.gate.bytes == 0


def test_addresses_and_methods(client: httpx.Client) -> None:
    assert error(client.get("/nothing"), 404) == "not_found"
    assert error(client.get("/assets/../app.py"), 404) == "not_found"
    assert error(client.get("/assets/index.html"), 404) == "not_found"
    assert error(client.get("/assets/%2e%2e%2fapp.py"), 404) == "not_found"
    response = client.get("/detect")
    assert error(response, 405) == "method_not_allowed"
    assert response.headers["allow"] == "POST"


# ---- what is told


def test_model(client: httpx.Client) -> None:
    response = client.get("/model")
    assert "secret" not in response.text
    answer = response.json()
    assert [row["name"] for row in answer["classes"]] == list(CLASSES)
    assert all(re.fullmatch("#[0-9a-f]{6}", row["colour"]) for row in answer["classes"])
    assert len({row["colour"] for row in answer["classes"]}) == len(CLASSES)
    del answer["classes"]
    assert answer == {
        "model": "fssd300-lite",
        "runtime": "torch",
        "precision": "fp32",
        "image_size": 300,
        "score": SCORE,
        "class_scores": {},
        "least_score": 0.0,
        "max": 200,
        "tiles": None,
        "limits": {"body_bytes": 10_000_000, "pixels": 40_000_000, "images": 16, "seconds": 30.0},
        "samples": [],
        "version": __version__,
    }


def test_tiles_give_what_the_detector_gives(detector: Detector, host: Host) -> None:
    picture = np.random.default_rng(2).integers(0, 256, (250, 400, 3), np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(picture).save(stream, "png")
    tiling = {"tiles": 200, "overlap": 0.25, "most_tiles": 6}
    client = host(Service([detector], Settings(score=SCORE, batch=4, tiling=tiling)))
    answer = client.post("/detect", content=stream.getvalue()).json()
    expected = detector(picture, score=SCORE, batch_size=1, **tiling)
    assert [row["name"] for row in answer["objects"]] == expected.names
    np.testing.assert_allclose([row["score"] for row in answer["objects"]], expected.scores, atol=1e-4)
    np.testing.assert_allclose([row["box"] for row in answer["objects"]], expected.boxes, atol=0.1)
    kept = {"side": 200, "overlap": 0.25, "whole_image": True, "most": 6}
    assert client.get("/model").json()["tiles"] == kept
    stream = io.BytesIO()
    Pillow.fromarray(np.zeros((500, 500, 3), np.uint8)).save(stream, "png")
    refused = client.post("/detect", content=stream.getvalue())
    assert error(refused, 422) == "too_many_pixels"
    assert "which makes 9 tiles of 200 px" in refused.text


def test_thresholds_kept_in_the_model(detector: Detector, host: Host, kinds: dict[str, bytes]) -> None:
    """They hold where neither the request nor the server says a score."""
    kept = Detector(detector.network, CLASSES, {"class_scores": {"eight": 0.47, "zero": 0.3}})
    client = host(Service([kept], Settings()))
    model = client.get("/model").json()
    assert (model["score"], model["class_scores"]) == (0.5, {"eight": 0.47, "zero": 0.3})
    limits = {"eight": 0.47, "five": 0.5, "zero": 0.3}
    rows = expected(detector, kinds["PNG"], score=limits)
    assert 0 < len(rows) < 200
    assert client.post("/detect", content=kinds["PNG"]).json()["objects"] == rows
    asked = client.post("/detect?score=0.4", content=kinds["PNG"]).json()["objects"]
    assert asked == expected(detector, kinds["PNG"], score=0.4) != rows
    fixed = host(Service([kept], Settings(score=0.4)))
    assert fixed.get("/model").json()["class_scores"] == {}
    assert fixed.post("/detect", content=kinds["PNG"]).json()["objects"] == asked


def test_file_with_nms_inside_has_a_lowest_score(host: Host) -> None:
    facts = {"precision": "int8"}
    header = Header(CLASSES, Warp((300, 300)), None, Thresholds(score=0.2, keep=50), facts)
    inside = Detector(FileRunner(lambda _: [], header), CLASSES, header.facts)
    client = host(Service([inside], Settings(score=0.4)))
    answer = client.get("/model").json()
    assert (answer["least_score"], answer["max"], answer["precision"]) == (0.2, 50, "int8")
    assert error(client.post("/detect?score=0.1", content=b"x"), 422) == "bad_parameter"
    assert error(client.post("/detect?max=51", content=b"x"), 422) == "bad_parameter"


def test_metrics(detector: Detector, host: Host, jpeg: bytes) -> None:
    client = host(Service([detector], Settings(score=SCORE)))
    found = client.post("/detect", content=jpeg).json()["objects"]
    client.post("/detect", content=b"hello")
    client.post("/detect/batch", files=[("images", ("a.jpg", jpeg)), ("images", ("b.jpg", b"hello"))])
    client.get("/somewhere")
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = response.text.splitlines()
    name = found[0]["name"]
    each = sum(row["name"] == name for row in found)
    for line in (
        'fssd_requests_total{route="/detect",status="200"} 1',
        'fssd_requests_total{route="/detect",status="415"} 1',
        'fssd_requests_total{route="/detect/batch",status="200"} 1',
        'fssd_requests_total{route="other",status="404"} 1',
        'fssd_errors_total{code="unsupported_image"} 2',
        'fssd_errors_total{code="not_found"} 1',
        "fssd_images_total 2",
        f'fssd_objects_total{{name="{name}"}} {2 * each}',
        'fssd_stage_seconds_count{stage="network"} 2',
        "fssd_batch_images_count 2",
        "fssd_queue_images 0",
        "fssd_queue_limit 32",
        "fssd_body_bytes 0",
    ):
        assert f"{line}.0" in lines
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in lines)


def test_openapi(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    own = {path for path in document["paths"] if not path.startswith("/v2")}
    assert own == {"/detect", "/detect/batch", "/model", "/health", "/ready", "/metrics"}
    detect = document["paths"]["/detect"]["post"]
    assert set(detect["requestBody"]["content"]) == {
        *("image/jpeg", "image/png", "image/webp", "image/bmp"),
        "multipart/form-data",
    }
    assert set(detect["responses"]["200"]["content"]) == {"application/json", "image/png"}
    assert set(detect["responses"]) == {"200", "400", "408", "413", "415", "422", "503", "504"}
    schemas = document["components"]["schemas"]
    assert schemas["ErrorDetail"]["properties"]["code"]["enum"] == list(KINDS)
    assert set(schemas["ModelAnswer"]["properties"]) == set(client.get("/model").json())
    sides = schemas["ModelAnswer"]["properties"]["image_size"]["anyOf"]  # one of a square, else two
    assert [one["type"] for one in sides] == ["integer", "array"]
    text = json.dumps(document)
    assert all(f"`{code}`" in text for code in ("damaged_image", "busy", "timeout", "too_many_images"))


def test_every_code_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("|")]
    codes = {int(status): row[2] for row in rows for status in re.findall(r"[45]\d\d", row[1])}
    for code, kind in KINDS.items():
        assert f"`{code}`" in codes[kind.status], code


# ---- pages and headers


def test_pages(client: httpx.Client) -> None:
    for path, kind in (
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/assets/page.js", "text/javascript; charset=utf-8"),
        ("/assets/page.css", "text/css; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
        ("/assets/chelsea.jpg", "image/jpeg"),
    ):
        response = client.get(path)
        assert response.status_code == 200, path
        assert response.headers["content-type"] == kind
        again = client.get(path, headers={"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/assets/page.js", "/health", "/ready", "/metrics", "/model", "/openapi.json", "/nothing"],
)
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert {"date", *head.headers} == {"date", *get.headers}
    if path != "/metrics":  # which counts the first request
        assert head.headers["content-length"] == str(len(get.content)) != "0"


def test_methods_that_an_address_allows(client: httpx.Client) -> None:
    for method, path, allowed in (("HEAD", "/detect", "POST"), ("PUT", "/health", "GET, HEAD")):
        response = client.request(method, path)
        assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["/detect/", "/detect/batch/", "/health/", "/docs/"])
def test_a_slash_too_many_is_not_redirected(client: httpx.Client, path: str) -> None:
    """A proxy knows another scheme, host and path; a client sent elsewhere would send its image there."""
    for method in ("GET", "POST"):
        response = client.request(method, path, headers={"x-forwarded-proto": "https"})
        assert error(response, 404) == "not_found"
        assert "location" not in response.headers


def test_policy_of_pages(client: httpx.Client) -> None:
    for path in ("/", "/docs"):
        response = client.get(path)
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in response.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in str(policy) and "http" not in str(policy)
        page = response.text
        assert not re.search(r"<script(?![^>]*\bsrc=)", page)  # none within the page
        assert not re.search(r"<style|\bstyle=|\bon\w+=", page)
        assert not re.search(r'(src|href)="(https?:|//|data:)', page)


def test_headers_of_every_answer(client: httpx.Client, jpeg: bytes) -> None:
    answers = [client.get(path) for path in ("/", "/assets/page.js", "/model", "/metrics", "/nothing")]
    answers += [client.post("/detect", content=data) for data in (jpeg, b"hello")]
    for response in answers:
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in response.headers
    assert client.get("/model").headers["cache-control"] == "no-store"
