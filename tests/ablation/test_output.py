from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fssd.ablation.output import Cost, csv_rows, draw_table, in_order, make_lines, markdown, mean_spread
from fssd.ablation.plan import AblationRow, PublishedRow
from fssd.config.train_config import TrainConfig

ROWS = (AblationRow("plain", TrainConfig(), None, 77.2), AblationRow("fused", TrainConfig(), None, None))
COSTS = {"plain": Cost(1_000, 2_000_000_000, 10.0), "fused": Cost(2_000, 2_500_000_000, 12.5)}
UPDATES = {"plain": {0: 1200, 1: 1200, 2: 1200}, "fused": {0: 600, 2: 450}}  # the last one ended early
BATCHES = {"plain": 32, "fused": 32}


def evaluation(value: float, small: float | None) -> dict[str, Any]:
    return {"map": value, "sizes": {"small": small, "medium": 0.5, "large": 0.75}}


RESULTS = {
    "plain": {0: evaluation(0.50, 0.10), 1: evaluation(0.52, 0.12), 2: evaluation(0.54, None)},
    "fused": {0: evaluation(0.53, 0.20), 2: evaluation(0.55, 0.24)},
}


def test_mean_and_sample_deviation() -> None:
    assert mean_spread([50.0, 52.0, 54.0]) == "52.0 ± 2.0"  # squares 4 + 0 + 4 over n - 1 = 2
    assert mean_spread([3.0]) == "3.0"
    assert mean_spread([math.nan, 3.0, 5.0], signed=True) == "+4.0 ± 1.4"
    assert mean_spread([math.nan]) == "-"


def test_gain_is_over_the_first_row_with_the_same_seed() -> None:
    plain, fused = make_lines(ROWS, RESULTS, UPDATES, BATCHES, COSTS)
    assert plain.gain == (0.0, 0.0, 0.0)
    assert fused.seeds == (0, 2)
    assert fused.gain == pytest.approx((3.0, 1.0))


def test_markdown() -> None:
    text = markdown("T", ["note"], make_lines(ROWS, RESULTS, UPDATES, BATCHES, COSTS))
    lines = text.splitlines()
    assert lines[0] == "# T" and "note" in lines
    assert lines[-2] == (
        "| plain | 3 | 1,200 x 32 | 52.0 ± 2.0"
        " | 11.0 ± 1.4 | 50.0 ± 0.0 | 75.0 ± 0.0 |  | 1,000 | 2.00 G | 10.0 | 77.2 |"
    )
    assert lines[-1] == (
        "| fused | 2 | 450 to 600 x 32 | 54.0 ± 1.4"
        " | 22.0 ± 2.8 | 50.0 ± 0.0 | 75.0 ± 0.0 | +2.0 ± 1.4 | 2,000 | 2.50 G"
        " | 12.5 |  |"
    )


def test_csv_has_every_run() -> None:
    columns, rows = csv_rows(make_lines(ROWS, RESULTS, UPDATES, BATCHES, COSTS))
    assert columns[:5] == ["row", "seed", "updates", "images_per_update", "mAP"]
    assert [row[2:4] for row in rows[2:]] == [[1200, 32], [600, 32], [450, 32]]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("plain", 0, 50.0), ("plain", 1, 52.0), ("plain", 2, 54.0), ("fused", 0, 53.0), ("fused", 2, 55.0),
    ]  # fmt: skip
    assert rows[2][columns.index("small")] == ""


def test_rows_without_a_result_are_left_out() -> None:
    assert [
        line.row.name for line in make_lines(ROWS, {"plain": RESULTS["plain"]}, UPDATES, BATCHES, COSTS)
    ] == ["plain"]


THEIRS = PublishedRow("theirs", 73.2, "Table 3", "On another GPU")
OTHERS = PublishedRow("others", 83.8, "Table 4", "")


def test_published_rows_stand_where_the_file_has_them() -> None:
    measured = make_lines(ROWS, RESULTS, UPDATES, BATCHES, COSTS)
    lines = in_order(measured, [THEIRS, OTHERS], ["theirs", "plain", "fused", "others", "not finished"])
    assert lines == [THEIRS, *measured, OTHERS]


def test_published_rows_have_a_value_and_a_source_and_nothing_measured() -> None:
    noted = (replace(ROWS[0], note="79.8 in the text"), ROWS[1])
    plain, fused = make_lines(noted, RESULTS, UPDATES, BATCHES, COSTS)
    lines = markdown("T", [], [THEIRS, plain, OTHERS, fused]).splitlines()
    assert lines[5] == "| theirs | published |  |  |  |  |  |  |  |  |  | 73.2 (1) |"
    assert lines[6].startswith("| plain | 3 |") and lines[6].endswith(
        "|  | 1,000 | 2.00 G | 10.0 | 77.2 (2) |"
    )
    assert lines[7] == "| others | published |  |  |  |  |  |  |  |  |  | 83.8 (3) |"
    assert "| +2.0 ± 1.4 |" in lines[8]  # still over the first measured row
    assert lines[9:] == [
        "",
        "1. theirs: published, not measured here. Table 3. On another GPU",
        "2. plain: 79.8 in the text",
        "3. others: published, not measured here. Table 4",
    ]
    columns, rows = csv_rows([THEIRS, plain])
    row = dict(zip(columns, rows[0], strict=True))
    assert (row["row"], row["seed"], row["mAP"], row["milliseconds"]) == ("theirs", "published", "", "")
    assert (row["paper"], row["remark"]) == (73.2, lines[10][3:])
    assert [dict(zip(columns, row, strict=True))["remark"] for row in rows[1:]] == [
        "plain: 79.8 in the text"
    ] * 3


def test_plot_shows_published_rows_as_crosses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    drawn: list[Any] = []
    monkeypatch.setattr("fssd.ablation.output.save_plot", lambda _, axes: drawn.append(axes))
    draw_table(tmp_path / "t.png", [THEIRS, *make_lines(ROWS, RESULTS, UPDATES, BATCHES, COSTS)])
    (panel,) = drawn
    crosses = [line for line in panel.get_lines() if line.get_marker() == "x"]
    assert [(list(x.get_xdata()), list(x.get_ydata())) for x in crosses] == [([73.2], [0]), ([77.2], [1])]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["theirs", "plain", "fused"]
