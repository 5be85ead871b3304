"""A run that is stopped at any moment and taken up again ends in the same bytes as one that is not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fssd.config.config_files import load_config
from fssd.config.train_config import Amp, TrainConfig, to_values
from fssd.data.scenes import make_scenes
from fssd.errors import CheckpointError, ConfigError
from fssd.heads.multibox.multibox_head import MultiboxHead
from fssd.training.folds import train_folds
from fssd.training.loop import train
from fssd.training.state import require_same
from fssd.weights.checkpoint import read_tensors, write_tensors

MakeBackbone = Callable[[], nn.Module]

MODELS = ("last.safetensors", "best.safetensors", "final.safetensors")
ITERATIONS = 6

# The disk of the child is slow with models, so that there is time to kill it between writing a file and
# renaming it.
SLOW_DISK = """
import os, sys, time
real = os.fsync

def slow(descriptor):
    file = f"/proc/self/fd/{descriptor}"
    if not os.path.exists(file) or ".safetensors" in os.readlink(file):
        time.sleep(0.4)
    real(descriptor)

if __name__ == "__main__":
    os.fsync = slow
    from fssd.cli.main import main
    sys.exit(main(sys.argv[1:]))
"""


def config_for(data: Path, out: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        data=data,
        out=out,
        start="nothing",
        iterations=ITERATIONS,
        batch_size=2,
        warmup=2,
        ema=0.9,
        eval_every=0.5,  # of 6 updates
        save_every=2,
        log_every=1,
        workers=0,
        amp="off",
    )
    return replace(base, **changes)


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in MODELS}


def log_lines(out: Path) -> list[dict[str, Any]]:
    """Everything in the log but the rate, which a clock decides."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def assert_same_run(out: Path, reference: Path) -> None:
    for name, expected in contents(reference).items():
        assert (out / name).read_bytes() == expected, f"{name} differs"
    assert log_lines(out) == log_lines(reference)
    steps = [line["iteration"] for line in log_lines(out) if "evaluation" not in line]
    assert steps == list(range(1, ITERATIONS + 1))
    assert not list(out.glob(".tmp-*"))


# ---- the command, killed


def start(script: Path, data: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    arguments = [
        *("train", "--data", data, "--out", out, "--model", "fssd300-lite", "--start", "nothing"),
        *("--size", 128, "--iterations", ITERATIONS, "--batch-size", 2, "--ema", 0.9, "--eval-every", 0.5),
        *("--save-every", 2, "--log-every", 1, "--workers", 1, "--warmup", 2, "--amp", "off", *more),
    ]
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 240
    while not reached():
        assert process.poll() is None, f"ended too early: {process.communicate()[1].decode()}"
        assert time.monotonic() < end, "did not get there"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.long
def test_killed_and_resumed(scenes: Path, tmp_path: Path) -> None:
    script = tmp_path / "slow_disk.py"
    script.write_text(SLOW_DISK, encoding="utf-8")
    out, reference = tmp_path / "run", tmp_path / "reference"
    finish(start(script, scenes, out))
    out.rename(reference)  # the configuration in the files names --out, so both runs use the same

    def logged(count: int) -> bool:
        log = out / "log.jsonl"
        return log.exists() and f'"iteration": {count}, "loss"' in log.read_text(encoding="utf-8")

    def writing() -> bool:
        return any(out.glob(".tmp-*.safetensors"))

    state = out / "last.safetensors"
    kill_when(start(script, scenes, out), writing)
    assert list(out.glob(".tmp-*.safetensors")), "the case did not occur: no file was being written"
    assert not state.exists()

    kill_when(start(script, scenes, out, "--resume"), lambda: logged(3))
    assert read_tensors(state)[1]["iteration"] == 2

    kill_when(start(script, scenes, out, "--resume"), lambda: logged(4) and writing())
    assert list(out.glob(".tmp-*.safetensors")), "the case did not occur: no file was being written"
    assert read_tensors(state)[1]["iteration"] in (2, 3), "the old state is whole and in its place"

    finish(start(script, scenes, out, "--resume"))
    assert_same_run(out, reference)


# ---- the function, stopped at every iteration


@pytest.fixture(scope="module")
def whole(
    scenes: Path, tiny_backbone: MakeBackbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainConfig, Path]:
    """A run that nobody disturbed, moved aside from its --out."""
    folder = tmp_path_factory.mktemp("whole")
    config = config_for(scenes, folder / "run", accumulate=2, eval_every=1.0)
    train(config, backbone=tiny_backbone())
    return config, (folder / "run").rename(folder / "reference")


@pytest.mark.parametrize("call", [1, 4, 5, 8, 12])
def test_stopped_anywhere(
    whole: tuple[TrainConfig, Path],
    tiny_backbone: MakeBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
) -> None:
    config, reference = whole
    out = config.out
    assert out is not None
    count = 0
    real = MultiboxHead.loss

    def stop(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MultiboxHead, "loss", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, backbone=tiny_backbone())
    try:
        train(config, resume=True, backbone=tiny_backbone())
        assert_same_run(out, reference)
    finally:
        out.rename(tmp_path / "run")


def test_time_is_over_after_every_update(
    whole: tuple[TrainConfig, Path], tiny_backbone: MakeBackbone, tmp_path: Path
) -> None:
    config, reference = whole
    out = config.out
    assert out is not None
    try:
        for done in range(1, ITERATIONS):
            result = train(config, resume=True, minutes=0, backbone=tiny_backbone())
            assert not result.finished
            assert read_tensors(out / "last.safetensors")[1]["iteration"] == done
            assert not (out / "final.safetensors").exists()
        assert train(config, resume=True, minutes=60, backbone=tiny_backbone()).finished
        assert_same_run(out, reference)
    finally:
        out.rename(tmp_path / "run")


def test_a_light_run_of_format_1_goes_on_as_the_narrow_form(
    scenes: Path, tiny_backbone: MakeBackbone, tmp_path: Path
) -> None:
    narrow = config_for(scenes, tmp_path / "narrow", options={"variant": "narrow"})
    undisturbed = train(narrow, backbone=tiny_backbone())
    stopped = replace(narrow, out=tmp_path / "run")
    train(stopped, minutes=0, backbone=tiny_backbone())
    as_format_1(tmp_path / "run" / "last.safetensors")
    resumed = train(replace(stopped, options={}), resume=True, backbone=tiny_backbone())
    assert resumed.best == undisturbed.best
    ours, theirs = (read_tensors(tmp_path / name / "final.safetensors")[0] for name in ("run", "narrow"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def as_format_1(model: Path) -> None:
    """Rewrite a model of the narrow form as version 0.1 wrote it."""
    tensors, document = read_tensors(model)
    del document["options"]["variant"], document["config"]["options"]["variant"]
    write_tensors(model, tensors, {**document, "format": 1})


def test_a_run_that_starts_from_a_model_of_format_1_has_its_form(
    scenes: Path, tiny_backbone: MakeBackbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = config_for(scenes, tmp_path / "first", iterations=1, options={"variant": "narrow"})
    train(first, backbone=tiny_backbone())
    model = tmp_path / "first" / "final.safetensors"
    as_format_1(model)
    more = replace(first, out=tmp_path / "more", options={}, start="model", weights=model)
    train(more, backbone=tiny_backbone())
    assert "has the form of version 0.1, variant=narrow; so has this run" in capsys.readouterr().err
    assert read_tensors(tmp_path / "more" / "final.safetensors")[1]["options"]["variant"] == "narrow"
    assert train(more, backbone=tiny_backbone(), resume=True).finished


def test_folds_of_two_forms_are_refused(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config_for(
        scenes, tmp_path / "run", size=(128,), iterations=1, folds=2, options={"variant": "narrow"}
    )
    assert next(train_folds(whole)).finished
    for name in ("final.safetensors", "last.safetensors"):
        as_format_1(tmp_path / "run" / "fold-1" / name)
    with pytest.raises(ConfigError, match="and further runs would have"):
        list(train_folds(replace(whole, options={}), resume=True))
    assert [result.finished for result in train_folds(whole, resume=True)] == [True, True]


def test_a_finished_run_stays_as_it_is(
    whole: tuple[TrainConfig, Path], tiny_backbone: MakeBackbone, tmp_path: Path
) -> None:
    config, reference = whole
    assert config.out is not None
    first = train(config, resume=True, backbone=tiny_backbone())  # begins: there is nothing to resume
    again = train(config, resume=True, backbone=tiny_backbone())
    assert again == first
    assert_same_run(config.out, reference)
    config.out.rename(tmp_path / "run")


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_no_difference(
    whole: tuple[TrainConfig, Path], tiny_backbone: MakeBackbone, tmp_path: Path, workers: int
) -> None:
    config, reference = whole
    assert config.out is not None
    train(replace(config, workers=workers), backbone=tiny_backbone())
    moved = config.out.rename(tmp_path / "run")
    for name in MODELS:
        tensors, facts = read_tensors(moved / name)
        expected, known = read_tensors(reference / name)
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in tensors)
        assert facts["config"].pop("workers") == workers
        assert known["config"].pop("workers") == 0
        assert facts == known
    assert log_lines(moved) == log_lines(reference)


def test_resuming_with_other_workers(
    whole: tuple[TrainConfig, Path], tiny_backbone: MakeBackbone, tmp_path: Path
) -> None:
    config, _ = whole
    moved = replace(config, out=tmp_path / "run", workers=1, log_every=5)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.safetensors").write_bytes((whole[1] / "last.safetensors").read_bytes())
    assert train(moved, resume=True, backbone=tiny_backbone()).model.exists()


def test_the_recipe_of_today_is_resumed_exactly(
    scenes: Path, tiny_backbone: MakeBackbone, tmp_path: Path
) -> None:
    """Mosaic, mixup and the losses that came after SSD: stopped after two updates and taken up again."""
    options = {"loc_loss": "ciou", "conf_loss": "quality_focal", "matching": "atss"}
    mixing = {"mosaic": 0.6, "mixup": 0.5, "plain_epochs": 0.2}
    config = config_for(scenes, tmp_path / "run", options=options, workers=1, **mixing)
    train(config, backbone=tiny_backbone())
    reference = (tmp_path / "run").rename(tmp_path / "reference")
    for minutes in (0, 0, None):
        result = train(config, resume=True, minutes=minutes, backbone=tiny_backbone())
        assert result.finished == (minutes is None)
    assert_same_run(tmp_path / "run", reference)


def test_a_killed_export_does_not_stop_a_run_and_a_living_one_is_not_disturbed(
    half: TrainConfig, tiny_backbone: MakeBackbone
) -> None:
    assert half.out is not None
    killed, living = half.out / ".tmp-7f3a", half.out / ".tmp-8e2b"
    for folder in (killed, living):
        folder.mkdir()
        (folder / "model.onnx").touch()
    os.utime(killed, (0, 0))
    train(half, resume=True, minutes=0, backbone=tiny_backbone())
    assert not killed.exists() and (living / "model.onnx").exists()


# ---- what is refused


@pytest.fixture
def half(whole: tuple[TrainConfig, Path], tmp_path: Path) -> TrainConfig:
    """The configuration of a run with a state to resume from."""
    config, reference = whole
    out = tmp_path / "run"
    out.mkdir()
    (out / "last.safetensors").write_bytes((reference / "last.safetensors").read_bytes())
    return replace(config, out=out)


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": 0.5},
        {"seed": 1},
        {"iterations": 9},
        {"batch_size": 4},
        {"ema": 0.0},
        {"augment": "none"},
        {"model": "ssd300-lite"},
        {"options": {"norm": "none"}},
        {"threads": 1},
        {"val_split": None},
    ],
)
def test_other_settings_are_refused(
    half: TrainConfig, tiny_backbone: MakeBackbone, changes: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"was made with {next(iter(changes))} "):
        train(replace(half, **changes), resume=True, backbone=tiny_backbone())


def test_an_average_cannot_be_added(scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    config = config_for(scenes, tmp_path / "run", iterations=1, ema=0.0, val_split=None)
    train(config, backbone=tiny_backbone())
    with pytest.raises(ConfigError, match=r"was made with ema 0\.0, not 0\.9"):
        train(replace(config, ema=0.9), resume=True, backbone=tiny_backbone())


def test_other_images_are_refused(half: TrainConfig, tiny_backbone: MakeBackbone, tmp_path: Path) -> None:
    more = make_scenes(tmp_path / "more", train=13, val=4, size=64)
    with pytest.raises(ConfigError, match="was made with 12 images, the data set has 13"):
        train(replace(half, data=more), resume=True, backbone=tiny_backbone())


def test_other_classes_are_refused(
    half: TrainConfig, scenes: Path, tiny_backbone: MakeBackbone, tmp_path: Path
) -> None:
    other = tmp_path / "renamed.yaml"
    other.write_text(f"map: {{one: uno}}\nsources: [{{data: {scenes}}}]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'uno'"):
        train(replace(half, data=other), resume=True, backbone=tiny_backbone())


def test_data_may_have_moved(half: TrainConfig, tiny_backbone: MakeBackbone, tmp_path: Path) -> None:
    moved = make_scenes(tmp_path / "moved", train=12, val=4)
    train(replace(half, data=moved), resume=True, backbone=tiny_backbone())


@pytest.mark.parametrize("left", ["last.safetensors", "config.yaml"])
def test_a_folder_with_a_run_is_not_overwritten(
    half: TrainConfig, tiny_backbone: MakeBackbone, left: str
) -> None:
    assert half.out is not None
    (half.out / "last.safetensors").rename(half.out / left)
    before = (half.out / left).read_bytes()
    with pytest.raises(ConfigError, match=f"{re.escape(str(half.out))}: already holds a run.*--resume"):
        train(half, backbone=tiny_backbone())
    assert (half.out / left).read_bytes() == before


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("model", ["best.safetensors", "final.safetensors"])
def test_a_model_without_its_state_is_not_overwritten(
    half: TrainConfig, tiny_backbone: MakeBackbone, model: str, resume: bool
) -> None:
    assert half.out is not None
    (half.out / "last.safetensors").rename(half.out / model)
    before = (half.out / model).read_bytes()
    if not resume:
        (half.out / "config.yaml").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"holds a model but no last\.safetensors"):
        train(half, resume=resume, backbone=tiny_backbone())
    assert (half.out / model).read_bytes() == before


def test_a_resumed_run_keeps_the_precision_that_auto_chose(
    scenes: Path, tmp_path: Path, tiny_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_or_go_on(name: str, amp: Amp, minutes: float | None) -> None:
        config = config_for(scenes, tmp_path / name, amp=amp, val_split=None, iterations=4)
        train(config, resume=True, minutes=minutes, backbone=tiny_backbone())

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr("fssd.training.precision.bf16_ratio", lambda: 0.5)
    begin_or_go_on("moved", "auto", minutes=0)
    assert load_config(tmp_path / "moved" / "config.yaml").amp == "bf16"
    assert read_tensors(tmp_path / "moved" / "last.safetensors")[1]["config"]["amp"] == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    begin_or_go_on("moved", "auto", minutes=None)
    begin_or_go_on("bf16", "bf16", minutes=None)
    begin_or_go_on("off", "auto", minutes=None)
    models = [read_tensors(tmp_path / name / "final.safetensors")[0] for name in ("moved", "bf16", "off")]
    differs = [[not torch.equal(models[0][key], model[key]) for key in models[0]] for model in models[1:]]
    assert not any(differs[0])
    assert any(differs[1])


def test_a_setting_that_is_younger_than_the_run_stood_at_its_default(tmp_path: Path) -> None:
    now = to_values(TrainConfig(lr=0.5))
    before = {key: value for key, value in now.items() if key != "freeze"}
    require_same(before, now, tmp_path)
    with pytest.raises(ConfigError, match="was made with freeze 0, not 2"):
        require_same(before, {**now, "freeze": 2}, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "model"])
def test_a_damaged_state_is_refused(
    half: TrainConfig, whole: tuple[TrainConfig, Path], tiny_backbone: MakeBackbone, damage: str
) -> None:
    assert half.out is not None
    state = half.out / "last.safetensors"
    whole_bytes = state.read_bytes()
    other = (whole[1] / "final.safetensors").read_bytes()
    state.write_bytes(whole_bytes[: len(whole_bytes) // 2] if damage == "cut" else other)
    with pytest.raises(CheckpointError, match=re.escape(str(state))):
        train(half, resume=True, backbone=tiny_backbone())
