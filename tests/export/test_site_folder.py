"""The folder of a page: what takes its place, and what is left alone. The page itself is not made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fssd.errors import ExportError
from fssd.export import site
from fssd.export.onnxruntime_web import WASM
from fssd.export.site import export_site
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector

PAGE = {"assets", "index.html", "model.json", "model.onnx", "ort", "sw.js"}


@pytest.fixture
def ort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of onnxruntime-web; the model is a few bytes."""

    def write(_: Detector, file: Path, *_more: object, **_settings: object) -> None:
        file.write_bytes(b"model")

    monkeypatch.setattr(site, "write_unchecked", write)
    folder = tmp_path / "ort"
    folder.mkdir()
    for name in WASM:
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def detector(model_file: Path) -> Detector:
    return Detector.load(model_file, device="cpu")


def export(detector: Detector, out: Path, ort: Path, *, unchecked: bool = True) -> None:
    export_site(detector, out, nms=Thresholds(), ort=ort, unchecked=unchecked)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_not_of_the_page_stays(detector: Detector, ort: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "site"
    export(detector, out, ort)
    assert names(out) == PAGE
    (out / ".git").mkdir()
    (out / ".git" / "HEAD").write_text("ref: refs/heads/gh-pages\n")
    (out / "CNAME").write_text("example.org\n")
    (out / "assets" / "old.js").write_text("")
    (out / "index.html").write_text("old")
    export(detector, out, ort)
    assert names(out) == {*PAGE, ".git", "CNAME"}
    assert (out / ".git" / "HEAD").read_text() == "ref: refs/heads/gh-pages\n"
    assert (out / "CNAME").read_text() == "example.org\n"
    assert not (out / "assets" / "old.js").exists()
    assert (out / "index.html").read_text() != "old"
    assert names(tmp_path / "pages") == {"site"}, "nothing temporary is left"


def test_a_page_that_fails_leaves_the_folder_as_it_was(
    detector: Detector, ort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ExportError("other detections")

    out = tmp_path / "site"
    export(detector, out, ort)
    (out / "CNAME").write_text("example.org\n")
    (out / "model.json").write_text(json.dumps({"kind": "site", "model": "before"}))
    monkeypatch.setattr(site, "check_site", fail)
    with pytest.raises(ExportError, match="other detections"):
        export(detector, out, ort, unchecked=False)
    assert names(out) == {*PAGE, "CNAME"}
    assert json.loads((out / "model.json").read_text())["model"] == "before"


def test_the_current_folder_takes_a_page(
    detector: Detector, ort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        export(detector, Path(), ort)
    assert names(Path()) == PAGE
