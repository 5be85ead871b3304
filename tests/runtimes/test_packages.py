"""Packages that are missing in whole or in part, and what OpenVINO leaves behind in a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fssd.errors import ConfigError
from fssd.runtimes.packages import require, require_all

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
    pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import other_not_there", "it is there, but not the module other_not_there, which it needs"),
        ("from json import nothing", "it is there, but cannot be imported: cannot import name 'nothing'"),
    ],
)
def test_a_package_that_lacks_something_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    (tmp_path / "half_there.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=rf'package half_there \({told}.*\); pip install "fssd\[a\]"'):
        require("half_there", "a")
    with pytest.raises(ConfigError, match=rf"packages not_there, half_there \({told}"):
        require_all({"a": ["not_there", "half_there"]})
    with pytest.raises(ConfigError, match="the package not_there; pip"):
        require("not_there", "a")
