"""The table of the evidence: gains and their mean over the sets, worked by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# mAP and AP on small objects of two seeds, by data set and row.
FOUND = {
    "boards": {"ssd": [(0.50, 0.10), (0.52, 0.12)], "fssd": [(0.55, 0.20), (0.57, 0.22)]},
    "buses": {"ssd": [(0.30, None), (0.30, None)], "fssd": [(0.29, None), (0.29, None)]},
}


def run(found: tuple[float, float | None]) -> dict[str, Any]:
    value, small = found
    return {
        "mAP": value,
        "AP75": 0.4,
        "small": small,
        "medium": 0.5,
        "large": None,
        "resampled": [value] * 101,
    }


def test_the_table(
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evidence = script("evidence")
    measured = {name: {row: [*map(run, own)] for row, own in rows.items()} for name, rows in FOUND.items()}
    monkeypatch.setattr(evidence, "measured_runs", lambda folder, _: measured[folder.name])
    out = tmp_path / "table.md"
    monkeypatch.setattr(sys, "argv", ["evidence.py", "boards", "buses", "--markdown", str(out)])
    evidence.main()
    lines = out.read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    assert lines[2] == "| boards | ssd | 2 | 51.0 ± 1.4 | 40.0 ± 0.0 | 11.0 ± 1.4 | 50.0 ± 0.0 | - |  |  |"
    # Seeds 2 points apart: the means of two draws of each are up to 2 points further or nearer than 5.
    assert lines[3].endswith("| 21.0 ± 1.4 | 50.0 ± 0.0 | - | +5.0 | +3.0 to +7.0 |")
    assert lines[5].endswith("| -1.0 | -1.0 to -1.0 |")
    assert lines[6] == "| mean of 2 | fssd |  |  |  | +10.0 |  |  | +2.0 | +1.0 to +3.0 |"
