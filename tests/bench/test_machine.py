"""What is said of the machine."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import torch

from fssd.bench.machine import describe_machine, processor

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C

processor\t: 1
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C
"""


def test_processor(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(CPUINFO)
    assert processor(file) == "Intel(R) Xeon(R) Platinum 8488C (cpu family 6, model 143)"


def test_processor_where_linux_does_not_tell(tmp_path: Path) -> None:
    assert processor(tmp_path / "nothing")
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 48.00\n")
    assert processor(tmp_path / "arm") == processor(tmp_path / "nothing")


def test_description_is_json_and_names_no_place() -> None:
    described = describe_machine(torch.device("cpu"), 3)
    assert described["threads"] == 3
    assert described["gpu"] is None
    assert described["cores"] >= 1
    assert described["packages"]["torch"] == torch.__version__
    text = json.dumps(described)
    assert str(Path.home()) not in text
    assert socket.gethostname() not in text
