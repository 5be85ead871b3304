"""Small stand-ins, so that a measurement takes next to no time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fssd.bench import peak
from fssd.bench.peak import Way
from fssd.bench.photographs import Photographs, made_pictures
from fssd.bench.subject import CPU, Subject
from fssd.inference.detector import Detector
from fssd.model.build import build_model


@pytest.fixture(scope="session")
def tiny(tiny_backbone: Callable[[], nn.Module]) -> Detector:
    """FSSD's neck and heads on a backbone that costs next to nothing, three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("fssd300-lite", 3, backbone=tiny_backbone())
    return Detector(network, ("eight", "five", "zero"))


@pytest.fixture
def subject(tiny: Detector) -> Subject:
    return Subject("tiny", tiny, "torch", "fp32", random=True, multiply_adds=2_000_000, device=CPU, threads=1)


@pytest.fixture
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    return made_pictures(tmp_path_factory.mktemp("pictures"), 3)


@pytest.fixture
def small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways of the peak that do next to nothing."""
    ways = [Way("a", 2e3, lambda: None), Way("b", 4e3, lambda: None)]
    monkeypatch.setattr(peak, "cpu_ways", lambda _: ways)
