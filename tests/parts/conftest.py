"""Fixtures of the tests of detection by parts: images, a small model, and what plain detect finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fssd.cli.main import main
from fssd.model.build import build_model
from fssd.weights.checkpoint import save_model

SETTINGS = ("--device", "cpu", "--score", "0.05", "--keep", "3", "--batch-size", "4")
IMAGES = 96


def save(path: Path, seed: int) -> Path:
    """An untrained network of 128 pixels: quick, and it finds something everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_model("fssd300-lite", 2, size=[128, 128])
    save_model(path, network.state_dict(), network, ("cat", "dog"), {"iteration": seed})
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')
    return save(tmp_path_factory.mktemp("model") / "small.safetensors", 0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "small.safetensors", 1)


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 images of noise, 000.png to 095.png."""
    folder = tmp_path_factory.mktemp("parts") / "shots"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (IMAGES, 24, 32, 3), np.uint8)
    for number, image in enumerate(noise):
        cv2.imwrite(str(folder / f"{number:03}.png"), image)
    return folder


@pytest.fixture
def words(model: Path) -> Callable[..., list[str]]:
    """The arguments of `fssd` that detect with the model: words(SOURCE..., "--out", DEST, ...)."""
    return lambda *more: [str(word) for word in ("detect", model, *more, *SETTINGS)]


@pytest.fixture
def detect(words: Callable[..., list[str]]) -> Callable[..., int]:
    """Runs `fssd` with `words`, in this process."""
    return lambda *more: main(words(*more))


@pytest.fixture(scope="session")
def expected(model: Path, shots: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The objects that plain detect finds in each image of `shots`, by its file name."""
    out = tmp_path_factory.mktemp("parts") / "plain"
    arguments = ("detect", model, shots, "--out", out, "--no-pictures", *SETTINGS)
    assert main([str(word) for word in arguments]) == 0
    rows = json.loads((out / "detections.json").read_text())
    assert sum(len(row["objects"]) for row in rows) > IMAGES
    return {Path(row["image"]).name: row["objects"] for row in rows}


@pytest.fixture(scope="session")
def read_parts() -> Callable[[Path], list[dict[str, Any]]]:
    """The rows of all parts in a DEST, read without the package."""
    from pyarrow.parquet import read_table

    def read(out: Path) -> list[dict[str, Any]]:
        return [
            row for file in sorted(out.glob("parts/part-*.parquet")) for row in read_table(file).to_pylist()
        ]

    return read


@pytest.fixture(scope="session")
def as_json() -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """The objects of a row as `detections.json` has them."""

    def convert(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {
                "name": one["class"],
                "score": round(one["score"], 5),
                "box": [round(side, 2) for side in one["box"]],
            }
            for one in row["objects"]
        ]

    return convert
