"""Runs `fssd` verbs: reads their words as lines of JSON and answers with exit code, messages and cost."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

from fssd.cli.main import main

CRASH = -1


def memory() -> int:
    """The most bytes held since `reset`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def run(words: list[str]) -> dict[str, object]:
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    before = time.process_time()
    errors = os.open("errors", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)
    os.close(errors)
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else CRASH
    except BaseException:
        traceback.print_exc()
        code = CRASH
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    text = Path("errors").read_text(encoding="utf-8", errors="replace")
    return {"code": code, "errors": text, "seconds": time.process_time() - before, "memory": memory()}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)
