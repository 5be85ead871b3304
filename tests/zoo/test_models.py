"""Packaged models by name: what a name finds, what wins over it, and what is said of an unknown one."""

from __future__ import annotations

import json
import re
import shutil
import socket
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import cv2
import pytest

from fssd.cli.main import main
from fssd.data.scenes import CLASSES
from fssd.errors import CheckpointError, ConfigError
from fssd.inference.detector import Detector
from fssd.weights.checkpoint import load_model, model_file
from fssd.zoo.models import FOLDER, MODELS, PHOTOS, find_model

ROOT = Path(__file__).parents[2]
LIMIT = 15_000_000  # bytes of all packaged models together


@pytest.fixture
def stand_in(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An untrained model for digits under the name animals, and an empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setitem(MODELS, "animals", model_file)
    return model_file


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_a_name_finds_its_file(stand_in: Path) -> None:
    assert model_file(Path("animals")) == stand_in
    assert load_model("animals").classes == CLASSES
    assert Detector.load("animals", device="cpu").classes == CLASSES


@pytest.mark.parametrize("kind", ["file", "run"])
def test_a_path_that_exists_wins(stand_in: Path, tmp_path: Path, kind: str) -> None:
    assert run("subset", stand_in, "--classes", CLASSES[3], "--out", tmp_path / "one") == 0
    mine = Path("animals")
    if kind == "run":
        mine.mkdir()
    shutil.copy(tmp_path / "one" / "final.safetensors", mine / "best.safetensors" if kind == "run" else mine)
    assert Detector.load("animals", device="cpu").classes == (CLASSES[3],)
    assert load_model(Path("animals")).classes == (CLASSES[3],)


def test_a_folder_without_a_model_says_that_it_hides_the_name(stand_in: Path) -> None:
    Path("animals").mkdir()
    with pytest.raises(CheckpointError, match=r"^animals: holds no best.*from another folder"):
        Detector.load("animals")
    Path("other").mkdir()
    with pytest.raises(CheckpointError, match=r"train into it first$"):
        Detector.load("other")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("animls", "nor a packaged model of that name; did you mean 'animals'?"),
        ("animals-int9", "did you mean 'animals-int8'?"),
        ("zzz", "; known: animals, animals-int8"),
    ],
)
def test_an_unknown_name_lists_the_known(stand_in: Path, name: str, told: str) -> None:
    for load in (Detector.load, load_model, model_file):
        with pytest.raises(CheckpointError, match=re.escape(told)) as error:
            load(Path(name))
        assert str(error.value).startswith(f"{name}: ")


@pytest.mark.parametrize("path", ["runs/animals", "animals.safetensors", "./runs/x", "animals.xml", "a.onnx"])
def test_a_path_is_not_taken_for_a_name(stand_in: Path, path: str) -> None:
    assert find_model(Path(path)) == Path(path)
    if not path.endswith((".xml", ".onnx")):
        with pytest.raises(CheckpointError, match=r"no such model file; check the path$"):
            Detector.load(path)


def test_a_file_that_the_installation_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(MODELS, "animals", tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="'animals' is missing; install fssd again"):
        Detector.load("animals")


def test_eight_bits_without_openvino(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in (".xml", ".bin"):
        (tmp_path / "model").with_suffix(suffix).write_bytes(b"")
    monkeypatch.setitem(MODELS, "animals-int8", tmp_path / "model.xml")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r'openvino; pip install "fssd\[openvino\]"'):
        Detector.load("animals-int8")


# ---- the verbs


def test_detect_needs_neither_out_nor_network(
    stand_in: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("asks the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert run("detect", "animals", PHOTOS[0], "--score", 0.05, "--keep", 3) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 inputs done, results in found"
    assert {file.name for file in Path("found").iterdir()} == {"chelsea.jpg", "detections.json"}
    (row,) = json.loads(Path("found/detections.json").read_text())
    assert len(row["objects"]) == 3


def test_verbs_that_open_models_otherwise(stand_in: Path, scenes: Path) -> None:
    assert run("eval", "animals", "--data", scenes, "--workers", 0, "--json", "report.json") == 0
    assert json.loads(Path("report.json").read_text())["images"] == 4
    assert run("subset", "animals", "--classes", CLASSES[1], "--out", "other") == 0
    assert run("compare", "animals", "other", PHOTOS[0]) == 0
    assert Path("compare.png").is_file()


def test_subset_of_a_packaged_model_is_not_put_into_the_package(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fssd.zoo import models

    zoo = tmp_path / "site" / "zoo"
    zoo.mkdir(parents=True)
    shutil.copy(stand_in, zoo / "animals.safetensors")
    monkeypatch.setattr(models, "FOLDER", zoo)
    monkeypatch.setitem(MODELS, "animals", zoo / "animals.safetensors")
    assert run("subset", "animals", "--classes", CLASSES[1]) == 0
    assert load_model("animals-subset").classes == (CLASSES[1],)
    assert [path.name for path in (tmp_path / "site").rglob("*")] == ["zoo", "animals.safetensors"]


# ---- what is packaged


def test_photographs_are_small_and_credited() -> None:
    text = (FOLDER / "photos" / "README.md").read_text(encoding="utf-8")
    assert {file.name for file in PHOTOS} == {file.name for file in (FOLDER / "photos").glob("*.jpg")}
    for file in PHOTOS:
        (line,) = [line for line in text.splitlines() if f"`{file.name}`" in line]
        assert "CC0" in line or "public domain" in line
        assert max(cv2.imread(str(file)).shape) <= 480
        assert file.stat().st_size < 60_000


def test_everything_in_the_folder_is_packaged() -> None:
    """Wheel and sdist take all of src but what git ignores."""
    tomllib = pytest.importorskip("tomllib", reason="reads pyproject.toml with Python 3.11's tomllib")
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"]["packages"] == ["src/fssd"]
    assert "src" in targets["sdist"]["include"]
    assert not any("exclude" in target for target in targets.values())
    ignored = (ROOT / ".gitignore").read_text().split()
    names = {file.name for file in FOLDER.rglob("*") if file.suffix not in (".py", ".pyc") and file.is_file()}
    assert {"animals.safetensors", "animals-int8.xml", "animals-int8.bin", "animals.json"} < names
    assert not [(name, rule) for name in names for rule in ignored if fnmatch(name, rule.strip("/"))]


def test_the_packaged_files_are_few_and_small() -> None:
    files = [*MODELS.values(), FOLDER / "animals-int8.bin"]
    assert sum(file.stat().st_size for file in files) < LIMIT


@pytest.mark.parametrize("name", MODELS)
def test_what_the_packaged_models_find(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if name.endswith("int8"):
        pytest.importorskip("openvino", reason='needs openvino: pip install "fssd[openvino]"')
    monkeypatch.chdir(tmp_path)
    detector = Detector.load(name, device="cpu")
    assert detector.classes == ("dog", "cat", "person", "sheep", "horse", "cow")
    cat, person = detector([str(file) for file in PHOTOS])
    assert (cat.names[0], person.names[0]) == ("cat", "person")


def test_nothing_of_another_machine_is_in_the_packaged_files() -> None:
    for file in (*MODELS.values(), FOLDER / "animals.json", FOLDER / "animals.md"):
        found = re.findall(rb"(?:/home/|/root|/tmp/|/work/|/mnt/)[^\s\"]*", file.read_bytes())
        assert not found, (file.name, found[:3])
