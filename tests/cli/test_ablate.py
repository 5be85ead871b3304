"""`fssd ablate` from rows to table, with trainings of two updates."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from fssd.cli.main import main
from fssd.weights.checkpoint import load_model, read_tensors, write_tensors

pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')
pytestmark = pytest.mark.usefixtures("few_blocks_in_module")

PLAN = """
title: Two rows
settings: {size: 128, iterations: 2, batch_size: 2, start: nothing, augment: none, lr: 0.001, ema: 0}
rows:
  - {name: plain, set: {model: ssd300-lite}, paper: 77.2}
  - {name: fused, set: {model: fssd300-lite, options: {merge: sum}}}
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "two.yaml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def trained(plan: Path, scenes: Path) -> Path:
    out = plan.parent / "runs"
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out)]) == 0
    return out


def table(out: Path) -> list[dict[str, str]]:
    with (out / "table.csv").open() as file:
        return list(csv.DictReader(file))


def test_table_and_plot(trained: Path) -> None:
    assert [(row["row"], row["seed"]) for row in table(trained)] == [("plain", "0"), ("fused", "0")]
    text = (trained / "table.md").read_text()
    assert text.startswith("# Two rows") and "77.2" in text and "| plain | 1 | 2 x 2 |" in text
    assert (trained / "table.png").read_bytes().startswith(b"\x89PNG")
    assert load_model(trained / "fused" / "seed-0").network.spec.options == {"merge": "sum", "size": 128}


def test_finished_runs_are_kept_and_more_seeds_added(
    plan: Path, trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(trained, out)
    model = out / "plain" / "seed-0" / "final.safetensors"
    before = model.stat().st_mtime_ns
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out), "--seeds", "2"]) == 0
    assert model.stat().st_mtime_ns == before
    assert "plain, seed 0: already finished" in capsys.readouterr().out
    assert {(row["row"], row["seed"]) for row in table(out)} == {
        (name, seed) for name in ("plain", "fused") for seed in ("0", "1")
    }


def test_time_over_leaves_no_finished_row_out(
    plan: Path, trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that was added in front is not started; the one behind it stays in the table."""
    out, longer = tmp_path / "runs", tmp_path / "three.yaml"
    shutil.copytree(trained, out)
    longer.write_text(
        PLAN.replace("  - {name: fused", "  - {name: new, set: {model: ssd300-lite}}\n  - {name: fused")
    )
    arguments = ["ablate", str(longer), "--data", str(scenes), "--out", str(out), "--minutes", "1e-9"]
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "new, seed 0: not started: the time is over" in said and "2 of 3 runs are finished" in said
    assert [row["row"] for row in table(out)] == ["plain", "fused"]


def test_a_run_begun_otherwise_is_refused_before_the_first_training(
    plan: Path, trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(trained, out)
    shutil.rmtree(out / "plain")
    other = tmp_path / "two.yaml"
    other.write_text(PLAN.replace("model: fssd300-lite,", "model: fssd300-lite, lr: 0.002,"))
    assert main(["ablate", str(other), "--data", str(scenes), "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert "was made with lr 0.001, not 0.002" in said.err and "training" not in said.out
    assert not (out / "plain").exists()


@pytest.mark.parametrize("content", [None, ""])
def test_a_finished_run_whose_log_is_lost_is_named(
    content: str | None,
    plan: Path,
    trained: Path,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(trained, out)
    log = out / "plain" / "seed-0" / "log.jsonl"
    log.unlink() if content is None else log.write_text(content)
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out)]) == 2
    assert (
        f"{log.parent}: has a final.safetensors, but log.jsonl holds no evaluation" in capsys.readouterr().err
    )


def test_time_over_and_taken_up_again(plan: Path, scenes: Path, tmp_path: Path) -> None:
    arguments = ["ablate", str(plan), "--data", str(scenes), "--out", str(tmp_path / "runs")]
    assert main([*arguments, "--minutes", "0.000001"]) == 1
    assert not (tmp_path / "runs" / "plain" / "seed-0" / "final.safetensors").exists()
    assert main(arguments) == 0
    assert len(table(tmp_path / "runs")) == 2


def test_runs_of_another_light_form_are_not_mixed(
    plan: Path, trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(trained, out)
    model = out / "fused" / "seed-0" / "final.safetensors"
    tensors, document = read_tensors(model)
    write_tensors(model, tensors, {**document, "format": 1})
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out), "--seeds", "2"]) == 2
    assert "final.safetensors: has the light form of version 0.1" in capsys.readouterr().err


def test_other_settings_in_the_same_folder_are_refused(
    plan: Path, trained: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["ablate", str(plan), "--data", str(scenes), "--out", str(trained), "--budget", "3it"]
    assert main(arguments) == 2
    assert "was made with iterations 2, not 3" in capsys.readouterr().err


def test_other_settings_of_an_unfinished_run_are_refused(
    plan: Path, trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(trained, out)
    for final in out.glob("*/seed-0/final.safetensors"):
        final.unlink()
    arguments = ["ablate", str(plan), "--data", str(scenes), "--out", str(out)]
    assert main([*arguments, "--budget", "3it"]) == 2
    assert "was made with iterations 2, not 3" in capsys.readouterr().err


def test_a_damaged_configuration_of_a_run_is_named(
    plan: Path, trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    shutil.copytree(trained, out)
    file = out / "plain" / "seed-0" / "config.yaml"
    file.write_text("lr: [")
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out)]) == 2
    assert f"{file} (line 1): is not valid YAML" in capsys.readouterr().err


def test_other_data_in_the_same_folder_is_refused(
    plan: Path, trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(scenes, other)
    assert main(["ablate", str(plan), "--data", str(other), "--out", str(trained)]) == 2
    assert "was made with data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("[{name: a}, {name: b, set: {metric: coco}}]", "rows a and b cannot share a table: their metric"),
        ("[{name: a}, {name: b, after: a}]", "comes after a but starts from 'backbone'"),
        (
            "[{name: a, set: {start: ssd, weights: none.safetensors}}]",
            "there are no weights none.safetensors",
        ),
        ("[{name: a, set: {val_split: none}}]", "needs a split to evaluate on"),
        ("[{name: a, set: {options: {merge: mean}}}]", "there is no merge 'mean'"),
    ],
)
def test_what_cannot_end_well_is_refused_before_training(
    rows: str, says: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"rows: {rows}\n")
    out = tmp_path / "runs"
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out)]) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


DIVERGES = """
settings: {size: 128, iterations: 2, batch_size: 2, start: nothing, augment: none, ema: 0, warmup: 0}
rows:
  - {name: wild, set: {model: ssd300-lite, lr: 1.0e+30, clip_norm: 0}}
  - {name: next, after: wild, set: {model: ssd300-lite, start: ssd}}
  - {name: calm, set: {model: ssd300-lite, lr: 0.001}}
"""
CANNOT_BE_TRAINED = """
settings: {iterations: 1, batch_size: 2, start: nothing, augment: none, ema: 0, size: 128}
rows:
  - {name: lone, set: {model: fssd300-lite, batch_size: 1}}
  - {name: calm, set: {model: ssd300-lite}}
"""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (DIVERGES, ("wild, seed 0: failed", "next, seed 0: not started")),
        (CANNOT_BE_TRAINED, ("lone, seed 0: failed: batch_size is 1, but",)),
    ],
)
def test_a_row_that_fails_does_not_stop_the_others(
    content: str, says: tuple[str, ...], scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(content)
    out = tmp_path / "runs"
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert all(words in said for words in says), said
    assert [row["row"] for row in table(out)] == ["calm"]


def test_a_row_starts_from_the_row_it_comes_after(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And is refused where that row's model is gone: trained again, it would be another one."""
    plan = tmp_path / "after.yaml"
    plan.write_text(
        "settings: {size: 128, iterations: 1, batch_size: 2, augment: none, ema: 0, lr: 1.0e-12}\n"
        "rows:\n"
        "  - {name: ssd, set: {model: ssd300-lite, start: nothing}}\n"
        "  - {name: fssd, after: ssd, set: {model: fssd300-lite, start: ssd}}\n"
    )
    out = tmp_path / "runs"
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out)]) == 0
    ssd, fssd = (load_model(out / name / "seed-0").network.backbone for name in ("ssd", "fssd"))
    weight = "_blocks.3._project_conv.weight"
    assert abs(ssd.state_dict()[weight] - fssd.state_dict()[weight]).max() < 1e-6
    shutil.rmtree(out / "ssd")
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(out)]) == 2
    assert (
        f"{out / 'fssd' / 'seed-0'}: was begun from a model of row ssd that is not" in capsys.readouterr().err
    )
    assert not (out / "ssd").exists()


@pytest.mark.parametrize("name", ["table.md", "table.csv", "table.png"])
def test_a_table_of_something_else_is_kept(
    name: str, plan: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("mine")
    assert main(["ablate", str(plan), "--data", str(scenes), "--out", str(tmp_path)]) == 2
    assert f"{tmp_path}: holds a {name}, but no run of this ablation" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "row", "given", "says"),
    [
        ("seed: 7", "", "", "settings: the seed of a run follows from --seeds"),
        ("lr: 0.1", "set: {out: elsewhere}", "", "set: the out of a run follows from --out"),
        ("lr: 0.1", "", "seed=9", "--set: the seed of a run follows from --seeds"),
        (
            "lr: 0.1",
            "after: a, set: {start: ssd, weights: x.safetensors}",
            "",
            "leave the weights out",
        ),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(
    settings: str,
    row: str,
    given: str,
    says: str,
    scenes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"settings: {{{settings}}}\nrows: [{{name: a}}, {{name: b, {row}}}]\n")
    arguments = ["ablate", str(plan), "--data", str(scenes), "--out", str(tmp_path / "runs")]
    assert main([*arguments, *(["--set", given] if given else [])]) == 2
    assert says in capsys.readouterr().err


def test_rows_with_priors_fitted_to_the_data(
    plan: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fssd.heads.multibox.fit.UPDATES", 40)
    out = tmp_path / "runs"
    given = ["--data", str(scenes), "--out", str(out), "--set", "priors=fit", "--budget", "1it"]
    assert main(["ablate", str(plan), *given]) == 0
    ssd, fssd = (load_model(out / name / "seed-0").network for name in ("plain", "fused"))
    assert isinstance(ssd.spec.options["priors"], dict)
    assert ssd.heads.priors.equal(fssd.heads.priors)


def test_published_rows_are_printed_and_not_run(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "settings: {size: 128, iterations: 1, batch_size: 2, start: nothing, augment: none, ema: 0}\n"
        "rows:\n"
        "  - {name: theirs, published: {value: 73.2, source: Table 3}}\n"
        "  - {name: plain, set: {model: ssd300-lite}}\n"
    )
    out = tmp_path / "runs"
    arguments = ["ablate", str(plan), "--data", str(scenes), "--out", str(out)]
    for state in ("training", "already finished"):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert f"plain, seed 0: {state}" in text and "theirs, seed" not in text
        assert "| theirs | published |" in text and "1. theirs: published, not measured here. Table 3" in text
        assert [(row["row"], row["paper"]) for row in table(out)] == [("theirs", "73.2"), ("plain", "")]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["plain"]


def test_rows_that_a_server_measures(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.yaml"
    text = (
        "server: voc2012\n"
        "settings: {size: 128, iterations: 1, batch_size: 2, start: nothing, augment: none, ema: 0}\n"
        "rows: [{name: plain, paper: 79.3, set: {model: ssd300-lite, val_split: none}}]\n"
    )
    plan.write_text(text)
    out = tmp_path / "runs"
    arguments = ["ablate", str(plan), "--data", str(scenes), "--out", str(out)]
    for state in ("training", "already finished"):
        assert main(arguments) == 0
        said = capsys.readouterr().out
        (out / "plain" / "seed-0" / "log.jsonl").unlink(missing_ok=True)  # the number is the model's own
        assert f"plain, seed 0: {state}" in said
        assert "| plain | 1 | 1 x 2 | - | - | - | - |  |" in said
        assert f"`fssd submit {out / 'plain' / 'seed-0'} --data DATA --to voc2012" in said
    plan.write_text(text.replace("val_split: none", "val_split: val"))
    assert main(arguments) == 2
    assert "is measured by the server of voc2012; set its val_split to none" in capsys.readouterr().err
