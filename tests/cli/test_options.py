"""What verbs share: flags without the name of their group, bounds, and what replaces what in `fssd train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from fssd.cli import train
from fssd.cli.options import FLAT, Iou, Loading, Measuring, Share, ThresholdFlags, parse
from fssd.config.bounds import Count
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.training import loop


@dataclass(frozen=True)
class Look:
    """A verb."""

    iou: Iou = 0.5
    thresholds: Annotated[ThresholdFlags, FLAT] = ThresholdFlags(score=0.3)
    loading: Annotated[Loading, FLAT] = Loading()
    measuring: Annotated[Measuring, FLAT] = Measuring()
    threads: Count | None = None
    loss: Share | None = None


def test_flags_do_not_name_their_group() -> None:
    look = parse(Look, ["--nms", "0.6", "--top-k", "9", "--batch-size", "2", "--split", "none"])
    assert look.thresholds == ThresholdFlags(score=0.3, nms=0.6, top_k=9, keep=None)
    assert look.thresholds.given() == {"score": 0.3, "nms": 0.6, "top_k": 9}
    assert (look.loading, look.measuring.split) == (Loading(batch_size=2), "none")


def test_every_threshold_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Look, ["--help"])
    score = " ".join(capsys.readouterr().out.split("--score")[1].split("--nms")[0].replace("│", "").split())
    assert "Keep detections that score more than this. None is what SSD evaluates with" in score


@pytest.mark.parametrize(
    ("flag", "bad", "good", "needs"),
    [
        ("score", ["-0.1", "1.1", "nan"], ["0", "1"], "between 0 and 1"),
        ("nms", ["1.5"], ["1"], "between 0 and 1"),
        ("iou", ["2"], ["0.75"], "between 0 and 1"),
        ("top-k", ["0"], ["1"], "1 or more"),
        ("keep", ["-3"], ["1"], "1 or more"),
        ("batch-size", ["0"], ["1"], "1 or more"),
        ("workers", ["-1"], ["0"], "0 or more"),
        ("bad-share", ["1.0"], ["0.99"], "0 or more and below 1"),
        ("threads", ["0"], ["1", "None"], "1 or more"),
        ("loss", ["7"], ["1", "None"], "between 0 and 1"),
    ],
)
def test_numbers_out_of_bounds_are_named(flag: str, bad: list[str], good: list[str], needs: str) -> None:
    name = flag.replace("-", "_")
    for value in bad:
        with pytest.raises(ConfigError, match=rf"^{name} is {value}.*; it must be {needs}$"):
            parse(Look, [f"--{flag}", value])
    for value in good:
        parse(Look, [f"--{flag}", value])


# ---- fssd train: the command line over a file

FILE = "{epochs: 20, schedule: multistep, steps: [5, 7], weights: w.pth, options: {merge: sum, norm: none}}"


def trained_with(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> TrainConfig:
    """The settings that a command line hands to the training."""
    seen: list[TrainConfig] = []

    def note(config: TrainConfig, **_: object) -> loop.Result:
        seen.append(config)
        return loop.Result(folder, None, None, finished=True)

    monkeypatch.setattr(loop, "train", note)
    (folder / "own.yaml").write_text(FILE)
    train.run(["--config", str(folder / "own.yaml"), *arguments])
    return seen[0]


def test_the_command_line_replaces_what_it_excludes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = trained_with(monkeypatch, tmp_path)
    assert (config.epochs, config.iterations, config.steps) == (20, None, (5, 7))
    config = trained_with(
        monkeypatch, tmp_path, "--iterations=9", "--schedule", "cosine", "--start", "nothing"
    )
    assert (config.epochs, config.iterations) == (None, 9)
    assert (config.schedule, config.steps) == ("cosine", ())
    assert (config.start, config.weights) == ("nothing", None)


def test_set_null_takes_an_option_of_the_file_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = trained_with(monkeypatch, tmp_path, "--set", "merge=null", "priors=voc")
    assert config.options == {"norm": "none", "priors": "voc"}


@pytest.mark.parametrize(
    "flags",
    [
        ["--epochs", "20", "--iterations", "9"],  # as many epochs as the file has
        ["--steps", "5", "7", "--schedule", "constant"],
        ["--start", "nothing", "--weights", "w.pth"],
    ],
)
def test_both_on_the_command_line_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"--epochs or --iterations|--steps or --schedule|--start nothing"):
        trained_with(monkeypatch, tmp_path, *flags)
