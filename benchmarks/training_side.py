"""One side of `training.py --against`: `fssd.train` of the checkout on PYTHONPATH, a step for each line read.

    PYTHONPATH=CHECKOUT/src python benchmarks/training_side.py SETTINGS.json

It uses only what every version has. The first line that it writes is a checksum of the images of its batches;
then it writes a line after each step.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fssd.config.settings import with_values
from fssd.config.train_config import TrainConfig
from fssd.training import loop

BATCHES = 4  # that stay in memory, and are taken in turn

try:  # where the version at hand takes its batches from
    from fssd.training import run_setup as reader
except ImportError:
    reader = loop

load = reader.training_batches


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with patch.object(reader, "training_batches", Turns(sys.stdout)), contextlib.redirect_stdout(sys.stderr):
        loop.train(with_values(TrainConfig(), settings))


class Turns:
    """In place of `training_batches`: batches of the version's own loader, each when a line is read.

    The loop asks for the next batch when it has done with one, so a step is what happens in between.
    """

    def __init__(self, answers: Any) -> None:
        self.answers = answers

    def __call__(self, source: Any, positions: Any, workers: int, pin: bool = False) -> Iterator[Any]:
        del workers, pin
        batches = list(itertools.islice(load(source, positions, 0), BATCHES))
        checksum = hashlib.sha256()
        for batch in batches:
            checksum.update(batch.images.contiguous().numpy())
        self._say(checksum.hexdigest())
        for batch in itertools.cycle(batches):
            if not sys.stdin.readline():
                sys.exit()
            yield batch
            self._say("done")

    def _say(self, text: str) -> None:
        print(text, file=self.answers, flush=True)


if __name__ == "__main__":
    main()
