"""The Open Inference Protocol, against the shapes that its specification publishes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx import Response
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
LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(scope="module")
def detector(detectors: dict[str, Detector]) -> Detector:
    return detectors["tiny"]


@pytest.fixture(scope="module")
def client(detector: Detector) -> Iterator[TestClient]:
    """Every image is computed alone: in a batch, which depends on the moment, the last digits are others."""
    service = Service([detector], Settings(score=SCORE, limits=LIMITS, name="digits", batch=1))
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
        told = client.get(path).json()
        assert told == {"name": "fssd", "version": __version__, "extensions": ["binary_tensor_data"]}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}
    assert client.get(f"{MODEL}/ready").json() == {"name": "digits", "ready": True}
    model = client.get(MODEL).json()
    assert (model["name"], model["versions"], model["platform"]) == ("digits", ["1"], "pytorch")
    assert client.get(f"{MODEL}/versions/1").json() == model
    assert client.get(f"{MODEL}/versions/1/ready").json() == {"name": "digits", "ready": True}
    for row in (*model["inputs"], *model["outputs"]):
        assert set(row) == {"name", "datatype", "shape"}
        assert all(size == -1 or size > 0 for size in row["shape"])
    answer = infer(client, files(photo(0)))
    stated_outputs = {row["name"]: row for row in model["outputs"]}
    assert set(stated_outputs) == {row["name"] for row in answer["outputs"]}
    for row in answer["outputs"]:
        stated = stated_outputs[row["name"]]
        assert row["datatype"] == stated["datatype"] and len(row["shape"]) == len(stated["shape"])
        assert all(size in (-1, here) for size, here in zip(stated["shape"], row["shape"], strict=True))


def test_several_files(client: TestClient, detector: Detector) -> None:
    images = [photo(1), photo(2, 40, 60)]
    answer = infer(client, files(*images), id="42", parameters={"score": 0.4, "max": 7})
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "1", "42")
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
    assert "id" not in flat
    expected = detector(list(pixels), score=SCORE)
    assert arrays(flat)["count"].tolist() == [len(one) for one in expected]
    one = infer(client, {**tensor, "shape": list(pixels[0].shape), "data": pixels[0].tolist()})
    assert arrays(one)["count"].tolist() == [len(expected[0])]


def with_bytes(document: dict[str, Any], rest: bytes) -> dict[str, Any]:
    """What `TestClient.post` takes for a body of JSON and bytes."""
    text = json.dumps(document).encode()
    return {"content": text + rest, "headers": {LENGTH: str(len(text))}}


def decoded(response: Response) -> dict[str, Any]:
    """The outputs of an answer as bytes, by the rules of the extension."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[LENGTH])
    rest = response.content[length:]
    found: dict[str, Any] = {}
    for row in json.loads(response.content[:length])["outputs"]:
        size = row.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[row["name"]] = row["data"]
            continue
        assert "data" not in row
        data, rest = rest[:size], rest[size:]
        if row["datatype"] == "BYTES":
            found[row["name"]] = []
            while data:
                end = 4 + int.from_bytes(data[:4], "little")
                found[row["name"]].append(data[4:end].decode())
                data = data[end:]
        else:
            kind = {"FP32": "<f4", "INT64": "<i8"}[row["datatype"]]
            found[row["name"]] = np.frombuffer(data, kind).tolist()
        assert len(found[row["name"]]) == np.prod(row["shape"])
    assert not rest
    return found


def test_tensors_as_bytes(client: TestClient) -> None:
    images = [photo(1), photo(2, 40, 60)]
    plain = {row["name"]: row["data"] for row in infer(client, files(*images))["outputs"]}
    pngs = [base64.b64decode(in_base64(image)) for image in images]
    rest = b"".join(len(png).to_bytes(4, "little") + png for png in pngs)
    tensor = {"name": "image", "shape": [2, 1], "datatype": "BYTES"}
    tensor |= {"parameters": {"binary_data_size": len(rest)}}
    asked = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    found = decoded(client.post(f"{MODEL}/versions/1/infer", **with_bytes(asked, rest)))
    assert found.keys() == plain.keys() and len(plain["scores"])
    for name, data in plain.items():
        assert found[name] == (pytest.approx(data, rel=1e-6) if name in ("boxes", "scores") else data)
    some = [{"name": "names", "parameters": {"binary_data": True}}, {"name": "count"}]
    mixed = decoded(client.post(f"{MODEL}/infer", json={"inputs": [files(*images)], "outputs": some}))
    assert mixed == {"names": plain["names"], "count": plain["count"]}
    in_json = {"inputs": [tensor], "outputs": [{"name": "scores"}]}
    answer = client.post(f"{MODEL}/infer", **with_bytes(in_json, rest)).json()
    assert answer["outputs"][0]["data"] == plain["scores"]


def test_pixels_as_bytes(client: TestClient) -> None:
    pixels = np.stack([photo(3), photo(4)])
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8"}
    plain = infer(client, {**tensor, "data": pixels.flatten().tolist()})
    asked = {"inputs": [{**tensor, "parameters": {"binary_data_size": pixels.size}}]}
    assert client.post(f"{MODEL}/infer", **with_bytes(asked, pixels.tobytes())).json() == plain


IMAGE = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}
PIXELS = {"name": "pixels", "shape": [1, 1, 2, 3], "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 6]}
SIX = {"name": "pixels", "shape": [1, 1, 2, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 6}}
COUNT = {"name": "count"}
FILES = {"name": "image", "shape": [2], "datatype": "BYTES"}


@pytest.mark.parametrize(
    ("tensor", "rest", "reason"),
    [
        (SIX, b"12345", "not the number of bytes that follow the JSON, 5"),
        ({**SIX, "parameters": {"binary_data_size": "6"}}, b"123456", "not the number of bytes"),
        ({**SIX, "parameters": {"binary_data_size": True}}, b"1", "not the number of bytes"),
        ({**SIX, "shape": [1, 1, 1, 3]}, b"123456", "does not have the shape"),
        ({**SIX, "data": [1]}, b"123456", "not both"),
        ({**SIX, "parameters": {"shared_memory_region": "a"}}, b"", "no parameter shared_memory_region"),
        ({**SIX, "parameters": [1]}, b"", "no object"),
        ({**PIXELS}, b"123456", "the input has no binary_data_size"),
        ({**FILES, "parameters": {"binary_data_size": 3}}, b"123", "end within element 1 of 2"),
        ({**FILES, "parameters": {"binary_data_size": 9}}, b"\1\0\0\0a\2\0\0\0", "end within element 2 of 2"),
        ({**FILES, "parameters": {"binary_data_size": 12}}, bytes(12), "4 bytes are left"),
    ],
)
def test_wrong_bytes(client: TestClient, tensor: dict[str, Any], rest: bytes, reason: str) -> None:
    response = client.post(f"{MODEL}/infer", **with_bytes({"inputs": [tensor]}, rest))
    assert response.status_code == 400 and reason in response.json()["error"], response.text


@pytest.mark.parametrize("length", ["-1", "x", "1000", "9" * 5000, "\u0663"])
def test_a_wrong_length_of_the_json(client: TestClient, length: str) -> None:
    headers = {LENGTH: length.encode("latin-1", "replace").decode("latin-1")}
    response = client.post(f"{MODEL}/infer", content=json.dumps({"inputs": [PIXELS]}), headers=headers)
    assert response.status_code == 400 and LENGTH in response.json()["error"], response.text


def test_wanted_outputs(client: TestClient) -> None:
    answer = infer(client, files(photo(5)), outputs=[{"name": "count"}, {"name": "scores"}])
    assert [row["name"] for row in answer["outputs"]] == ["count", "scores"]
    nothing = arrays(infer(client, files(photo(5)), parameters={"score": 1}))
    assert nothing["boxes"].shape == (1, 0, 4) and nothing["count"].tolist() == [0]


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
        ({"inputs": [IMAGE], "outputs": [{"name": "count"}] * 2}, 400, "output count is wanted twice"),
        (
            {"inputs": [IMAGE], "outputs": [{"name": "boxes", "parameters": {"binary": 1}}]},
            400,
            "only parameter",
        ),
        (
            {"inputs": [IMAGE], "outputs": [{"name": "boxes", "parameters": {"binary_data": 1}}]},
            400,
            "neither",
        ),
        ({"inputs": [IMAGE], "parameters": {"binary_data_output": 1}}, 400, "neither true nor false"),
        ({"inputs": [IMAGE], "parameters": {"scor": 1}}, 400, "did you mean 'score'?"),
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
    for path in ("/v2/models/other", "/v2/models/other/ready", f"{MODEL}/versions/2", "/v2/nothing"):
        response = client.get(path)
        assert response.status_code == 404 and isinstance(response.json()["error"], str)
    response = client.get(f"{MODEL}/infer")
    assert response.status_code == 405 and isinstance(response.json()["error"], str)
    assert set(client.get("/v2x").json()["error"]) == {"code", "message"}, "the server's own form"
    assert client.get("/v2/health/live").headers["x-content-type-options"] == "nosniff"
    metrics = client.get("/metrics").text
    assert f'route="{MODEL}/infer"' in metrics and 'route="/v2/health/live"' in metrics


def test_names(tmp_path: Path) -> None:
    assert served_name(Path("animals"), None) == "animals"
    assert served_name(Path("runs/mine"), None) == "mine"
    assert served_name(Path("runs/mine/best.safetensors"), "mine-2") == "mine-2"
    assert served_name(Path("hf://user/name"), None) == "name"
    (tmp_path / "run.v2").mkdir()
    (tmp_path / "current").symlink_to("run.v2")
    assert served_name(tmp_path / "run.v2", None) == "run.v2"
    assert served_name(tmp_path / "current", None) == "current"
    assert served_name(Path("my runs/the 2nd {é}"), None) == "the-2nd", "any folder can be served"
    assert served_name(Path("runs/été"), None) == "t" and served_name(Path("runs/ä"), None) == "model"
    for name in ("a/b", "ä b", "a{b}", ".", ".."):
        with pytest.raises(ConfigError, match="give --name"):
            served_name(Path("animals"), name)


def test_answers_are_what_the_document_says(client: TestClient) -> None:
    """Programs make clients of it, which refuse what it does not name."""
    document = client.get("/openapi.json").json()
    for path in ("/v2/health/live", "/v2/health/ready", f"{MODEL}/ready", "/health", "/ready"):
        stated = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        named = document["components"]["schemas"][stated["$ref"].rpartition("/")[2]]["properties"]
        assert client.get(path).json().keys() == named.keys(), path


def test_parameters_that_would_be_passed_over(client: TestClient) -> None:
    asked = {"inputs": [files(photo(0))]}
    queried = client.post(f"{MODEL}/infer?score=0.9", json=asked)
    assert (queried.status_code, queried.json()) == (
        422,
        {"error": "score: put it into the JSON, under parameters."},
    )
    text = json.dumps({**asked, "parameters": 0}).replace(
        '"parameters": 0', '"parameters": {"max": 1, "max": 2}'
    )
    twice = client.post(f"{MODEL}/infer", content=text)
    assert twice.status_code == 400 and "max stands twice in one object" in twice.json()["error"]
