"""Files beside an exported one: which an export may replace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fssd.errors import ConfigError
from fssd.export.companions import require_own_beside
from fssd.export.darknet_files import darknet_cfg, export_darknet
from fssd.export.write import export_model
from fssd.inference.detector import Detector
from fssd.model.build import build_model

NCNN = (".bin", ".json")
HEADER = json.dumps({"format": 1, "model": "fssd300-lite", "classes": ["a"]})


def place(folder: Path, **contents: str) -> None:
    for suffix, content in contents.items():
        (folder / f"m.{suffix}").write_text(content)


@pytest.mark.parametrize(
    ("there", "out", "beside"),
    [
        ({"bin": "", "xml": ""}, "m.param", NCNN),
        ({"bin": ""}, "m.xml", (".bin",)),
        ({"param": "", "bin": "", "json": HEADER}, "m.xml", (".bin",)),
        ({"param": "", "bin": "", "json": HEADER, "xml": ""}, "m.param", NCNN),
        ({"param": "", "bin": "", "json": '{"shapes": []}'}, "m.param", NCNN),
        ({"param": "", "bin": "", "json": "[1"}, "m.param", NCNN),
        ({"json": HEADER}, "m.param", NCNN),
        ({"weights": "", "cfg": "[net]\nbatch=64\nsubdivisions=8\n"}, "m.weights", (".cfg",)),
    ],
)
def test_files_that_stay(tmp_path: Path, there: dict[str, str], out: str, beside: tuple[str, ...]) -> None:
    place(tmp_path, **there)
    with pytest.raises(ConfigError, match=rf"m\.(bin|json|cfg): is there .* not of an earlier {out}; choose"):
        require_own_beside(tmp_path / out, beside)


def test_files_beside_a_link(tmp_path: Path) -> None:
    store, shelf = tmp_path / "store", tmp_path / "shelf"
    store.mkdir()
    shelf.mkdir()
    out = shelf / "lk.xml"
    out.symlink_to(store / "m.xml")
    require_own_beside(out, (".bin",))
    place(store, bin="theirs")
    with pytest.raises(ConfigError, match=r"store/m\.bin: is there already, .* of an earlier m\.xml"):
        require_own_beside(out, (".bin",))
    place(store, xml="")
    require_own_beside(out, (".bin",))
    (shelf / "lk.bin").symlink_to(store / "m.bin")
    require_own_beside(out, (".bin",))
    (shelf / "lk.bin").unlink()
    (shelf / "lk.bin").write_text("stale")
    with pytest.raises(ConfigError, match=r"shelf/lk\.bin: would be read with lk\.xml, a link to"):
        require_own_beside(out, (".bin",))


def test_files_of_an_earlier_export(tmp_path: Path) -> None:
    for out, beside in (("m.param", NCNN), ("m.xml", (".bin",)), ("m.weights", (".cfg",))):
        require_own_beside(tmp_path / out, beside)
    network = build_model("yolov2-128", 1, width=16)
    place(tmp_path, param="", bin="", json=HEADER, weights="", cfg=darknet_cfg(network))
    require_own_beside(tmp_path / "m.param", NCNN)
    require_own_beside(tmp_path / "m.weights", (".cfg",))


def test_a_cfg_lies_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "lk.weights").symlink_to(tmp_path / "store" / "real.weights")
    detector = Detector(build_model("yolov2-128", 1, width=16), ("a",))
    export_darknet(detector, tmp_path / "lk.weights")
    assert {file.name for file in (tmp_path / "store").iterdir()} == {"real.weights", "real.cfg"}
    assert {file.name for file in tmp_path.iterdir()} == {"store", "lk.weights"}


def test_exports_ask_before_they_write(tmp_path: Path) -> None:
    place(tmp_path, cfg="mine", bin="mine")
    detector = Detector(build_model("yolov2-128", 1, width=16), ("a",))
    with pytest.raises(ConfigError, match=r"m\.cfg: is there already"):
        export_darknet(detector, tmp_path / "m.weights")
    with pytest.raises(ConfigError, match=r"m\.bin: is there already"):
        export_model(detector, tmp_path / "m.xml", "openvino")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.bin", "m.cfg"]
    assert all(file.read_text() == "mine" for file in tmp_path.iterdir())
