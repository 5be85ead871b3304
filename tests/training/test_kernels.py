"""Which kernels a GPU trains with. Only the flags are tested here: they can be set without a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fssd.config.train_config import Kernels, TrainConfig
from fssd.errors import ConfigError
from fssd.training.kernels import WORKSPACE, kernel_choice
from fssd.training.loop import train

GPU = torch.device("cuda")


def flags() -> tuple[bool, bool, bool]:
    """Whether repeatable operators are asked for, cuDNN's are repeatable, and cuDNN's are timed."""
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


@pytest.mark.parametrize(
    ("kernels", "wanted"),
    [
        ("default", (False, False, False)),
        ("deterministic", (True, True, False)),
        ("benchmark", (False, False, True)),
    ],
)
def test_flags_are_set_and_given_back(
    kernels: Kernels, wanted: tuple[bool, bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")  # the user's own choice, also repeatable, is kept
    before = flags()
    with kernel_choice(kernels, GPU):
        assert flags() == wanted
    assert flags() == before == (False, False, False)


def test_cublas_is_told_of_a_repeatable_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    with kernel_choice("deterministic", GPU):
        assert os.environ[WORKSPACE] == ":4096:8"
    monkeypatch.delenv(WORKSPACE)


@pytest.mark.parametrize("kernels", ["deterministic", "benchmark"])
def test_a_cpu_has_no_such_choice(kernels: Kernels, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = TrainConfig(data=scenes, out=out, device="cpu", kernels=kernels, iterations=1, start="nothing")
    with pytest.raises(ConfigError, match=f"--kernels {kernels} is for a GPU, this run is on cpu; leave it"):
        train(config)
    assert not out.exists()
