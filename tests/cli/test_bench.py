"""fssd bench: what it prints and writes, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fssd.bench import peak
from fssd.bench.peak import Way
from fssd.cli.main import main

BAD_INPUT = 2


@pytest.fixture(autouse=True)
def small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "cpu_ways", lambda _: [Way("nothing", 1e6, lambda: None)])


def ask(*words: object) -> int:
    return main(["bench", *(str(word) for word in words)])


def test_a_model_file(
    model_file: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "speed.json"
    words = ("--images", scenes / "JPEGImages", "--repeats", 2, "--warm-up", 1, "--device", "cpu")
    assert ask(model_file, *words, "--batch", 2, "--json", out) == 0
    text = capsys.readouterr().out
    for part in ("trained weights", "16 of 16 images given, batch 2", "file in, detections out", "GFLOP/s"):
        assert part in text, part
    assert "random" not in text
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["model"]["name"] == str(model_file)
    assert document["setup"]["batch"] == 2
    assert document["setup"]["warm_up"] == 1
    assert document["milliseconds"]["network"]["number"] == 2
    assert document["frames_per_second"]["arrays"]["median"] > 0
    assert list(out.parent.iterdir()) == [out]


def test_a_network_by_name_says_that_it_is_random(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("ssd300-lite", "--repeats", 1, "--warm-up", 0, "--score", 0, "--device", "cpu") == 0
    text = capsys.readouterr().out
    assert "random weights" in text
    assert "16 made JPEGs of 500 x 375" in text
    assert "detections over 0.0 in an image: 200" in text  # every prior is one, and `keep` is 200


def test_threads_reach_the_report(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("fssd.bench.measure.use_threads", seen.append)
    out = tmp_path / "speed.json"
    assert ask(model_file, "--repeats", 1, "--warm-up", 0, "--threads", 1, "--json", out) == 0
    assert seen == [1]
    assert json.loads(out.read_text(encoding="utf-8"))["machine"]["threads"] == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nothing.safetensors"], "nothing.safetensors: there is no such model file"),
        (["fssd300-light"], "did you mean 'fssd300-lite'"),
        (["fssd300-lite", "--batch", "0"], "batch is 0; it must be 1 or more"),
        (["fssd300-lite", "--threads", "0"], "threads is 0"),
        (["fssd300-lite", "--repeats", "0"], "repeats is 0"),
        (["fssd300-lite", "--warm-up", "-1"], "warm_up is -1"),
        (["fssd300-lite", "--score", "2"], "score is 2"),
        (["fssd300-lite", "--batch", "2", "--mode", "throughput"], "leave --batch or --mode out"),
        (["fssd300-lite", "--precision", "bf16"], "bf16 is for --runtime cuda"),
        (["fssd300-lite", "--precision", "int8"], "int8 is for --runtime onnx or openvino"),
        (["fssd300-lite", "--images", "nothing"], "no such file"),
        (["fssd300-lite", "--device", "abacus"], "device 'abacus' cannot be used here"),
        ([], "name one model, or several with --compare"),
        (["fssd300-lite", "--compare", "ssd300-lite"], "name one model, or several with --compare"),
        (["--compare", "ssd300-lite"], "a comparison needs two models or more"),
        (
            ["--compare", "ssd300-lite", "fssd300-lite", "--mode", "throughput"],
            "give --batch instead of --mode",
        ),
        (["fssd300-lite", "--plot", "a.png"], "--plot is for --compare"),
        (["--compare", "ssd300-lite", "fssd300-lite", "--plot", "a.txt"], "let --plot end in .png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(*words) == BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert reason in error


def test_cuda_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ask("fssd300-vgg16", "--runtime", "cuda", "--precision", "bf16") == BAD_INPUT
    assert "no CUDA device here; choose --runtime torch" in capsys.readouterr().err


def test_a_failure_leaves_the_older_file(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    out.write_text("before")
    assert ask("nothing.safetensors", "--json", out) == BAD_INPUT
    assert out.read_text() == "before"


def test_a_result_that_cannot_be_written_is_refused_first(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fssd.bench.measure.measure", None)
    assert ask(model_file, "--json", tmp_path) == BAD_INPUT
    assert f"{tmp_path}: is a folder; give the name of a file" in capsys.readouterr().err


def test_several_models(tmp_path: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')
    out = tmp_path / "new"
    files = ("--json", out / "a.json", "--markdown", out / "a.md", "--plot", out / "a.png")
    models = ("--compare", "ssd300-lite=70", f"{model_file}=72.5")
    assert ask(*models, "--repeats", 1, "--warm-up", 0, "--device", "cpu", *files) == 0
    text = capsys.readouterr().out
    assert "models in turn" in text and "3,387,982" in text and "72.5" in text
    document = json.loads((out / "a.json").read_text(encoding="utf-8"))
    assert [model["accuracy"] for model in document["models"]] == [70, 72.5]
    assert document["machine"]["cores"] >= 1
    assert f"| {model_file} | torch | 300 x 300 |" in (out / "a.md").read_text(encoding="utf-8")
    assert (out / "a.png").read_bytes().startswith(b"\x89PNG")
