"""Models timed in turns: the order of turns, what is stated of each, memory, and what is refused."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fssd.bench import contest as module
from fssd.bench.contest import Choices, Contest, Entrant, Timing, compete
from fssd.bench.contest_table import (
    cells,
    columns,
    head,
    latency,
    markdown,
    slower,
    table,
    throughput,
    to_json,
)
from fssd.bench.measure import Setup
from fssd.bench.photographs import Photographs
from fssd.bench.subject import Subject
from fssd.errors import ConfigError
from fssd.inference.detector import Detector

TURNS = Setup(repeats=7, warm_up=1)


@pytest.fixture
def opened(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Opens the small stand-in under every name, and lists the names and turns in order."""
    events: list[str] = []

    def open_subject(model: str, folder: Path, **_: Any) -> Subject:
        events.append(f"open {model}")
        return replace(subject, name=model)

    def steps(one: Subject, *_: Any) -> dict[str, Any]:
        return {"network": lambda: events.append(one.name), "arrays": lambda: None}

    monkeypatch.setattr(module, "open_subject", open_subject)
    monkeypatch.setattr(module, "whole_steps", steps)
    return events


def test_models_take_turns(opened: list[str], pictures: Photographs, tmp_path: Path) -> None:
    contest = compete([Entrant("a"), Entrant("b"), Entrant("c")], tmp_path, pictures, TURNS, Choices())
    assert opened == ["open a", "open b", "open c", *["a", "b", "c"] * 8]
    assert [len(timing.seconds["network"]) for timing in contest.timings] == [7] * 3
    assert contest.setup["held"]
    assert [timing.facts["name"] for timing in contest.timings] == ["a", "b", "c"]


def test_one_model_in_memory_at_a_time(
    opened: list[str], pictures: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds of five and two turns, each after one that does not count."""
    monkeypatch.setattr(module, "HELD", 1000)
    contest = compete([Entrant("a"), Entrant("b")], tmp_path, pictures, TURNS, Choices())
    rounds = [f"{name}" for turns in (6, 3) for name in ("open a", *["a"] * turns, "open b", *["b"] * turns)]
    assert opened == ["open a", "open b", *rounds]
    assert [len(timing.seconds["arrays"]) for timing in contest.timings] == [7, 7]
    assert not contest.setup["held"]
    assert "one model in memory at a time" in head(contest)[1]


@pytest.mark.parametrize(
    ("entrants", "message"),
    [
        ([Entrant("a")], "a comparison needs two models or more"),
        ([Entrant("a"), Entrant("b"), Entrant("a")], "a is named twice"),
        ([Entrant("a", 70), Entrant("b")], "b has no accuracy, the others have; give it, as b=77.2"),
        ([Entrant("a", 70), Entrant("b", 170)], "b: accuracy is 170; it is mAP in percent"),
    ],
)
def test_refused_before_anything_is_opened(
    opened: list[str], pictures: Photographs, tmp_path: Path, entrants: list[Entrant], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compete(entrants, tmp_path, pictures, TURNS, Choices())
    assert not opened


def timing(name: str, network: list[float], arrays: list[float], accuracy: float | None = None) -> Timing:
    facts = {"name": name, "runtime": "torch", "precision": "fp32", "weights": "random", "image_size": 300}
    return Timing(facts, accuracy, 26_285_486, 31_000_000_000, {"network": network, "arrays": arrays})


def result(*timings: Timing) -> Contest:
    machine = {
        "gpu": None,
        "processor": "Abacus",
        "cores": 2,
        "threads": 1,
        "load": 0.5,
        "packages": {"torch": "2"},
    }
    setup = {"batch": 2, "score": 0.5, "warm_up": 3, "images": "16 JPEGs", "held": True}
    return Contest(machine, setup, timings)


def test_figures_by_hand() -> None:
    """Batches of two: 0.2 s a batch are 100 ms an image and 10 images/s. The ratio is taken turn by turn."""
    first = timing("a", [0.2, 0.2, 0.4], [0.25, 0.25, 0.5])
    second = timing("b", [0.3, 0.4, 0.4], [0.5, 0.4, 0.5])
    assert latency(first, 2).median == pytest.approx(100)
    assert throughput(second, 2).median == pytest.approx(4)
    assert slower(second, first).median == pytest.approx(1.5)  # of 1.5, 2 and 1; of the medians it is 2
    row = dict(zip(columns(result(first, second)), cells(result(first, second))[1], strict=False))
    assert (row["model"], row["input"], row["parameters"]) == ("b", "300 x 300", "26,285,486")
    assert (row["multiply-adds"], row["network, ms"], row["over the first"]) == ("31.00 G", "200.00", "1.50")


def test_every_form_has_every_model() -> None:
    contest = result(timing("a", [0.1], [0.2], 77.2), timing("b", [0.1], [0.2], 78.8))
    text = markdown(contest).splitlines()
    assert text[0] == "Abacus, 2 cores, threads 1, load 0.5 before; torch 2"
    assert text[3].endswith("| mAP %, as given |") and text[5].endswith("| 77.2 |")
    document = json.loads(to_json(contest))
    assert [model["accuracy"] for model in document["models"]] == [77.2, 78.8]
    assert document["models"][0]["milliseconds"]["median"] == pytest.approx(50)
    assert document["models"][1]["seconds"]["arrays"] == [0.2]
    assert table(contest).row_count == 2


def test_a_real_contest(pictures: Photographs, tmp_path: Path, model_file: Path) -> None:
    entrants = [Entrant("ssd300-lite"), Entrant(str(model_file))]
    contest = compete(entrants, tmp_path, pictures, Setup(repeats=1, warm_up=0), Choices(device="cpu"))
    named, file = contest.timings
    assert (named.parameters, named.facts["weights"]) == (3_387_982, "random")
    assert file.facts["weights"] == "trained" and file.multiply_adds is not None
    assert min(seconds for one in contest.timings for times in one.seconds.values() for seconds in times) > 0


class SessionRunner:
    """Stands for the runner of an exported file: it holds no network."""


def test_exported_once_and_opened_again(
    subject: Subject, pictures: Photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short: later turns open the file that was made of the model at first."""
    opened: list[str] = []

    def open_subject(model: str, folder: Path, **choices: Any) -> Subject:
        opened.append(model)
        if choices.get("runtime") != "onnx" and not model.endswith(".onnx"):
            return subject  # to count the parameters of the network
        (folder / "network.onnx").write_bytes(b"12345")
        detector = copy(subject.detector)
        detector.runner = SessionRunner()  # type: ignore[assignment]
        monkeypatch.setattr(Detector, "image_size", (300, 300))
        return replace(subject, name=model, detector=detector, runtime="onnx", random="network" not in model)

    monkeypatch.setattr(module, "open_subject", open_subject)
    monkeypatch.setattr(module, "whole_steps", lambda *_: {"network": lambda: None, "arrays": lambda: None})
    monkeypatch.setattr(module, "HELD", 3)
    entrants = [Entrant("a"), Entrant("b")]
    contest = compete(entrants, tmp_path, pictures, Setup(repeats=1), Choices(runtime="onnx"))
    files = [str(tmp_path / number / "network.onnx") for number in ("000", "001")]
    assert opened == ["a", "a", "b", "b", *files]
    assert [timing.facts["name"] for timing in contest.timings] == ["a", "b"]
    own = sum(p.numel() for p in subject.detector.network.parameters())
    assert [timing.parameters for timing in contest.timings] == [own, own]
