"""Mixed precision: what `amp: auto` stands for on a device, and in a run that is resumed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from fssd.config.config_files import load_config
from fssd.config.train_config import Amp
from fssd.errors import ConfigError
from fssd.training.distributed import Process, any_process, each, together
from fssd.training.speed_probe import bf16_ratio

BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
WORTH_IT = 0.95  # time in bf16 over that in float32 below which the lower precision pays


def choose_amp(amp: Amp, device: torch.device) -> Amp:
    """`amp`, where "auto" becomes bf16 if the device has instructions for it that are faster, else off.

    On a CPU without these instructions bf16 is several times slower than fp32, and nothing is measured; with
    them a short measurement decides. A run keeps its choice when it is resumed. Raises ConfigError for fp16
    on a CPU.
    """
    if amp == "fp16" and device.type == "cpu":
        raise ConfigError("amp fp16 needs a GPU; choose bf16, or off")
    if amp != "auto":
        return amp
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "off"
    # torch 2.6 does not report the flags; there "off" is always safe.
    flags: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not any(flags.get(name) for name in BF16_INSTRUCTIONS):
        return "off"
    return "bf16" if bf16_ratio() < WORTH_IT else "off"


def agree_amp(amp: Amp, device: torch.device, process: Process, started: Path | None) -> Amp:
    """The precision of a run, the same in all its processes; the choice for "auto" is printed.

    started: the configuration file of the run that is resumed, if any. It keeps the precision that it was
    started with, whatever this machine would choose.
    """
    if amp == "auto" and started is not None:
        amp = each(together(process, lambda: _amp_of(started)), process)[0]
    if amp != "auto":
        return choose_amp(amp, device)
    off = any_process(choose_amp(amp, device) == "off", process, device)
    chosen: Amp = "off" if off else "bf16"
    if process.is_first:
        reason = "is slower or has no instructions" if off else "is faster"
        print(f"amp auto: {chosen} ({device.type}, where bf16 {reason})", file=sys.stderr)
    return chosen


def _amp_of(started: Path) -> Amp:
    return load_config(started).amp if started.is_file() else "auto"
