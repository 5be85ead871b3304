"""Detections as they were found: what is kept of an earlier file, whatever ended its program."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.evaluation.exact_rows import ExactRows
from fssd.inference.detections import Detections

CLASSES = ("cat", "dog")


def found(score: float) -> Detections:
    return Detections(np.full((1, 4), score, np.float32), np.float32([score]), np.array([1]), CLASSES)


def write(file: Path, *names: str) -> None:
    rows = ExactRows(file)
    for number, name in enumerate(names):
        rows.add(name, found(number / 7))


def scores(rows: ExactRows) -> list[float]:
    return [float(one.scores[0]) for one in rows.read(CLASSES)]


def test_only_the_images_that_are_kept_stay(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write(file, "a", "b", "c")
    file.write_bytes(file.read_bytes() + b"\0\0\n[1]\n" + file.read_bytes()[:-5])
    rows = ExactRows(file, {"a", "c", "of another file"})
    rows.add("d", found(0.5))
    assert list(rows.images()) == ["a", "c", "d"]
    assert scores(rows) == [0, np.float32(2 / 7), 0.5]
    assert list(ExactRows(file).images()) == []


def test_the_earlier_file_is_whole_until_the_new_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment before the new one has its name is that of a kill that loses most."""
    file = tmp_path / "rows.jsonl"
    write(file, "a", "b")
    before = file.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        ExactRows(file, {"a"})
    assert file.read_bytes() == before


def test_a_file_that_takes_a_part_of_a_line_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ExactRows(tmp_path / "rows.jsonl")
    plain = rows._file

    class Slow:
        free = 1 << 30

        def write(self, data: bytes) -> int:
            if not self.free:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = plain.write(data[: min(7, self.free)])
            self.free -= taken
            return taken

        def __getattr__(self, name: str) -> Any:
            return getattr(plain, name)

    slow = Slow()
    monkeypatch.setattr(rows, "_file", slow)
    rows.add("a", found(0.5))
    rows.add("b", found(0.25))
    slow.free = 10
    with pytest.raises(OSError) as caught:
        rows.add("c", found(1))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "rows.jsonl"))
    assert list(rows.images()) == ["a", "b"] and scores(rows) == [0.5, 0.25]
