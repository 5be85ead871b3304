"""The GPU run: what is packed is what is unpacked, and a step is taken once and within its time."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from fssd.data.source import open_data

FOLDER = Path(__file__).parents[2] / "benchmarks"
Script = Callable[[str], ModuleType]


def write_coco(folder: Path) -> Path:
    """Three images of 640 x 480 in train, one in val; each has an object, the first of train is difficult."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for split, count in (("train", 3), ("val", 1)):
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        for index in range(count):
            name = f"{split}{index}.png"
            pixels = np.random.default_rng(index).integers(0, 256, (480, 640, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / "images" / name)
            images.append({"id": index, "file_name": name, "width": 640, "height": 480})
            box = {"id": index, "image_id": index, "category_id": 1, "bbox": [64, 48, 320, 240]}
            objects.append(
                {**box, "iscrowd": 0, "area": 76800, "difficult": int(split == "train" and not index)}
            )
        labels = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(labels))
    return folder


@pytest.fixture(scope="module")
def pack(script: Script, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    to = folder / "pack"
    with pytest.MonkeyPatch.context() as patch:
        given = ["--data", str(write_coco(folder / "coco")), "--to", str(to), "--no-wheels"]
        patch.setattr(sys, "argv", ["gpu_pack.py", *given, "--side", "320", "--megabytes", "1"])
        assert script("gpu_pack").main() == 0
    return to


def test_images_and_boxes_are_halved_together(script: Script, pack: Path, tmp_path: Path) -> None:
    data, missing = script("gpu").unpack([pack], tmp_path / "data")
    train = open_data(data, "train")
    assert missing == 0 and len(train.records) == 3 and len(open_data(data, "val").records) == 1
    assert train.classes == ("cat",)
    first = train.records[0]
    assert first.boxes.tolist() == [[32, 24, 192, 144]] and first.difficult.tolist() == [True]
    with PIL.Image.open(first.path) as image:
        assert image.size == (320, 240)


def test_images_that_have_not_arrived_are_left_out_and_counted(
    script: Script, pack: Path, tmp_path: Path
) -> None:
    picture = io.BytesIO()
    PIL.Image.new("RGB", (320, 240)).save(picture, "WEBP")
    content = picture.getvalue()
    images = [(f"{split}-{i:06}.webp", content) for split, n in (("val", 1), ("train", 3)) for i in range(n)]
    parts = list(script("gpu_pack").shards(images, 2 * (len(content) + 1024)))
    assert [[name for name, _ in part] for part in parts] == [
        ["val-000000.webp", "train-000000.webp"],
        ["train-000001.webp", "train-000002.webp"],
    ]
    some = tmp_path / "some"
    some.mkdir()
    for labels in pack.glob("instances_*.json"):
        (some / labels.name).write_bytes(labels.read_bytes())
    script("gpu_pack").write_tar(some / "images-00.tar", parts[0])
    data, missing = script("gpu").unpack([some], tmp_path / "data")
    kept = json.loads((data / "annotations" / "instances_train.json").read_text())
    assert missing == 2 and [one["image_id"] for one in kept["annotations"]] == [0]
    script("gpu_pack").write_tar(some / "images-01.tar", parts[1])
    assert script("gpu").unpack([some], tmp_path / "data")[1] == 0, "the rest has arrived"


def test_a_step_is_taken_once_and_a_failed_one_again(script: Script, tmp_path: Path) -> None:
    gpu = script("gpu")
    fails = [sys.executable, "-c", "print('why'); raise SystemExit(3)"]
    works = [sys.executable, "-c", "print(7)"]

    def read(output: str) -> dict[str, int]:
        return {"value": int(output)}

    gpu.Session(tmp_path, 1, 1).step("one", 20, fails, lambda _: {})
    session = gpu.Session(tmp_path, 1, 1)
    assert session.done == {}
    session.step("one", 20, works, read)
    gpu.Session(tmp_path, 1, 1).step("one", 20, fails, read)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(row["ok"], row.get("value")) for row in rows] == [(False, None), (True, 7)]
    assert "why" in rows[0]["output"]


def test_a_step_that_takes_too_long_is_stopped_and_one_without_time_not_begun(
    script: Script, tmp_path: Path
) -> None:
    gpu = script("gpu")
    waits = [sys.executable, "-u", "-c", "import time; print('begun'); time.sleep(60)"]
    gpu.Session(tmp_path, 1, 1).step("long", 1.5, waits, lambda _: {})
    gpu.Session(tmp_path, 0.05, 1).step("late", 1.5, waits, lambda _: {})
    (row,) = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert row["step"] == "long" and not row["ok"] and "stopped after" in row["output"]


def test_runs_of_the_first_seed_come_first(
    script: Script,
    pack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And none is begun without time for it."""
    monkeypatch.syspath_prepend(FOLDER)
    gpu_runs = script("gpu_runs")
    begun = []

    class Pool:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: Any) -> None: ...

        def submit(self, call: Any, run: Any, end: float) -> Future[str]:
            begun.append((run.config.out.relative_to(tmp_path / "runs").as_posix(), run.config.data))
            future: Future[str] = Future()
            future.set_result(call(run, end))
            return future

    monkeypatch.setattr(gpu_runs, "ProcessPoolExecutor", Pool)
    packs = tmp_path / "packs"
    for name in ("one", "two"):
        shutil.copytree(pack, packs / name)
    given = [
        "fusion-light",
        "--packs",
        str(packs),
        "--data",
        "one",
        "two",
        "--seeds",
        "2",
        "--minutes",
        "0.01",
    ]
    folders = ["--out", str(tmp_path / "runs"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(
        sys, "argv", ["gpu_runs.py", *given, *folders, "--budget", "5it", "--set", "workers=0"]
    )
    assert gpu_runs.main() == 0
    rows = ("ssd", "fssd-concat", "fssd-sum", "fpn", "rssd")
    expected = [
        (f"{name}/{row}/seed-{s}", tmp_path / "work" / name)
        for s in (0, 1)
        for name in ("one", "two")
        for row in rows
    ]
    assert begun == expected
    assert "{'not begun': 20}" in capsys.readouterr().out
