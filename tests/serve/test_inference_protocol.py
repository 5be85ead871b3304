"""The Open Inference Protocol, against the shapes that its specification publishes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from starlette.testclient import TestClient

from fssd import __version__
from fssd.cli.serve import served_name
from fssd.errors import ConfigError
from fssd.inference.detector import Detector
from fssd.serve.app import make_app
from fssd.serve.limits import ServerLimits
from fssd.serve.service import Service, Settings

SCORE = 0.3
LIMITS = ServerLimits(batch=3, pixels=40_000, seconds=600)
MODEL = "/v2/models/digits"


@pytest.fixture(scope="module")
def detector(detectors: dict[str, Detector]) -> Detector:
    return detectors["tiny"]


@pytest.fixture(scope="module")
def client(detector: Detector) -> Iterator[TestClient]:
    service = Service([detector], Settings(score=SCORE, limits=LIMITS, name="digits"))
    with TestClient(make_app(service)) as opened:
        yield opened


def photo(seed: int, width: int = 90, height: int = 70) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC))


def in_base64(image: np.ndarray) -> str:
    out = io.BytesIO()
    Pillow.fromarray(image).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def files(*images: np.ndarray) -> dict[str, Any]:
    data = [in_base64(image) for image in images]
    return {"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": data}


def infer(client: TestClient, tensor: dict[str, Any], **more: Any) -> dict[str, Any]:
    response = client.post(f"{MODEL}/infer", json={"inputs": [tensor], **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def arrays(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    """The outputs, after checking each as a `$response_output` of the specification."""
    kinds = {"FP32": float, "INT64": int, "BYTES": str}
    made = {}
    for row in answer["outputs"]:
        assert set(row) == {"name", "shape", "datatype", "data"}
        assert all(type(value) is kinds[row["datatype"]] for value in row["data"])
        assert len(row["data"]) == np.prod(row["shape"])
        made[row["name"]] = np.array(row["data"]).reshape(row["shape"])
    return made


def test_health_and_metadata(client: TestClient) -> None:
    for path in ("/v2", "/v2/"):
        assert client.get(path).json() == {"name": "fssd", "version": __version__, "extensions": []}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert client.get(f"{MODEL}/ready").json() == {"name": "digits", "ready": True}
    model = client.get(MODEL).json()
    assert (model["name"], model["platform"]) == ("digits", "pytorch")
    for row in (*model["inputs"], *model["outputs"]):
        assert set(row) == {"name", "datatype", "shape"}
        assert all(size == -1 or size > 0 for size in row["shape"])
    answer = infer(client, files(photo(0)))
    told = {row["name"]: row for row in model["outputs"]}
    assert set(told) == {row["name"] for row in answer["outputs"]}
    for row in answer["outputs"]:
        stated = told[row["name"]]
        assert row["datatype"] == stated["datatype"] and len(row["shape"]) == len(stated["shape"])
        assert all(size in (-1, here) for size, here in zip(stated["shape"], row["shape"], strict=True))


def test_several_files(client: TestClient, detector: Detector) -> None:
    images = [photo(1), photo(2, 40, 60)]
    answer = infer(client, files(*images), id="42", parameters={"score": 0.4, "max": 7})
    assert (answer["model_name"], answer["id"]) == ("digits", "42")
    outputs = arrays(answer)
    expected = detector(images, score=0.4, keep=7)
    assert outputs["count"].tolist() == [len(one) for one in expected]
    most = max(map(len, expected))
    assert most > 0 and outputs["boxes"].shape == (2, most, 4)
    for index, one in enumerate(expected):
        np.testing.assert_allclose(outputs["boxes"][index, : len(one)], one.boxes, rtol=0, atol=0.0051)
        np.testing.assert_allclose(outputs["scores"][index, : len(one)], one.scores, rtol=0, atol=6e-6)
        assert outputs["labels"][index, : len(one)].tolist() == one.labels.tolist()
        assert outputs["names"][index, : len(one)].tolist() == one.names
        assert not outputs["scores"][index, len(one) :].any()
        assert (outputs["labels"][index, len(one) :] == -1).all()


def test_pixels(client: TestClient, detector: Detector) -> None:
    pixels = np.stack([photo(3), photo(4)])
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8"}
    flat = infer(client, {**tensor, "data": pixels.flatten().tolist()})
    nested = infer(client, {**tensor, "data": pixels.tolist()})
    assert flat == nested
    assert "id" not in flat and "model_version" not in flat
    expected = detector(list(pixels), score=SCORE)
    assert arrays(flat)["count"].tolist() == [len(one) for one in expected]
    one = infer(client, {**tensor, "shape": list(pixels[0].shape), "data": pixels[0].tolist()})
    assert arrays(one)["count"].tolist() == [len(expected[0])]


def test_wanted_outputs(client: TestClient) -> None:
    answer = infer(client, files(photo(5)), outputs=[{"name": "count"}, {"name": "scores"}])
    assert [row["name"] for row in answer["outputs"]] == ["count", "scores"]
    nothing = arrays(infer(client, files(photo(5)), parameters={"score": 1}))
    assert nothing["boxes"].shape == (1, 0, 4) and nothing["count"].tolist() == [0]


IMAGE = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
PIXELS = {"name": "pixels", "shape": [1, 1, 2, 3], "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 6]}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "no request"),
        (b"{", 400, "no JSON object"),
        (b"[" * 100_000, 400, "no JSON object"),
        (b"[]", 400, "no JSON object"),
        ({}, 400, "one tensor"),
        ({"inputs": [IMAGE, PIXELS]}, 400, "one tensor"),
        ({"inputs": [{**IMAGE, "name": "imag"}]}, 400, "did you mean 'image'"),
        ({"inputs": [{**IMAGE, "name": ["image"]}]}, 400, "there is no input"),
        ({"inputs": [{**IMAGE, "datatype": "UINT8"}]}, 400, "datatype BYTES"),
        ({"inputs": [{**IMAGE, "shape": [2]}]}, 400, "as many strings"),
        ({"inputs": [{**IMAGE, "shape": [True]}]}, 400, "list of sizes"),
        ({"inputs": [{**IMAGE, "data": ["*"]}]}, 400, "base64"),
        ({"inputs": [{**IMAGE, "data": "AAAA"}]}, 400, "no list"),
        ({"inputs": [IMAGE]}, 415, "not a JPEG"),
        ({"inputs": [{**IMAGE, "shape": [4], "data": ["AAAA"] * 4}]}, 422, "at most 3"),
        ({"inputs": [{**PIXELS, "shape": [2, 3]}]}, 400, "images, height, width, 3"),
        ({"inputs": [{**PIXELS, "data": [1, 2]}]}, 400, "does not have the shape"),
        ({"inputs": [{**PIXELS, "data": [[1, 2], [3]]}]}, 400, "does not have the shape"),
        ({"inputs": [{**PIXELS, "data": [1, 2, 3, 4, 5, 256]}]}, 400, "0 to 255"),
        ({"inputs": [{**PIXELS, "data": [1, 2, 3, 4, 5, 0.5]}]}, 400, "0 to 255"),
        ({"inputs": [{**PIXELS, "shape": [1, 10**6, 10**6, 3]}]}, 422, "too many pixels"),
        ({"inputs": [{**IMAGE, "shape": [2], "data": ["AAAA"] * 2}]}, 415, "Image 1 of 2: "),
        ({"inputs": [IMAGE], "id": 3}, 400, "id is no string"),
        (rb'{"inputs": [], "id": "\ud800"}', 400, "half a surrogate pair"),
        (rb'{"inputs": [{"name": "\ud800", "shape": [1]}]}', 400, "there is no input ?"),
        ({"inputs": [IMAGE], "parameters": 0}, 400, "parameters is no object"),
        ({"inputs": [IMAGE], "parameters": []}, 400, "parameters is no object"),
        ({"inputs": [IMAGE], "outputs": [{"name": "box"}]}, 400, "did you mean 'boxes'"),
        ({"inputs": [IMAGE], "parameters": {"scor": 1}}, 400, "did you mean 'score'"),
        ({"inputs": [IMAGE], "parameters": {"score": 2}}, 400, "in its range"),
        ({"inputs": [IMAGE], "parameters": {"max": 1.5}}, 400, "in its range"),
        ({"inputs": [IMAGE], "parameters": {"max": 201}}, 422, "at most 200"),
    ],
)
def test_errors(client: TestClient, body: Any, status: int, reason: str) -> None:
    given = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = client.post(f"{MODEL}/infer", **given)
    assert response.status_code == status, response.text
    answer = response.json()
    assert set(answer) == {"error"} and reason in answer["error"] and "\n" not in answer["error"]


def test_other_addresses(client: TestClient) -> None:
    for path in ("/v2/models/other", "/v2/models/other/ready", f"{MODEL}/versions/1", "/v2/nothing"):
        response = client.get(path)
        assert response.status_code == 404 and isinstance(response.json()["error"], str)
    response = client.get(f"{MODEL}/infer")
    assert response.status_code == 405 and isinstance(response.json()["error"], str)
    assert set(client.get("/v2x").json()["error"]) == {"code", "message"}, "the server's own form"
    assert client.get("/v2/health/live").headers["x-content-type-options"] == "nosniff"
    metrics = client.get("/metrics").text
    assert f'route="{MODEL}/infer"' in metrics and 'route="/v2/health/live"' in metrics


def test_names() -> None:
    assert served_name(Path("animals"), None) == "animals"
    assert served_name(Path("runs/mine"), None) == "mine"
    assert served_name(Path("runs/mine/best.safetensors"), "mine-2") == "mine-2"
    assert served_name(Path("hf://user/name"), None) == "name"
    assert served_name(Path("my runs/the 2nd {é}"), None) == "the-2nd", "any folder can be served"
    assert served_name(Path("runs/été"), None) == "t" and served_name(Path("runs/ä"), None) == "model"
    for name in ("a/b", "ä b", "a{b}"):
        with pytest.raises(ConfigError, match="give --name"):
            served_name(Path("animals"), name)


def test_answers_are_what_the_document_says(client: TestClient) -> None:
    """Programs make clients of it, which refuse what it does not name."""
    document = client.get("/openapi.json").json()
    for path in ("/v2/health/live", "/v2/health/ready", f"{MODEL}/ready", "/health", "/ready"):
        stated = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        named = document["components"]["schemas"][stated["$ref"].rpartition("/")[2]]["properties"]
        assert client.get(path).json().keys() == named.keys(), path
