"""What a search draws, and which files are refused. Nothing is trained here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import yaml

from fssd.cli.main import main
from fssd.config.config_files import load_config
from fssd.config.train_config import to_values
from fssd.errors import ConfigError
from fssd.training.splits import name_splits
from fssd.training.start import complete
from fssd.tuning.search import portable, read_search
from fssd.tuning.trials import trial_folder

FILE = """
settings: {model: ssd300-lite, epochs: 5, data: photos, augment: mild, amp: "off", steps: [10, 20]}
search:
  lr: {from: 1e-4, to: 0.1, log: true}
  batch_size: {from: 4, to: 8}
  ema: [0, 0.9]
  options.merge: [sum, concat]
"""


def write(folder: Path, text: str = FILE) -> Path:
    (folder / "search.yaml").write_text(text)
    return folder / "search.yaml"


def test_values_are_spread_over_their_ranges_and_depend_on_number_and_seed(tmp_path: Path) -> None:
    search = read_search(write(tmp_path))
    drawn = [search.values(number, 0) for number in range(400)]
    rates = np.array([one["lr"] for one in drawn])
    assert 1e-4 <= rates.min() < 1.5e-4 and 0.07 < rates.max() <= 0.1
    # The logarithm is uniform: a third of the trials in each of the three decades, +-3 standard deviations.
    decades = np.bincount(np.floor(np.log10(rates) + 4 + 1e-9).astype(int).clip(max=2))
    assert all(abs(count - 400 / 3) < 3 * math.sqrt(400 * 2 / 9) for count in decades)
    assert {one["batch_size"] for one in drawn} == {4, 5, 6, 7, 8}
    assert {one["ema"] for one in drawn} == {0, 0.9}
    assert {one["options.merge"] for one in drawn} == {"sum", "concat"}
    assert search.values(7, 0) == drawn[7] != search.values(7, 1)


def test_the_best_settings_are_a_file_for_train(tmp_path: Path) -> None:
    search = read_search(write(tmp_path))
    config = search.config(3, 0)
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(portable(config)))
    assert load_config(tmp_path / "best.yaml") == config
    assert dict(config.options) == {"merge": search.values(3, 0)["options.merge"]}
    assert (config.lr, config.model) == (search.values(3, 0)["lr"], "ssd300-lite")


def test_a_file_may_build_on_a_configuration(tmp_path: Path) -> None:
    search = read_search(
        write(tmp_path, "base: photographs\nsettings: {epochs: 3, data: d}\nsearch: {lr: [0.1, 0.2]}\n")
    )
    base = load_config(Path("photographs"))
    assert search.settings.epochs == 3 and search.settings.augment == base.augment


def test_a_base_lies_beside_the_file_or_else_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, working = tmp_path / "beside", tmp_path / "working"
    for folder, epochs in ((beside, 3), (working, 4)):
        folder.mkdir()
        (folder / "both.yaml").write_text(f"epochs: {epochs}\n")
    (working / "here.yaml").write_text("epochs: 5\n")
    monkeypatch.chdir(working)
    for base, epochs in (("both.yaml", 3), ("here.yaml", 5)):
        file = write(beside, f"base: {base}\nsettings: {{data: d}}\nsearch: {{lr: [0.1, 0.2]}}\n")
        assert read_search(file).settings.epochs == epochs
    with pytest.raises(ConfigError, match=r"beside/none\.yaml: cannot be read"):
        read_search(write(beside, "base: none.yaml\nsearch: {lr: [0.1, 0.2]}\n"))


def test_drawn_values_stay_in_their_range_when_they_are_rounded(tmp_path: Path) -> None:
    text = "settings: {data: d}\nsearch: {ema: {from: 0.9999, to: 0.99998}, lr: {from: 0.010004, to: 0.02}}\n"
    drawn = [read_search(write(tmp_path, text)).values(number, 0) for number in range(200)]
    assert {one["ema"] for one in drawn} == {0.9999, 0.99998}
    assert min(one["lr"] for one in drawn) >= 0.010004


def test_trials_on_different_splits_are_measured_on_one_that_is_named(tmp_path: Path) -> None:
    text = "settings: {data: d, val_split: val}\nsearch: {train_split: [train, more]}\n"
    assert set(read_search(write(tmp_path, text)).ranges) == {"train_split"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("settings: {}\n", "nothing is searched for; add search:"),
        ("serach: {lr: [1, 2]}\n", "there is no key 'serach'; did you mean 'search'"),
        ("search: {lrr: [0.1, 0.2]}\n", "there is no setting 'lrr'; did you mean 'lr'"),
        ("search: {options: [1, 2]}\n", "write options.NAME"),
        ("search: {lr: [0.1]}\n", "a search needs two values or more"),
        ("search: {lr: {from: 0.1}}\n", "takes a list of values, or {from"),
        ("search: {lr: {from: 0.1, to: 0.01}}\n", "from must be below to, not 0.1 and 0.01"),
        ("search: {lr: {from: 0, to: 0.1, log: true}}\n", "from must be above 0 and below to"),
        ("search: {lr: {from: a, to: 0.1}}\n", "from and to are numbers"),
        (f"search: {{lr: {{from: 0.1, to: 7{'0' * 400}}}}}\n", "from and to are numbers"),
        ("search: {lr: {from: 0.1, to: 0.2, log: 3}}\n", "log is true or false"),
        ("search: {seed: [1, 2]}\n", "trials with different seed cannot be compared"),
        ("search: {split_seed: [1, 2]}\n", "trials with different split_seed cannot be compared"),
        ("search: {val_share: [0.1, 0.2]}\n", "trials with different val_share cannot be compared"),
        ("search: {images: [a, b]}\n", "trials with different images cannot be compared"),
        (
            "search: {train_split: [a, b]}\n",
            "different train_split cannot be compared while val_split is auto",
        ),
        (
            "settings: {folds: 5}\nsearch: {lr: [0.1, 0.2]}\n",
            "folds is 5, but a run validates on one of them",
        ),
        ("search: {augment: [mild, wild]}\n", "'wild'"),
        ("search: {batch_size: {from: 1.5, to: 8}}\n", "batch_size cannot be 1.5"),
        ("search: {batch_size: {from: 0, to: 8}}\n", "batch_size is 0"),
    ],
)
def test_refused_files(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read_search(write(tmp_path, text), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_setting_says_itself_whether_it_is_whole(tmp_path: Path) -> None:
    text = "settings: {data: d}\nsearch: {mosaic: {from: 0, to: 1}, batch_size: {from: 8.0, to: 3.2e1},"
    text += " options.width: {from: 1, to: 9}, options.rate: {from: 1, to: 9.5}}\n"
    drawn = [read_search(write(tmp_path, text)).values(number, 0) for number in range(50)]
    whole = {key: all(float(one[key]).is_integer() for one in drawn) for key in drawn[0]}
    assert whole == {"mosaic": False, "batch_size": True, "options.width": True, "options.rate": False}


@pytest.fixture
def begin(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Runs `fssd tune` with a file of that text up to its first trial, which ends it with 7."""
    pytest.importorskip("ray", reason='needs Ray: pip install "fssd[ray]"')
    words = ["--data", str(scenes), "--out", str(tmp_path / "tuned"), "--trials", "2"]
    over = Mock(side_effect=SystemExit(7))
    monkeypatch.setattr("fssd.tuning.ray_tune.search_on_ray", over)

    def run(text: str) -> int:
        try:
            return main(["tune", str(write(tmp_path, text)), *words])
        except SystemExit as ended:
            return int(str(ended.code))

    return run


PLAIN = "settings: {model: ssd300-lite, iterations: 2}\nsearch: {lr: [0.1, 0.2]}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("settings: {start: ssd, weights: none.safetensors}\nsearch: {lr: [0.1, 0.2]}\n", "none.safetensors"),
        ("search: {options.nosuch: [1, 2]}\n", "nosuch"),
        ("settings: {out: there}\nsearch: {lr: [0.1, 0.2]}\n", "leave out: away"),
    ],
)
def test_what_fails_every_trial_is_refused_before_the_first(
    text: str, says: str, begin: Callable[[str], int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert begin(text) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "tuned").exists()


def test_a_search_begins_if_one_of_its_networks_can_be_built(
    begin: Callable[[str], int], tmp_path: Path
) -> None:
    """An SSD has no merge: the first of two trials will fail, with the options that the second can have."""
    text = "settings: {iterations: 2, options: {merge: sum}}\n"
    text += "search: {model: [ssd300-lite, fssd300-lite, ssd300-lite]}\n"
    search = read_search(write(tmp_path, text), tmp_path)
    assert [search.values(number, 0)["model"] for number in (0, 1)] == ["ssd300-lite", "fssd300-lite"]
    assert begin(text) == 7


def test_results_of_something_else_are_kept(
    begin: Callable[[str], int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = tmp_path / "tuned" / "best.yaml"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert begin(PLAIN) == 2
    assert "holds a best.yaml, but no search" in capsys.readouterr().err
    assert mine.read_text() == "mine" and len(list(mine.parent.iterdir())) == 1


def test_a_search_whose_base_has_changed_is_refused(
    begin: Callable[[str], int], scenes: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As if the first trial had been trained before the change."""
    base, trial = tmp_path / "base.yaml", trial_folder(tmp_path / "tuned", 0)
    base.write_text("momentum: 0.9\n")
    text = f"base: base.yaml\n{PLAIN}"
    assert begin(text) == 7
    config = read_search(write(tmp_path, text), scenes).config(0, 0)
    trial.mkdir(parents=True)
    asked = name_splits(complete(replace(config, out=trial)))
    (trial / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(to_values(asked)))))
    assert begin(text) == 7
    base.write_text("momentum: 0.5\n")
    assert begin(text) == 2
    assert f"{trial}: was made with momentum 0.9, not 0.5" in capsys.readouterr().err


def test_ray_is_named_where_it_is_missing(
    tmp_path: Path, refuse: object, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse("ray")  # type: ignore[operator]
    assert main(["tune", str(write(tmp_path)), "--out", str(tmp_path / "out")]) == 2
    assert 'pip install "fssd[ray]"' in capsys.readouterr().err
