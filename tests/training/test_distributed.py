"""Two processes under torchrun take the step that their mean gradient says; files are written once."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from fssd.data.geometry import Warp
from fssd.data.loader import BatchPositions, Examples, Views, training_batches
from fssd.data.source import open_data
from fssd.model.build import build_model
from fssd.weights.checkpoint import load_model, read_tensors

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")

SETTINGS = {
    "model": "fssd300-vgg16",
    "options": {"norm": "none", "sources": ["fine"]},  # no batch norm: its statistics differ in each process
    "start": "nothing",
    "iterations": 3,
    "batch_size": 1,
    "lr": 1e-3,
    "clip_norm": 0.0,
    "warmup": 0,
    "schedule": "constant",
    "augment": "none",
    "seed": 6,
    "accumulate": 2,
    "workers": 0,
    "threads": 1,
    "log_every": 1,
    "save_every": 2,
    "eval_every": 0.2,
}

SCRIPT = """
import importlib.util, json, os, sys, time

import fssd
from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig
from fssd.training import run_setup

spec = importlib.util.spec_from_file_location("shared", sys.argv[1])
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)
if os.environ["RANK"] == "1":
    make = run_setup.fresh_network

    def slowly(*arguments, **named):
        time.sleep(2)  # a slower process must not stumble over what the first one has begun
        return make(*arguments, **named)

    run_setup.fresh_network = slowly
config = with_values(TrainConfig(amp="off"), json.loads(sys.argv[2]))
result = fssd.train(config, backbone=shared.TinyBackbone())
line = f"process {os.environ['RANK']} ended with {result.model.name}\\n"
os.write(1, line.encode())  # in one piece: two processes print at once
"""


BAD = """
from fssd.heads.multibox.multibox_head import MultiboxHead

real = MultiboxHead.loss

def bad(*arguments):
    terms = real(*arguments)
    return {**terms, "loss": terms["loss"] * float("nan")}

if os.environ["RANK"] == "1":
    MultiboxHead.loss = bad
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def torchrun(folder: Path, settings: dict[str, object]) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    shared = Path(__file__).parents[1] / "conftest.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port()), str(script)]
    command += [str(shared), json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)


def by_hand(scenes: Path, backbone: nn.Module) -> dict[str, Tensor]:
    """The same steps in one process: the mean of the gradients of both halves, each by its own positives."""
    data = open_data(scenes, "train")
    with torch.random.fork_rng():
        torch.manual_seed(6)
        network = build_model(
            "fssd300-vgg16", len(data.classes), backbone=backbone, norm="none", sources=["fine"]
        )
    views = Views(data, Warp((300, 300)), 6, "none", True)
    examples = Examples(views, network.heads.targets)
    halves = [training_batches(examples, BatchPositions(0, 6, 1, rank, 2), 0) for rank in range(2)]
    weights = [p for name, p in network.named_parameters() if not name.endswith("bias")]
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    sgd = torch.optim.SGD(
        [{"params": weights, "weight_decay": 5e-4}, {"params": biases, "lr": 2e-3}], lr=1e-3, momentum=0.9
    )
    for _ in range(3):
        sgd.zero_grad()
        for _ in range(2):
            for half in halves:
                batch = next(half)
                terms = network.heads.loss(network(batch.images.float()), batch.targets)
                (terms["loss"] / 4).backward()
        sgd.step()
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


@pytest.mark.long
def test_two_processes_take_the_mean_step(
    scenes: Path, tmp_path: Path, tiny_backbone: Callable[[], nn.Module]
) -> None:
    out = tmp_path / "run"
    settings = {**SETTINGS, "data": str(scenes), "out": str(out)}
    done = torchrun(tmp_path, settings)
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"process (\d) ended", done.stdout)) == ["0", "1"], done.stdout + done.stderr

    loaded = load_model(out / "final.safetensors", tiny_backbone())
    found = loaded.network.state_dict()
    start = tiny_backbone().state_dict()["fine.weight"]
    assert not torch.allclose(found["backbone.fine.weight"], start, atol=1e-5), "the steps are to be seen"
    for name, value in by_hand(scenes, tiny_backbone()).items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=name)

    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line["iteration"] for line in lines if "evaluation" not in line]
    assert steps == [1, 2, 3], "only the first process writes the log"
    evaluated = [line["iteration"] for line in lines if "evaluation" in line]
    assert evaluated == [1, 2, 3]
    assert not list(out.glob(".tmp-*"))
    assert len(list(out.glob("tensorboard/*"))) <= 1
    document = read_tensors(out / "last.safetensors")[1]
    assert (document["world"], document["iteration"]) == (2, 3)


def test_both_processes_stop_when_one_loss_is_not_finite(
    scenes: Path, tmp_path: Path, train_together: Any
) -> None:
    out = tmp_path / "run"
    ended = train_together([{**SETTINGS, "data": str(scenes), "out": str(out)}] * 2, script=BAD)
    assert [one.code for one in ended] == [2, 2], ended
    document = read_tensors(out / "nonfinite-1.safetensors")[1]
    assert len(document["names"]) == 1
    assert "TrainingError" in ended[1].log and document["names"][0] in ended[1].log, ended


def test_two_processes_train_a_network_that_leaves_layers_of_its_backbone_unused(
    scenes: Path, tmp_path: Path, train_together: Any
) -> None:
    out = tmp_path / "run"
    changes = {"model": "single128-lite", "options": {}, "val_split": "none", "ema": 0, "data": str(scenes)}
    for ended in train_together([{**SETTINGS, **changes, "out": str(out)}] * 2, tiny=False):
        assert ended.code == 0, ended.log
    found = load_model(out / "final.safetensors").network
    with torch.random.fork_rng():
        torch.manual_seed(6)
        fresh = dict(build_model("single128-lite", found.spec.num_classes).named_parameters())
    same = {name.split(".")[2] for name, value in found.named_parameters() if torch.equal(value, fresh[name])}
    assert "15" in same and "1" not in same, "the last blocks are not used, the first ones learn"
