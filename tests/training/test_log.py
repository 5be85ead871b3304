"""The log of a run: one line an iteration, whatever happened on the way."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fssd.errors import DataError
from fssd.training import log as module
from fssd.training.log import LOG_FILE, RunLog, duration, last_evaluation, read_log

VALUES = {"loss": 2.5, "loss_loc": 1.0, "loss_conf": 1.5, "lr": 0.01, "epoch": 0.25}


def make(folder: Path, start: int = 0, total: int = 100, images: int = 8) -> tuple[RunLog, io.StringIO]:
    text = io.StringIO()
    return RunLog(folder, start, total, images, Console(file=text, width=120)), text


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]


def test_a_line_has_the_values_and_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    log, text = make(tmp_path, start=20)
    log.step(30, VALUES)  # ten iterations of 8 images in 4 s, 70 iterations are left
    log.close()
    assert lines(tmp_path) == [{"iteration": 30, **VALUES, "images_per_second": 20.0}]
    assert "30/100" in text.getvalue()
    assert "0:00:28 left" in text.getvalue()
    assert "loss 2.500" in text.getvalue()


def test_time_of_an_evaluation_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 61.0, 62.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    log, _ = make(tmp_path)
    log.step(1, VALUES)
    log.evaluation(1, {"map": 0.5, "metric": "voc12"}, best=True)
    log.step(2, VALUES)
    log.close()
    assert [line.get("images_per_second") for line in lines(tmp_path)] == [8.0, None, 8.0]


@pytest.mark.parametrize(("value", "shown"), [(0.51234, "0.5123"), (None, "nan"), (float("nan"), "nan")])
def test_evaluation(tmp_path: Path, value: float | None, shown: str) -> None:
    log, text = make(tmp_path)
    log.evaluation(7, {"map": value, "metric": "coco"}, best=value == 0.51234)
    log.close()
    assert lines(tmp_path)[0]["iteration"] == 7
    assert f"mAP (coco) {shown}" in text.getvalue()
    assert ("best" in text.getvalue()) == (value == 0.51234)


def test_a_resumed_log_drops_what_will_be_repeated(tmp_path: Path) -> None:
    rows = [{"iteration": n, "loss": float(n)} for n in (10, 20, 30)]
    torn = '{"iteration": 40, "lo'  # the process was killed in the middle of a line
    file = tmp_path / LOG_FILE
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + torn, encoding="utf-8")
    log, _ = make(tmp_path, start=20)
    assert [line["iteration"] for line in lines(tmp_path)] == [10, 20]
    log.step(30, VALUES)
    log.close()
    assert [line["iteration"] for line in lines(tmp_path)] == [10, 20, 30]


def test_last_evaluation_skips_damaged_lines_but_a_strict_reader_does_not(tmp_path: Path) -> None:
    file = tmp_path / LOG_FILE
    rows = [{"iteration": 10, "evaluation": {"map": 0.5}}, "{half", {"iteration": 20, "loss": 1.0}, "5", "[]"]
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    assert last_evaluation(tmp_path) == (10, {"map": 0.5})
    assert [line["iteration"] for line in read_log(file, strict=False)] == [10, 20]
    with pytest.raises(DataError, match=r"log\.jsonl \(line 2\): is not a line of a training log"):
        read_log(file)


def test_a_new_log_drops_all_of_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / LOG_FILE).write_text('{"iteration": 1}\n', encoding="utf-8")
    make(tmp_path, start=0)[0].close()
    assert lines(tmp_path) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3599, "0:59:59"), (36061, "10:01:01")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_has_the_curves(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log, _ = make(tmp_path)
    log.step(10, VALUES)
    log.evaluation(10, {"map": 0.25, "metric": "voc12"}, best=True)
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "lr", "mAP"} <= set(events.Tags()["scalars"])
    assert [(e.step, e.value) for e in events.Scalars("mAP")] == [(10, 0.25)]


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    log, _ = make(tmp_path)
    log.step(10, VALUES)
    log.close()
    assert not (tmp_path / "tensorboard").exists()
    assert len(lines(tmp_path)) == 1


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 10, 2, Console(file=io.StringIO()))
    log.path.symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:
        log.step(1, {"loss": 1.0, "lr": 0.1})
    log.close()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(log.path))
