"""Processes that do not see the same run end with a sentence, each of them, and soon."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fssd.errors import ConfigError
from fssd.training.distributed import (
    Process,
    any_process,
    is_launched,
    own_device,
    process_group,
    this_process,
)
from fssd.weights.checkpoint import read_tensors, write_tensors

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")

SETTINGS: dict[str, Any] = {
    "model": "ssd300-vgg16",
    "size": [128],
    "start": "nothing",
    "iterations": 2,
    "batch_size": 1,
    "lr": 1e-3,
    "warmup": 0,
    "schedule": "constant",
    "augment": "none",
    "workers": 0,
    "threads": 1,
    "save_every": 1,
    "val_split": "none",
}
QUICK = "import fssd.training.agreement as agreement\nagreement.LOOKS, agreement.PAUSE = 2, 0.1"
SILENT = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
SILENT += (
    "MASTER_PORT",
    "SLURM_STEP_NUM_TASKS",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "TORCHELASTIC_MAX_RESTARTS",
)
CPU = torch.device("cpu")


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment, without what a launcher would have put there."""
    for name in SILENT:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


# ---- who a process is


def test_alone_without_a_launcher(variables: pytest.MonkeyPatch) -> None:
    process = this_process()
    assert process == Process(0, 1, 0)
    assert process.is_first and not is_launched()
    with process_group(process, CPU):
        assert not dist.is_initialized()
        assert any_process(True, process, CPU)
        assert not any_process(False, process, CPU)
    variables.setenv("WORLD_SIZE", "1")
    assert this_process() == process and is_launched()


@pytest.mark.parametrize(
    ("given", "process"),
    [
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}, Process(3, 4, 1)),
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "MASTER_ADDR": "n0"}, (9, 16, 1)),
        # torchrun in every task, and tasks that are to be alone
        (
            {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "WORLD_SIZE": "4", "RANK": "2", "LOCAL_RANK": "0"},
            (2, 4, 0),
        ),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "WORLD_SIZE": "1"}, (0, 1, 0)),
        # a step of one task in a job of eight
        ({"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, (0, 1, 0)),
    ],
    ids=str,
)
def test_launchers(variables: pytest.MonkeyPatch, given: dict[str, str], process: tuple[int, ...]) -> None:
    for name, value in given.items():
        variables.setenv(name, value)
    assert this_process() == Process(*process)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2"}, "one of 4 Slurm tasks, but MASTER_ADDR"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "one of 2 processes .OMPI_COMM_WORLD_SIZE. without a group"),
        ({"PMI_SIZE": "3"}, "one of 3 processes"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'; it must be a whole number"),
        ({"WORLD_SIZE": "²", "RANK": "0"}, "WORLD_SIZE is '²'; it must be a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0; it must be 1 or more"),
        ({"WORLD_SIZE": "1", "RANK": "3"}, r"RANK is 3 of 1 processes \(WORLD_SIZE\); they are"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK is 2 of 2 processes"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "7", "MASTER_ADDR": "n0"}, "SLURM_PROCID is 7 of 2 processes"),
    ],
    ids=str,
)
def test_lone_processes_are_refused(
    variables: pytest.MonkeyPatch, given: dict[str, str], message: str
) -> None:
    for name, value in given.items():
        variables.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        this_process()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2"}, "one of 2 processes, but MASTER_ADDR, the host of the first, is not set"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "n0"}, "MASTER_PORT is not set; it must be a port"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "n0", "MASTER_PORT": "abc"}, "MASTER_PORT is 'abc'"),
        ({"MASTER_ADDR": "n0", "MASTER_PORT": "65536"}, "MASTER_PORT is 65536; it must be a port"),
        ({"MASTER_ADDR": "n0", "MASTER_PORT": "0"}, "MASTER_PORT is 0; it must be a port"),
    ],
    ids=str,
)
def test_a_place_of_the_first_process_that_cannot_be(
    variables: pytest.MonkeyPatch, given: dict[str, str], message: str
) -> None:
    for name, value in given.items():
        variables.setenv(name, value)
    with pytest.raises(ConfigError, match=message), process_group(Process(1, 2, 1), CPU):
        pass


@pytest.mark.parametrize("launcher", [{}, {"WORLD_SIZE": "2", "RANK": "1"}])
def test_a_first_process_that_does_not_answer(
    variables: pytest.MonkeyPatch, launcher: dict[str, str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        host, _, port = place.partition(":")
        for name, value in {"MASTER_ADDR": host, "MASTER_PORT": port, **launcher}.items():
            variables.setenv(name, value)
        message = f"process 1 of 2 cannot join the others at {place} .*check MASTER_ADDR and MASTER_PORT"
        with pytest.raises(ConfigError, match=message), process_group(Process(1, 2, 1), CPU, 1e-3):
            pass
    assert not dist.is_initialized()


def test_a_store_that_would_hang_is_refused(variables: pytest.MonkeyPatch) -> None:
    variables.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    variables.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    variables.setenv("GROUP_WORLD_SIZE", "2")
    with (
        pytest.raises(ConfigError, match="export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"),
        process_group(Process(0, 2, 0), CPU),
    ):
        pass


def test_one_gpu_for_several_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current GPU is set to the process's own, and nothing else is asked of CUDA before."""
    chosen: list[int] = []
    monkeypatch.setattr("fssd.training.distributed.pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv("SLURM_LOCALID", raising=False)
    with pytest.raises(ConfigError, match="cuda:1 is one GPU, but each of 2 processes"):
        own_device("cuda:1", Process(1, 2, 1))
    with pytest.raises(ConfigError, match="process 2 has no GPU of its own; start at most 2"):
        own_device("cuda", Process(2, 3, 2))
    assert own_device("cuda", Process(3, 4, 1)) == torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("SLURM_LOCALID", "1")
    assert own_device("cuda", Process(3, 4, 1)) == torch.device("cuda:0")
    assert chosen == [1, 0]


def test_a_group_that_exists_is_used_and_kept(variables: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        variables.setenv("WORLD_SIZE", "7")  # of somebody else
        assert this_process() == Process(0, 1, 0)
        with process_group(this_process(), CPU):
            pass
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()


# ---- what two processes see


def test_an_unshared_folder_ends_both(scenes: Path, tmp_path: Path, train_together: Any) -> None:
    outs = [tmp_path / "a", tmp_path / "b"]
    one, other = train_together(
        [{**SETTINGS, "data": str(scenes), "out": str(out)} for out in outs], script=QUICK
    )
    assert (one.code, other.code) == (2, 2), one.log + other.log
    for done, out in zip((one, other), outs, strict=True):
        assert f"{out}: " in done.log
        assert "--out must be one folder that all processes share" in done.log
    assert not list(tmp_path.glob("*/last.safetensors"))
    assert not list(tmp_path.glob("*/.tmp-*"))


def test_unequal_states_end_both(scenes: Path, tmp_path: Path, train_together: Any) -> None:
    """The first process has a state, another has none or one whose weights differ: neither goes on."""
    outs = [tmp_path / "a", tmp_path / "b"]
    settings = [{**SETTINGS, "data": str(scenes), "out": str(out)} for out in outs]
    (alone,) = train_together([settings[0]])
    assert alone.code == 0, alone.log
    outs[1].mkdir()
    state = outs[0] / "last.safetensors"
    before = state.read_bytes()
    for case in ("none", "other weights"):
        if case == "other weights":
            tensors, document = read_tensors(state)
            tensors["model/backbone.fine.bias"][0] += 1e-3
            write_tensors(outs[1] / "last.safetensors", tensors, document)
        done = train_together(settings, script=QUICK, resume=True)
        for process, out in zip(done, outs, strict=True):
            assert process.code == 2, process.log
            sees = "no state" if case == "none" else "a state of update 2"
            assert f"{out}: process 0 sees a state of update 2" in process.log
            assert f"process 1 {sees}" in process.log
    assert state.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 2e-3}, "was started with lr 0.001, process 1 on"),
        ({"train_split": "val"}, "was started with train_split 'train', process 1 on"),
        ({"data": "other"}, "sees other images or labels than process 0 on"),
        ({"data": "nowhere"}, "there is no such"),
    ],
    ids=str,
)
def test_other_inputs_end_both(
    scenes: Path, tmp_path: Path, train_together: Any, change: dict[str, Any], message: str
) -> None:
    if change.get("data") == "other":
        from fssd.data.scenes import make_scenes

        change = {"data": str(make_scenes(tmp_path / "other", train=12, val=4, seed=1))}
    settings = {**SETTINGS, "data": str(scenes), "out": str(tmp_path / "run"), "train_split": "train"}
    done = train_together([settings, {**settings, **change}])
    assert [one.code for one in done] == [2, 2], json.dumps([one.log for one in done])
    assert all(message in one.log for one in done), done[0].log + done[1].log
