"""Freed memory is used again without asking the system for it."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fssd.training import heap

# Page faults of the second of two equal arrays of 64 MB, each touched throughout; a page has 4 kB or 2 MB.
FAULTS = """
import resource, sys
import numpy as np
from fssd.training.heap import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    array = np.ones(1 << 26, np.uint8)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    del array
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_second_array_takes_the_memory_of_the_first() -> None:
    faults = {}
    for what in ("keep", "leave"):
        command = [sys.executable, "-c", FAULTS, what]
        faults[what] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults["keep"] < 16 <= faults["leave"]


def test_a_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    heap.keep_freed_memory()
