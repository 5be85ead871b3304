"""Damaged images, films, models, labels and settings: every verb gives results or one of our errors."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from damage import Fault, damaged, damages, examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from fssd.cli.main import main
from fssd.data.writers import WRITERS
from fssd.export import write
from fssd.runtimes.choose import RUNTIMES

pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')
pytest.importorskip("onnxruntime", reason='needs onnxruntime: pip install "fssd[export]"')

IMAGES = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "MPO")
MODELS = (".safetensors", ".xml", ".bin", ".onnx")
SETTINGS = """\
model: fssd300-lite
iterations: 1
data: nowhere
out: somewhere
"""
TABLE = """\
base: {model: fssd300-lite, start: nothing}
rows:
  - {name: plain}
  - {name: other, lr: 0.1}
"""
ARCHIVES = """\
mine:
  - {name: part, url: "https://127.0.0.1:1/part.zip", sha256: "00"}
"""


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """One picture in each format, with EXIF where the format has it."""
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (96, 64))
    exif = Pillow.Exif()
    exif[0x0112] = 6
    made = {}
    for kind in IMAGES:
        out = io.BytesIO()
        extra = {"exif": exif} if kind in {"JPEG", "PNG", "WEBP", "MPO"} else {}
        Pillow.fromarray(pixels).save(out, kind, **extra)
        made[kind] = out.getvalue()
    return made


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A film of six frames."""
    file = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(6):
        writer.write(np.full((48, 64, 3), 40 * shade, np.uint8))
    writer.release()
    return file.read_bytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, images: dict[str, bytes]) -> dict[str, Path]:
    """The same three labelled images in every format that can be written, by name."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "voc/JPEGImages").mkdir(parents=True)
    (folder / "voc/Annotations").mkdir()
    for index, name in enumerate(("cat", "dog", "cat")):
        (folder / f"voc/JPEGImages/{index}.png").write_bytes(images["BMP"])
        box = "<xmin>11</xmin><ymin>11</ymin><xmax>50</xmax><ymax>40</ymax>"
        size = "<size><width>96</width><height>64</height><depth>3</depth></size>"
        shape = f"<object><name>{name}</name><difficult>0</difficult><bndbox>{box}</bndbox></object>"
        text = f"<annotation><filename>{index}.png</filename>{size}{shape}</annotation>"
        (folder / f"voc/Annotations/{index}.xml").write_text(text)
    made = {"voc": folder / "voc"}
    for name in WRITERS:
        if name != "voc":
            made[name] = folder / name
            assert main(["convert", str(folder / "voc"), "--to", name, "--out", str(made[name])]) == 0
    return made


@pytest.fixture(scope="module")
def models(
    model_file: Path,
    traced: Callable[[str], Any],
    detectors: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """A model file for each suffix."""
    folder = tmp_path_factory.mktemp("models")
    made = {".safetensors": model_file}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "trace", lambda *_: traced("tiny"))
        for runtime in (RUNTIMES["onnx"], RUNTIMES["openvino"]):
            made[runtime.suffix] = folder / f"a{runtime.suffix}"
            write.write_unchecked(detectors["tiny"], made[runtime.suffix], runtime)
    return {**made, ".bin": made[".xml"]}


@examples(12)
@given(
    several=st.lists(
        st.tuples(st.sampled_from(IMAGES), damages(), st.sampled_from([".jpg", ".png", ".webp", ".bmp"])),
        min_size=4,
        max_size=8,
    )
)
def test_images(
    verbs: Any,
    images: dict[str, bytes],
    model_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    several: list[tuple[str, list[Fault], str]],
) -> None:
    folder = tmp_path_factory.mktemp("images")
    for index, (kind, faults, suffix) in enumerate(several):
        (folder / f"{index}{suffix}").write_bytes(damaged(images[kind], faults))
    (folder / "good.png").write_bytes(images["PNG"])
    verbs("detect", model_file, folder, "--out", folder / "out")
    rows = json.loads((folder / "out/detections.json").read_text(encoding="utf-8"))
    assert any(Path(row["image"]).name == "good.png" for row in rows), "what is whole is not lost"


@examples(5)
@given(fault=damages(1), suffix=st.sampled_from([".jpg", ".png"]))
def test_images_of_other_verbs(
    verbs: Any,
    images: dict[str, bytes],
    model_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    fault: list[Fault],
    suffix: str,
) -> None:
    folder = tmp_path_factory.mktemp("images")
    bad, good = folder / f"a{suffix}", folder / "good.png"
    bad.write_bytes(damaged(images["JPEG"], fault))
    good.write_bytes(images["PNG"])
    verbs("label", model_file, bad, good, "--to", "voc", "--out", folder / "labels")
    verbs("pick", model_file, bad, good, "--count", 1, "--out", folder / "list.txt")


@examples(8)
@given(faults=damages())
def test_films(
    verbs: Any, film: bytes, model_file: Path, tmp_path_factory: pytest.TempPathFactory, faults: list[Fault]
) -> None:
    folder = tmp_path_factory.mktemp("film")
    (folder / "a.avi").write_bytes(damaged(film, faults))
    verbs("detect", model_file, folder / "a.avi", "--out", folder / "out")


@examples(20)
@given(suffix=st.sampled_from(MODELS), faults=damages(2), head=st.sampled_from([1.0, 0.01]))
def test_models(
    verbs: Any,
    models: dict[str, Path],
    images: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    faults: list[Fault],
    head: float,
) -> None:
    """In their headers and anywhere; a file that still opens gives results."""
    folder = tmp_path_factory.mktemp("model")
    for file in {models[suffix], models[suffix].with_suffix(suffix)}:
        shutil.copy(file, folder / f"a{file.suffix}")
    bad = folder / f"a{suffix}"
    bad.write_bytes(damaged(bad.read_bytes(), faults, head))
    (folder / "good.png").write_bytes(images["PNG"])
    verbs("detect", folder / f"a{models[suffix].suffix}", folder / "good.png", "--out", folder / "out")


@examples(5)
@given(faults=damages(2), head=st.sampled_from([1.0, 0.01]))
def test_models_of_other_verbs(
    verbs: Any,
    model_file: Path,
    data: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[Fault],
    head: float,
) -> None:
    folder = tmp_path_factory.mktemp("model")
    bad = folder / "bad.safetensors"
    bad.write_bytes(damaged(model_file.read_bytes(), faults, head))
    verbs("subset", bad, "--classes", "zero", "--out", folder / "a.safetensors")
    verbs("eval", bad, "--data", data["voc"], "--split", "none")
    verbs("serve", bad, "--host", "203.0.113.1", "--port", 1)  # never an address of this machine
    weights = ("--weights", bad, "--data", data["voc"], "--train-split", "none", "--iterations", 1)
    verbs("train", "--model", "fssd300-lite", *weights, "--val-split", "nothing", "--out", folder / "run")


@examples(20)
@given(
    content=st.binary(max_size=40) | st.just(b"PK\x03\x04") | st.sampled_from(["zip", "old", "caffe"]),
    faults=damages(2),
    suffix=st.sampled_from([".pth", ".caffemodel", ".safetensors"]),
)
def test_weights_to_import(
    verbs: Any,
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes | str,
    faults: list[Fault],
    suffix: str,
) -> None:
    folder = tmp_path_factory.mktemp("import")
    out = io.BytesIO()
    if content in ("zip", "old"):
        weights = {"vgg.0.weight": torch.zeros(64, 3, 3, 3), "vgg.0.bias": torch.zeros(64)}
        torch.save(weights, out, _use_new_zipfile_serialization=content == "zip")
    elif isinstance(content, str):  # one layer: name, type, a blob of four numbers with its shape
        blob = b"\x3a\x02\x0a\x00" + b"\x2a\x10" + bytes(16)
        layer = b"\x0a\x07conv1_1\x12\x0bConvolution" + b"\x3a" + bytes([len(blob)]) + blob
        out.write(b"\xa2\x06" + bytes([len(layer)]) + layer)
    else:
        out.write(content)
    (folder / f"a{suffix}").write_bytes(damaged(out.getvalue(), faults))
    verbs("import", folder / f"a{suffix}", "--model", "ssd300-vgg16", "--out", folder / "out")


@examples(32)
@given(
    form=st.sampled_from(["voc", *(name for name in WRITERS if name != "voc")]),
    which=st.integers(0, 99),
    faults=damages(),
)
def test_labels(
    verbs: Any,
    data: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    form: str,
    which: int,
    faults: list[Fault],
) -> None:
    folder = tmp_path_factory.mktemp("labels") / "data"
    shutil.copytree(data[form], folder)
    texts = {".xml", ".json", ".txt", ".yaml", ".csv"}
    files = sorted(file for file in folder.rglob("*") if file.suffix in texts)
    bad = files[which % len(files)]
    bad.write_bytes(damaged(bad.read_bytes(), faults))
    verbs("check", folder)
    verbs("convert", folder, "--to", "coco", "--out", folder.parent / "coco")


@examples(12)
@given(name=st.sampled_from(["settings", "table", "archives", "log"]), faults=damages())
def test_settings(
    verbs: Any, tmp_path_factory: pytest.TempPathFactory, name: str, faults: list[Fault]
) -> None:
    folder = tmp_path_factory.mktemp("settings")
    log = json.dumps({"iteration": 1, "loss": 2.0}) + "\n" + json.dumps({"iteration": 1, "map": 0.5}) + "\n"
    text = {"settings": SETTINGS, "table": TABLE, "archives": ARCHIVES, "log": log}[name]
    file = folder / {"log": "log.jsonl"}.get(name, "a.yaml")
    file.write_bytes(damaged(text.encode(), faults))
    if name == "settings":
        verbs("train", "--config", file, "--out", folder / "run")
    elif name == "table":
        verbs("ablate", file, "--data", folder / "nothing")
    elif name == "archives":
        verbs("fetch", "nothing", "--table", file, "--to", folder / "out")
    else:
        verbs("curves", folder, "--out", folder / "a.png")
