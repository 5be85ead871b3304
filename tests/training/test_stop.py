"""A signal during training: the state is saved, the run goes on to the same bytes, a second signal kills."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fssd.config.train_config import TrainConfig
from fssd.errors import Stopped
from fssd.heads.multibox.multibox_head import MultiboxHead
from fssd.inference.detector import Detector
from fssd.training import stop
from fssd.training.loop import train
from fssd.training.stop import stop_requests
from fssd.weights.checkpoint import read_tensors

MakeBackbone = Callable[[], nn.Module]
FILES = ("last.safetensors", "best.safetensors", "final.safetensors")


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """The signals as a terminal sets them: a job in the background ignores Ctrl-C."""
    usual = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL)
    before = [signal.signal(*pair) for pair in zip(stop.SIGNALS, usual, strict=True)]
    yield
    for pair in zip(stop.SIGNALS, before, strict=True):
        signal.signal(*pair)


@pytest.fixture(scope="module")
def whole(
    scenes: Path, tiny_backbone: MakeBackbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, Path]:
    """A run that nobody disturbed, of four updates with an evaluation after the third, moved aside."""
    folder = tmp_path_factory.mktemp("whole")
    config = TrainConfig(
        data=scenes,
        out=folder / "run",
        start="nothing",
        iterations=4,
        batch_size=2,
        accumulate=2,
        ema=0.9,
        log_every=1,
        workers=0,
        amp="off",
    )
    train(config, backbone=tiny_backbone())
    return config, (folder / "run").rename(folder / "reference")


def assert_same(out: Path, reference: Path) -> None:
    for name in FILES:
        assert (out / name).read_bytes() == (reference / name).read_bytes(), f"{name} differs"


def at_call(number: int, real: Callable[..., Any], act: Callable[[], None]) -> Callable[..., Any]:
    calls = 0

    def watch(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return real(*arguments, **named)

    return watch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_saves_after_the_update(
    whole: tuple[TrainConfig, Path],
    tiny_backbone: MakeBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    config, reference = whole
    assert config.out is not None
    before = [signal.getsignal(one) for one in stop.SIGNALS]
    ask = lambda: signal.raise_signal(number)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(MultiboxHead, "loss", at_call(3, MultiboxHead.loss, ask))
        with pytest.raises(Stopped) as stopped:
            train(config, backbone=tiny_backbone())
    assert stopped.value.number == number
    assert str(stopped.value) == f"stopped at update 2; go on with: fssd train --out {config.out} --resume"
    assert [signal.getsignal(one) for one in stop.SIGNALS] == before
    assert read_tensors(config.out / FILES[0])[1]["iteration"] == 2
    assert train(config, resume=True, backbone=tiny_backbone()).finished
    assert_same(config.out.rename(tmp_path / "run"), reference)


@pytest.mark.parametrize("moment", ["update", "evaluation"])
def test_evaluation_that_is_left_is_made_when_resumed(
    whole: tuple[TrainConfig, Path],
    tiny_backbone: MakeBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    config, reference = whole
    assert config.out is not None
    real = Detector.evaluate_on
    seen = 0

    def evaluate(*arguments: Any, **named: Any) -> Iterator[Any]:
        nonlocal seen
        for one in real(*arguments, **named):
            seen += 1
            if seen == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield one

    with monkeypatch.context() as patch:
        if moment == "evaluation":
            patch.setattr(Detector, "evaluate_on", evaluate)
        else:  # the third update, after which there is an evaluation
            ask = lambda: signal.raise_signal(signal.SIGTERM)  # noqa: E731
            patch.setattr(MultiboxHead, "loss", at_call(6, MultiboxHead.loss, ask))
        with pytest.raises(Stopped, match="stopped at update 3"):
            train(config, backbone=tiny_backbone())
    assert seen == (1 if moment == "evaluation" else 0)
    assert read_tensors(config.out / FILES[0])[1]["evaluation_due"]
    assert not (config.out / "best.safetensors").exists()
    assert train(config, resume=True, backbone=tiny_backbone()).finished
    assert_same(config.out.rename(tmp_path / "run"), reference)


def test_signal_in_the_last_update(
    whole: tuple[TrainConfig, Path],
    tiny_backbone: MakeBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, _ = whole
    config = replace(config, out=tmp_path / "run", val_split=None, iterations=1)
    ask = lambda: signal.raise_signal(signal.SIGINT)  # noqa: E731
    monkeypatch.setattr(MultiboxHead, "loss", at_call(2, MultiboxHead.loss, ask))
    with pytest.raises(Stopped, match="stopped at update 1; the run is finished"):
        train(config, backbone=tiny_backbone())
    assert (tmp_path / "run" / "final.safetensors").exists()


def test_training_in_a_thread_leaves_signals_alone(
    whole: tuple[TrainConfig, Path], tiny_backbone: MakeBackbone, tmp_path: Path
) -> None:
    config = replace(whole[0], out=tmp_path / "run", val_split=None, iterations=1)
    results: list[Any] = []
    worker = threading.Thread(target=lambda: results.append(train(config, backbone=tiny_backbone())))
    worker.start()
    worker.join()
    assert results[0].finished


def test_second_signal_acts_at_once_but_not_an_echo(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with pytest.raises(KeyboardInterrupt), stop_requests() as request:
        assert request.number == 0
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # `timeout` sends it to the process and to its group
        assert request.number == signal.SIGTERM
        assert capfd.readouterr().err.count("repeat to stop at once") == 1
        now += 1.5
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_signals_that_are_ignored_or_handled_stay_so() -> None:
    own = lambda *_: None  # noqa: E731
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, own)
    try:
        with stop_requests() as request:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
        assert request.number == 0
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])


# ---- the command, with its loader's processes


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_command_and_its_workers_get_the_signal(
    scenes: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "a run"
    command = [sys.executable, "-m", "fssd", "train", "--data", scenes, "--out", out, "--val-split", "none"]
    command += [
        "--start",
        "nothing",
        "--iterations",
        400,
        "--batch-size",
        2,
        "--workers",
        2,
        "--log-every",
        1,
    ]
    child = subprocess.Popen(
        [str(part) for part in command],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = out / "log.jsonl"
    while not log.exists() or not log.read_text(encoding="utf-8"):
        assert child.poll() is None
        time.sleep(0.01)
    os.killpg(child.pid, number)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == code, errors
    told = re.findall(r"stopped at update (\d+); go on with: fssd train --out '(.*)' --resume\n", errors)
    assert told == [(str(read_tensors(out / FILES[0])[1]["iteration"]), str(out))]
    assert "Traceback" not in errors


def test_command_ends_quietly_when_nobody_reads(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = f"{sys.executable} -m fssd train --data {scenes} --out {out} --val-split none --start nothing"
    command += " --iterations 400 --batch-size 2 --workers 0 --log-every 1"
    script = f'({command}; echo "code $?" >&2) | head -2 > /dev/null'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=240, check=False)
    assert "code 141" in done.stderr
    assert not {"error", "Traceback", "Broken"} & set(re.findall(r"\w+", done.stderr))
    assert (out / "last.safetensors").exists()
