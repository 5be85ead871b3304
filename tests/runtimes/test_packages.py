"""What OpenVINO leaves behind in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("openvino")

# faulthandler gives the thread a stack for signals, as pytest and many servers have it do.
SCRIPT = """
import faulthandler, gc, os, signal
import numpy as np
from fssd import Detector

seen = []
faulthandler.enable()
signal.signal(signal.SIGUSR1, lambda *_: seen.append(True))
image = np.zeros((300, 300, 3), np.uint8)
first, second = Detector.load("animals-int8"), Detector.load("animals-int8")
first(image), second(image)
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGUSR1)
assert seen
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
def test_signals_after_two_detectors() -> None:
    """The thread is left with a stack for its signals that is still there, whichever detector goes first."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
