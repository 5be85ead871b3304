"""A table before it is trained: costs and published values of its rows, in the order of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.ablation.plan import read_plan
from fssd.ablation.preview import preview
from fssd.cli.main import main

PLAN = """
title: Three rows
rows:
  - {name: theirs, published: {value: 73.2, source: Table 3, note: On another GPU}}
  - {name: plain, set: {model: ssd300-vgg16, metric: voc07}, paper: 77.2}
  - {name: many, set: {model: fssd300-vgg16, metric: coco, priors: fit}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "three.yaml"
    path.write_text(PLAN)
    return path


def test_rows_with_costs_and_published_values(plan: Path) -> None:
    lines = preview(read_plan(plan)).splitlines()
    assert lines[0] == "# Three rows"
    assert lines[4:7] == [
        "| theirs | published |  |  | 73.2 (1) |",
        "| plain | ssd300-vgg16 | 26,285,486 | 31.37 G | 77.2 |",  # VOC's 20 classes
        "| many | fssd300-vgg16 | 39,366,582 | 40.12 G |  |",  # COCO's 80
    ]
    assert lines[-1] == "1. theirs: published, not measured here. Table 3. On another GPU"


def test_the_command_needs_no_data_and_writes_nothing(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", str(plan), "--show"]) == 0
    assert capsys.readouterr().out == preview(read_plan(plan))
    assert list(tmp_path.iterdir()) == [plan]
