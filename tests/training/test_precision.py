"""What `amp: auto` becomes: by the device, and by what a resumed run was started with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fssd.config.train_config import Amp
from fssd.errors import ConfigError
from fssd.training.distributed import Process
from fssd.training.precision import agree_amp, choose_amp
from fssd.training.speed_probe import bf16_ratio

CPU, GPU = torch.device("cpu"), torch.device("cuda")
ALONE = Process(0, 1, 0)


def give_flags(monkeypatch: pytest.MonkeyPatch, *, ratio: float = 0.5, **flags: bool) -> None:
    """A processor with these flags, on which a step in bf16 takes `ratio` of the time in float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    monkeypatch.setattr("fssd.training.precision.bf16_ratio", lambda: ratio)


# What the processors report: Zen 3 has no AVX-512, Ice Lake no bf16, Zen 4 and Cooper Lake AVX-512 BF16,
# Sapphire Rapids both.
@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({"avx2": True}, "off"),
        (
            {"avx2": True, "avx512_f": True, "avx512_vnni": True, "avx512_bf16": False, "amx_bf16": False},
            "off",
        ),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"amx_tile": True, "amx_int8": True}, "off"),
    ],
)
def test_a_processor_takes_bf16_where_it_has_instructions(
    flags: dict[str, bool], wanted: Amp, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_flags(monkeypatch, **flags)
    assert choose_amp("auto", CPU) == wanted


@pytest.mark.parametrize(("ratio", "wanted"), [(0.4, "bf16"), (0.94, "bf16"), (0.97, "off"), (1.5, "off")])
def test_instructions_that_are_slower_are_not_used(
    ratio: float, wanted: Amp, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_flags(monkeypatch, avx512_bf16=True, ratio=ratio)
    assert choose_amp("auto", CPU) == wanted


def test_precisions_are_timed_in_turns_and_the_first_turn_does_not_count() -> None:
    # A clock that is read before and after each step; a step in float32 takes 2 s, one in bf16 1 s, but the
    # first turn 100 s each and one later turn is disturbed.
    lengths = iter([100.0, 100.0, *[2.0, 1.0] * 3, 2.0, 50.0, *[2.0, 1.0] * 3])
    now, state = 0.0, torch.get_rng_state()

    def clock() -> float:
        nonlocal now, started
        started = not started
        now += next(lengths) if not started else 0.0
        return now

    started = False
    assert bf16_ratio(clock) == 0.5
    assert next(lengths, None) is None
    assert torch.get_rng_state().equal(state)


def test_an_older_torch_that_tells_no_flags_leaves_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_amp("auto", CPU) == "off"


@pytest.mark.parametrize(("supported", "wanted"), [(True, "bf16"), (False, "off")])
def test_a_gpu_takes_bf16_where_it_is_no_emulation(
    supported: bool, wanted: Amp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or supported
    )
    assert choose_amp("auto", GPU) == wanted


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_named_precision_is_taken_on_any_device(amp: Amp, monkeypatch: pytest.MonkeyPatch) -> None:
    give_flags(monkeypatch)
    assert choose_amp(amp, CPU) == choose_amp(amp, GPU) == amp
    assert choose_amp("fp16", GPU) == "fp16"


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        choose_amp("fp16", CPU)


@pytest.mark.parametrize(
    ("flag", "said"),
    [(True, "bf16 (cpu, where bf16 is faster"), (False, "off (cpu, where bf16 is slower or has no")],
)
def test_the_choice_is_printed_once(
    flag: bool, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_flags(monkeypatch, avx512_bf16=flag)
    assert agree_amp("auto", CPU, ALONE, None) == ("bf16" if flag else "off")
    told = capsys.readouterr()
    assert told.out == "" and told.err == f"amp auto: {said}{')' if flag else ' instructions)'}\n"
    agree_amp("off", CPU, ALONE, None)
    agree_amp("auto", CPU, Process(1, 1, 0), None)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("before", "flag"), [("off", True), ("bf16", False)])
def test_a_resumed_run_keeps_what_it_was_started_with(
    before: str, flag: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_flags(monkeypatch, avx512_bf16=flag)
    started = tmp_path / "config.yaml"
    started.write_text(f"amp: {before}\n")
    assert agree_amp("auto", CPU, ALONE, started) == before
    assert agree_amp("auto", CPU, ALONE, tmp_path / "none.yaml") != before
