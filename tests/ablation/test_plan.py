from __future__ import annotations

import math
from pathlib import Path

import pytest

from fssd.ablation.plan import Budget, parse_budget, read_plan, shorten
from fssd.ablation.run import plan_runs
from fssd.config.config_files import load_config
from fssd.config.train_config import TrainConfig
from fssd.data.source import open_data
from fssd.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text)
    return path


def test_rows_take_their_file_then_the_common_settings_then_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 0.5\nbatch_size: 7\nmomentum: 0.1\n")
    plan = read_plan(
        write(
            tmp_path,
            "title: T\nsettings: {batch_size: 8, momentum: 0.2, options: {matching: ssd}}\n"
            "rows:\n"
            "  - {name: a, config: a.yaml, set: {momentum: 0.3, options: {merge: sum}}, paper: 77}\n"
            "  - {name: b, after: a, set: {options: {matching: null}}}\n",
        )
    )
    first, second = plan.rows
    assert plan.title == "T"
    assert (first.config.lr, first.config.batch_size, first.config.momentum) == (0.5, 8, 0.3)
    assert (first.paper, first.after, second.after) == (77.0, None, "a")
    assert (second.config.batch_size, second.config.momentum) == (8, 0.2)
    assert (first.config.options, second.config.options) == ({"merge": "sum", "matching": "ssd"}, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rows: []", "at least one row"),
        ("titel: x\nrows: [{name: a}]", "no key 'titel'; did you mean 'title'"),
        ("rows: [a]", "row 1 is 'a'"),
        ("rows: [{name: a, papr: 1}]", "row 1: there is no key 'papr'"),
        ("rows: [{name: ../a}]", "name is '../a'"),
        ("rows: [{name: a}, {name: a}]", "row 2: the name 'a' occurs twice"),
        ("rows: [{name: a, after: b}, {name: b}]", "after is 'b', which is not a row above"),
        ("rows: [{name: a, paper: high}]", "paper is 'high'"),
        ("rows: [{name: a, paper: .nan}]", "paper is nan; it must be a number, percent"),
        ("rows: [{name: a, paper: .inf}]", "paper is inf; it must be a number, percent"),
        (f"rows: [{{name: a, paper: 7{'0' * 400}}}]", "it must be a number, percent"),
        ("rows: [{name: Faster R-CNN}]", "name is 'Faster R-CNN'; it must be letters"),
        ("rows: [{name: ' a', published: {value: 73.2, source: x}}]", "with spaces between them"),
        ("rows: [{name: table.md}]", "the table is written to table.md"),
        ("rows: [{name: a, set: {epoch: 3}}]", "row 1: there is no setting 'epoch'"),
        ("rows: [{name: a, set: 3}]", "set must map"),
        ("settings: 3\nrows: [{name: a}]", "settings must map"),
        ("rows: [{name: a, published: {value: 1, source: x}, set: {ema: 0}}]", "is not run and has no set"),
        ("rows: [{name: a, published: 73}]", "published is 73; it is {value: 73.2, source: where"),
        (
            "rows: [{name: a, published: {valeu: 1}}]",
            "published: there is no key 'valeu'; did you mean 'value'",
        ),
        (
            "rows: [{name: a, published: {value: 173, source: x}}]",
            "published value is 173; it must be a number",
        ),
        ("rows: [{name: a, published: {value: 73}}]", "published source is None; say where"),
        ("rows: [{name: a, published: {value: 73, source: x, note: 3}}]", "published note is 3"),
        ("rows: [{name: a, published: {value: 73, source: x}}]", "every row is published"),
        ("rows: [{name: a, note: x}]", "note is 'x'; it is a text about the value of `paper`"),
        ("server: voc2013\nrows: [{name: a}]", "there is no server 'voc2013'; did you mean 'voc2012'"),
        ("rows: [{name: a, config: none.yaml}]", "none.yaml: cannot be read"),
    ],
)
def test_invalid_entries_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("?", "\\?").replace("../", r"\.\./")):
        read_plan(write(tmp_path, text))


def test_published_rows_are_no_rows_to_train(tmp_path: Path) -> None:
    plan = read_plan(
        write(
            tmp_path,
            "server: voc2012\n"
            "rows:\n"
            "  - {name: theirs, published: {value: 83.8, source: Table 4, note: at several scales}}\n"
            "  - {name: ours, paper: 77, note: once}\n"
            "  - {name: more, published: {value: 81, source: Table 4}}\n",
        )
    )
    assert [row.name for row in plan.rows] == ["ours"]
    assert plan.rows[0].note == "once"
    assert [tuple(vars(row).values()) for row in plan.published] == [
        ("theirs", 83.8, "Table 4", "at several scales"),
        ("more", 81.0, "Table 4", ""),
    ]
    assert (plan.order, plan.server) == (("theirs", "ours", "more"), "voc2012")


@pytest.mark.parametrize(
    ("text", "budget"),
    [("20ep", (20.0, "epochs")), ("0.5ep", (0.5, "epochs")), ("5000it", (5000.0, "iterations"))],
)
def test_budgets(text: str, budget: tuple[float, str]) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["20", "ep", "-3ep", "0it", "1.5it", "3 hours", "9" * 400 + "it"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 20ep or 5000it"):
        parse_budget(text)


def test_steps_move_in_proportion_in_a_shorter_run() -> None:
    config = TrainConfig(iterations=120_000, steps=(80_000, 100_000, 120_000))
    short = shorten(config, Budget(1200, "iterations"), views=5)
    assert (short.iterations, short.epochs, short.steps) == (1200, None, (800, 1000, 1200))
    # 640 images in batches of 32 are 20 updates an epoch, 60 in all.
    short = shorten(config, Budget(3, "epochs"), views=640)
    assert (short.iterations, short.epochs, short.steps) == (None, 3, (40, 50, 60))
    half = shorten(TrainConfig(epochs=10, steps=(100,)), Budget(5, "epochs"), views=640)
    assert half.steps == (50,)


def test_the_plain_epochs_at_the_end_move_in_proportion() -> None:
    config = TrainConfig(epochs=40, mosaic=0.5, plain_epochs=8)
    assert shorten(config, Budget(10, "epochs"), views=640).plain_epochs == 2
    assert shorten(config, Budget(200, "iterations"), views=640).plain_epochs == 2  # of 800 updates
    assert shorten(TrainConfig(epochs=40, mosaic=0.5), Budget(10, "epochs"), views=640).plain_epochs is None


def test_a_file_may_build_on_another(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 0.5\nbatch_size: 7\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.yaml").write_text("base: ../a.yaml\nlr: 0.25\n")
    config = load_config(tmp_path / "deep" / "b.yaml", TrainConfig(momentum=0.3))
    assert (config.lr, config.batch_size, config.momentum) == (0.25, 7, 0.3)


def test_a_row_may_name_a_packaged_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("epochs: 3\n")
    plan = read_plan(write(tmp_path, "rows: [{name: a, config: photographs}, {name: b, config: mine.yaml}]"))
    assert plan.rows[0].config == load_config(Path("photographs"))
    assert plan.rows[1].config.epochs == 3


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("val_share: 0.2", "val_share: 0.3", "their val_share is 0.2 and 0.3"),
        ("val_share: 0.2, split_seed: 1", "val_share: 0.2", "their split_seed is 1 and 0"),
        ("folds: 3, fold: 1", "folds: 3, fold: 2", "their fold is 1 and 2"),
        ("val_share: 0.2", "val_share: 0.2, train_split: val", "their train_split is train and val"),
        ("images: pictures", "images: others", "their images is pictures and others"),
        ("split_seed: 1", "split_seed: 2", ""),
        ("val_split: val", "val_split: val, train_split: trainval, seen_images: true", ""),
    ],
)
def test_rows_of_a_table_are_measured_on_the_same_images(
    scenes: Path, tmp_path: Path, first: str, second: str, refused: str
) -> None:
    rows = f"rows: [{{name: a, set: {{{first}}}}}, {{name: b, set: {{{second}}}}}]"
    plan = read_plan(write(tmp_path, f"settings: {{data: '{scenes}', start: nothing}}\n{rows}"))
    if not refused:
        assert len(plan_runs(plan, tmp_path / "out", seeds=1)) == 2
        return
    with pytest.raises(ConfigError, match=f"rows a and b cannot share a table: {refused}"):
        plan_runs(plan, tmp_path / "out", seeds=1)


def test_a_row_of_folds_without_one_of_them(scenes: Path, tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, f"rows: [{{name: a, set: {{data: '{scenes}', folds: 5}}}}]"))
    with pytest.raises(ConfigError, match="row a: folds is 5, but a run validates on one of them"):
        plan_runs(plan, tmp_path / "out", seeds=1)


def test_files_that_build_on_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="leads back"):
        load_config(tmp_path / "a.yaml")


def test_an_epoch_of_a_row_that_oversamples_has_more_views(scenes: Path, tmp_path: Path) -> None:
    """Steps are at half of both runs; a class in a share f of the images has the factor 1 / sqrt(f)."""
    common = f"{{data: '{scenes}', start: nothing, batch_size: 1, iterations: 1000, steps: [500]}}"
    rows = "[{name: plain}, {name: rare, set: {oversample: 1}}]"
    plan = read_plan(write(tmp_path, f"settings: {common}\nrows: {rows}"))
    own = [set(record.labels.tolist()) for record in open_data(scenes, "train").records]
    shares = [sum(label in labels for labels in own) / len(own) for label in range(10)]
    views = math.ceil(sum(max((shares[label] ** -0.5 for label in labels), default=1) for labels in own))
    runs = plan_runs(plan, tmp_path / "out", seeds=1, budget=Budget(4, "epochs"))
    assert [run.config.steps for run in runs] == [(2 * len(own),), (2 * views,)] and views > len(own) + 3


def test_a_budget_with_an_automatic_batch(scenes: Path, tmp_path: Path) -> None:
    settings = f"{{data: '{scenes}', start: nothing, epochs: 4, steps: [50], batch_size: auto}}"
    plan = read_plan(write(tmp_path, f"settings: {settings}\nrows: [{{name: a}}]"))
    with pytest.raises(ConfigError, match="row a: rows are compared and need one batch_size"):
        plan_runs(plan, tmp_path / "out", seeds=1, budget=Budget(2, "epochs"))


def test_the_name_of_a_published_row_may_have_spaces(tmp_path: Path) -> None:
    """It has no folder, nor any other file."""
    published = "published: {value: 73.2, source: x}"
    text = f"rows: [{{name: a}}, {{name: Faster R-CNN, {published}}}, {{name: table.md, {published}}}]"
    assert list(read_plan(write(tmp_path, text)).order) == ["a", "Faster R-CNN", "table.md"]
