"""fssd export: its choices, its answers, and mistakes in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fssd.cli.export import run
from fssd.data.sample import DataSet
from fssd.data.source import open_data
from fssd.errors import CheckpointError, ConfigError, DataError
from fssd.export import half, write
from fssd.export.parity import Parity
from fssd.export.write import Exported
from fssd.heads.head import Thresholds


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `export_model` was asked for; nothing is exported."""
    seen: list[dict[str, Any]] = []

    def note(detector: Any, out: Path, to: str, **settings: Any) -> Exported:
        seen.append({"out": out, "to": to, **settings})
        if settings["trial"] is not None:
            return Exported(maps=(0.906, 0.901))
        return Exported(parity=Parity(32, 640, 2e-4, 1e-6, 1))

    monkeypatch.setattr(write, "export_model", note)
    return seen


def ask(*words: object) -> int:
    return run([str(word) for word in words])


def test_raw_onnx_is_the_default(
    calls: list[dict[str, Any]], model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "a.onnx"
    assert ask(model_file, "--out", out) == 0
    assert ask(model_file, "--raw", "--out", out) == 0
    assert calls[0] == calls[1]
    assert (calls[0]["to"], calls[0]["nms"], calls[0]["trial"], calls[0]["images"]) == (
        "onnx",
        None,
        None,
        None,
    )
    text = capsys.readouterr().out
    assert "640 detections in 32 images agree" in text and str(out) in text
    assert out.parent.is_dir()


def test_thresholds_and_images(
    calls: list[dict[str, Any]], model_file: Path, scenes: Path, tmp_path: Path
) -> None:
    words = ("--nms", "--score", 0.2, "--overlap", 0.5, "--top-k", 100, "--keep", 50)
    pictures = scenes / "JPEGImages"
    ask(model_file, "--to", "openvino", *words, "--images", pictures, "--out", tmp_path / "a.xml")
    assert calls[0]["nms"] == Thresholds(0.2, 0.5, 100, 50)
    assert calls[0]["images"].shape == (16, 3, 300, 300)


def test_calibration_sees_the_training_split_and_measures_on_the_other(
    calls: list[dict[str, Any]],
    model_file: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask(model_file, "--int8", "--calibrate", scenes, "--out", tmp_path / "a.onnx", "--allow-drop")
    trial = calls[0]["trial"]
    assert not trial.few
    objects = [
        sum(len(record.labels) for record in open_data(scenes, split).records) for split in ("train", "val")
    ]
    assert trial.images.shape == (12, 3, 300, 300)
    assert isinstance(trial.measured, DataSet) and len(trial.measured) == 4
    assert calls[0]["allow_drop"]
    told = capsys.readouterr().out
    assert "90.6 fp32 in PyTorch, 90.1 int8" in told
    numbers = "ranges from 12 images with {} objects, mAP from 4 images with {} objects".format(*objects)
    assert f"eight bits: {numbers}\n" in told
    ask(model_file, "--int8", "--calibrate", scenes, "--out", tmp_path / "a.onnx", "--allow-few")
    assert calls[1]["trial"].few


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--raw", "--nms"], "choose one"),
        (["--int8"], "--calibrate"),
        (["--calibrate", "x"], "--int8"),
        (["--score", "1.5"], "score"),
        (["--keep", "0"], "keep"),
        (["--to", "openvino"], "rename"),
        (["--to", "safetensor"], "there is no --to 'safetensor'.* did you mean 'safetensors'"),
        (["--opset", "16"], "opset is 16; it must be 17 to 21"),
        (["--to", "openvino", "--opset", "17"], "--opset is for --to onnx, not openvino"),
        (["--score", "0.9"], "built in with --nms alone"),
        (["--top-k", "9"], "built in with --nms alone"),
        (["--to", "safetensors", "--overlap", "0.3"], "built in with --nms alone"),
        (["--allow-drop"], "are for --int8"),
        (["--val-split", "test"], "are for --int8"),
        (["--int8", "--calibrate", "x", "--images", "y"], "leave --images out"),
        (["--to", "safetensors"], "rename"),
        (["--to", "safetensors", "--nms"], "weights only"),
        (["--to", "safetensors", "--raw"], "weights only"),
        (["--to", "safetensors", "--int8", "--calibrate", "x"], "weights only"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_choices_that_do_not_fit(
    calls: list[dict[str, Any]], model_file: Path, tmp_path: Path, words: list[str], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        ask(model_file, *words, "--out", tmp_path / "a.onnx")
    assert calls == []


def test_half_precision(
    calls: list[dict[str, Any]],
    model_file: Path,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def note(detector: Any, out: Path, images: Any) -> Parity:
        seen.append((detector.network.spec.name, out, None if images is None else tuple(images.shape)))
        return Parity(33, 640, 0.2, 1e-3)

    seen: list[Any] = []
    monkeypatch.setattr(half, "export_half", note)
    out = tmp_path / "new" / "a.safetensors"
    assert ask(model_file, "--to", "safetensors", "--out", out) == 0
    pictures = scenes / "JPEGImages"
    assert ask(model_file, "--to", "safetensors", "--images", pictures, "--out", out) == 0
    assert seen == [("fssd300-lite", out, None), ("fssd300-lite", out, (16, 3, 300, 300))]
    text = capsys.readouterr().out
    assert "640 detections in 33 images agree" in text and f"exported: {out}" in text
    assert calls == []


def test_a_model_is_not_replaced_by_its_half(model_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "best.safetensors"
    own.write_bytes(model_file.read_bytes())
    for model in (own, tmp_path):
        with pytest.raises(ConfigError, match="is an input and would be overwritten"):
            ask(model, "--to", "safetensors", "--out", own)
    assert own.read_bytes() == model_file.read_bytes()


def test_what_is_not_there(calls: list[dict[str, Any]], model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    with pytest.raises(CheckpointError, match="nothing"):
        ask(tmp_path / "nothing.safetensors", "--out", out)
    with pytest.raises(DataError, match="nothing"):
        ask(model_file, "--images", tmp_path / "nothing", "--out", out)
    with pytest.raises(DataError, match="nothing"):
        ask(model_file, "--int8", "--calibrate", tmp_path / "nothing", "--out", out)
    assert calls == []


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("onnxscript", ["--out", "a.onnx"]),
        ("onnxruntime", ["--out", "a.onnx"]),
        ("openvino", ["--out", "a.xml", "--to", "openvino"]),
        ("nncf", ["--out", "a.xml", "--to", "openvino", "--int8", "--calibrate", "nothing-is-read"]),
    ],
)
def test_a_missing_package_is_told_before_anything_is_read(
    calls: list[dict[str, Any]], refuse: Callable[[str], None], tmp_path: Path, package: str, words: list[str]
) -> None:
    refuse(package)
    with pytest.raises(ConfigError, match=rf"package {package}; pip install"):
        ask(tmp_path / "no-model", *words)
    assert calls == []


@pytest.mark.parametrize(("to", "folder"), [("onnx", "a.onnx"), ("openvino", "a.xml"), ("openvino", "a.bin")])
def test_a_folder_in_the_way_is_told_before_the_export(
    calls: list[dict[str, Any]], model_file: Path, tmp_path: Path, to: str, folder: str
) -> None:
    pytest.importorskip(to, reason=f'needs {to}: pip install "fssd[openvino]"')
    (tmp_path / folder).mkdir()
    with pytest.raises(ConfigError, match=f"{folder}: is a folder"):
        ask(model_file, "--to", to, "--out", tmp_path / ("a.onnx" if to == "onnx" else "a.xml"))
    assert calls == []
