"""A process that runs verbs."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SECONDS = 20.0  # of CPU time
HANGS = 200.0  # seconds on a busy machine
MEMORY = 1_500_000_000


@dataclass(frozen=True)
class Outcome:
    """code: negative for a crash. errors: its messages. seconds: of CPU. memory: most bytes held."""

    code: int
    errors: str
    seconds: float
    memory: int


class Verbs:
    """Runs verbs in a process of its own, which is started again after a crash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, *words: object) -> Outcome:
        """Run `fssd WORDS`, and check that it ended with a result or one of our errors, soon, and small."""
        outcome = self.ask([str(word) for word in words])
        told = f"fssd {' '.join(map(str, words))!a}\n{outcome.errors[-3000:]}"
        assert outcome.code in {0, 1, 2}, told
        assert "Traceback" not in outcome.errors, told
        if outcome.code == 2:
            assert outcome.errors.strip(), told
        assert outcome.seconds < SECONDS, f"{outcome.seconds:.0f} s: {told}"
        assert outcome.memory < MEMORY, f"{outcome.memory:,} bytes: {told}"
        return outcome

    def ask(self, words: list[str]) -> Outcome:
        if self.process is None or self.process.poll() is not None:
            worker = Path(__file__).with_name("verb_worker.py")
            self.process = subprocess.Popen(
                [sys.executable, str(worker)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(words), file=self.process.stdin, flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(HANGS)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.stop()
            errors = (self.folder / "errors").read_text(encoding="utf-8", errors="replace")
            return Outcome(-2, f"{'killed by a signal' if ready else 'hangs'}: {errors}", 0, 0)
        return Outcome(**json.loads(line))

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def verbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verbs]:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("reads memory from Linux's /proc")
    running = Verbs(tmp_path_factory.mktemp("verbs"))
    yield running
    running.stop()
