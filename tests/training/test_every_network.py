"""Every kind of network is trained, stopped and resumed to the same bytes.

Small inputs, and of the backbones those that are cheap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fssd.config.train_config import TrainConfig
from fssd.training.loop import train
from fssd.weights.checkpoint import load_model

NETWORKS: dict[str, dict[str, Any]] = {
    "ssd300-lite": {},
    "fssd300-lite": {},
    "fssd300-lite, sum": {"merge": "sum"},
    "fpn300-lite": {},
    "rssd300-lite": {},
    "dssd300-lite": {},
    "resskip300-lite": {},
    "single300-lite": {},
    "dsod300-small": {},
    "fssd300-mobilenetv1": {"width": 64},
    "ssd300-mobilenetv2": {},
    "yolov2-416": {"backbone": "lite", "width": 64},
}


def config_for(name: str, data: Path, out: Path) -> TrainConfig:
    return TrainConfig(
        model=name.partition(",")[0],
        options=NETWORKS[name],
        size=(160,) if name.startswith("yolov2") else (144,),
        data=data,
        out=out,
        start="nothing",
        iterations=2,
        batch_size=2,
        lr=1e-4,
        warmup=0,
        ema=0.9,
        clip_norm=10.0,
        save_every=1,
        log_every=1,
        workers=0,
        val_split="none",
        amp="off",
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_resumes_to_the_same_bytes(name: str, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = config_for(name, scenes, out)
    assert train(config).finished
    out.rename(tmp_path / "whole")
    stops = 0
    while not train(config, resume=True, minutes=1e-9).finished:
        stops += 1
    assert stops == 1
    for file in ("last.safetensors", "final.safetensors"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), f"{file} differs"
    assert load_model(out).network.spec.name == config.model
