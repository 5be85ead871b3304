"""The card of a model: what its table says, the header that hubs read, and the author's own words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import nn

from fssd.cli.main import main
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError
from fssd.export.shared_model import write_shared_model
from fssd.training.loop import train
from fssd.weights.checkpoint import load_model
from fssd.weights.model_card import OWN_WORDS, model_card, write_card

FACTS: dict[str, Any] = {
    "model": "fssd300-lite",
    "classes": ["cat", "a|b", "owl"],
    "iteration": 1200,
    "config": {"model": "fssd300-lite", "licence": "mit", "seed": 3, "data": "/home/me/zoo"},
    "data": {
        "name": "zoo",
        "format": "coco",
        "train": {"split": "train", "images": 1500, "objects": {"cat": 2000, "a|b": 7, "owl": 0}},
        "val": {"split": "val", "images": 30, "objects": {"cat": 40, "a|b": 0, "owl": 1}},
    },
    "metrics": {
        "metric": "voc12",
        "map": 0.61239,
        "classes": {"cat": 0.8, "a|b": None, "owl": 0.42478},
        "sizes": {"small": 0.125, "large": None},
        "images": 30,
    },
    "class_scores": {"cat": 0.25, "owl": 0.5},
}


def card(**changes: Any) -> str:
    return model_card({**FACTS, **changes}, (300, 200), 12345, "runs/zoo", thresholds={"score": 0.01})


def test_the_header_is_what_hubs_read() -> None:
    header = yaml.safe_load(card().split("---")[1])
    assert header == {
        "license": "mit",
        "library_name": "fssd",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "fssd", "fssd300-lite"],
        "model-index": [
            {
                "name": "zoo",
                "results": [
                    {
                        "task": {"type": "object-detection"},
                        "dataset": {"type": "zoo", "name": "zoo"},
                        "metrics": [
                            {"type": "mean_average_precision", "value": 0.6124, "name": "mAP (voc12)"}
                        ],
                    }
                ],
            }
        ],
    }


def test_data_metrics_thresholds_and_settings() -> None:
    text = card()
    for row in (
        "| network | `fssd300-lite`, 12,345 parameters |",
        "| data set | zoo (coco) |",
        "| trained on | train: 1,500 images, 2,007 objects |",
        "| evaluated on | val: 30 images, 41 objects |",
        "| mAP (voc12) | 0.6124 on 30 images |",
        "| thresholds of evaluation | score 0.01 |",
        "| licence | mit |",
        "| class | training objects | validation objects | AP in percent | kept score |",
        "| cat | 2,000 | 40 | 80.0 | 0.250 |",
        "| a\\|b | 7 | 0 | - | - |",
        "| owl | 0 | 1 | 42.5 | 0.500 |",
        "| AP in percent | 12.5 | - |",
        "fssd detect runs/zoo photo.jpg",
        "```yaml\nmodel: fssd300-lite\nlicence: mit\nseed: 3\n```",
    ):
        assert row in text, row
    assert "/home/me" not in text, "no folder of this machine"


def test_a_model_that_tells_little_has_a_card_too() -> None:
    text = model_card({"model": "ssd300-lite", "classes": ["x"]}, (300, 300), 9, "hf://me/x")
    assert set(yaml.safe_load(text.split("---")[1])) == {"library_name", "pipeline_tag", "tags"}
    assert "## Classes" not in text and "| licence | not stated |" in text


def test_names_are_text_and_no_markup() -> None:
    classes = ["<script>alert(1)</script>", "*star*", "_a_b_", "[x](y)", "&lt;"]
    text = model_card({"model": "ssd300-lite", "classes": classes}, (300, 300), 9, 'runs/it\'s "my" *run*')
    assert (
        r"| classes | \<script>alert(1)\</script>, \*star\*, \_a_b\_, \[x](y), \&lt; |" in text.splitlines()
    )
    assert """# it's "my" \\*run\\*""" in text.splitlines()
    assert """fssd detect 'runs/it'"'"'s "my" *run*' photo.jpg""" in text.splitlines()
    assert """found = fssd.Detector.load("runs/it's \\"my\\" *run*")("photo.jpg")""" in text.splitlines()


@pytest.mark.parametrize("licence", ["Apache 2.0", "MIT", "", "mit\n"])
def test_what_is_no_licence(licence: str, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(model_file), "hf://me/x", "--licence", licence]) == 2
    assert "is no identifier; write it as hubs do: apache-2.0" in capsys.readouterr().err


def test_words_of_the_author_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    arguments: Any = FACTS, (300, 300), 9, "runs/zoo"
    write_card(file, *arguments, before=file)
    first = file.read_text()
    assert first.endswith(OWN_WORDS + "\n")
    file.write_text(first + "\n## Limits\nNo owls at night.\n")
    write_card(file, FACTS | {"iteration": 7}, *arguments[1:], before=file)
    assert file.read_text().endswith("\n\n## Limits\nNo owls at night.\n")
    assert "| updates of the training | 7 |" in file.read_text()


def test_a_readme_that_is_no_card_is_kept(tmp_path: Path) -> None:
    """As in `fssd train --out .` in the folder of a project."""
    file = tmp_path / "README.md"
    file.write_text("# My project\nOwls.\n")
    arguments: Any = FACTS, (300, 300), 9, "runs/zoo"
    for _ in range(2):
        write_card(file, *arguments, before=file)
        assert file.read_text().endswith(f"{OWN_WORDS}\n# My project\nOwls.\n")


def test_a_run_and_what_is_pushed_of_it_have_one_card(
    scenes: Path, tmp_path: Path, tiny_backbone: Callable[[], nn.Module]
) -> None:
    out = tmp_path / "digits"
    config = TrainConfig(
        data=scenes, out=out, start="nothing", iterations=1, batch_size=2, workers=0, amp="off",
        licence="cc0-1.0", val_split="val",
    )  # fmt: skip
    train(config, backbone=tiny_backbone())
    card = out / "README.md"
    facts = load_model(out, tiny_backbone()).facts
    objects = sum(facts["data"]["train"]["objects"].values())
    xml = [file.read_text().count("<object>") for file in (scenes / "Annotations").iterdir()]
    assert objects + sum(facts["data"]["val"]["objects"].values()) == sum(xml)
    assert f"| trained on | train: 12 images, {objects} objects |" in card.read_text()
    assert facts["data"]["name"] == scenes.name
    with pytest.raises(ConfigError, match="licence 'My own' is no identifier"):
        train(TrainConfig(data=scenes, out=tmp_path / "other", licence="My own"))


def test_pushing_keeps_the_words_and_the_licence_of_the_run(model_file: Path, tmp_path: Path) -> None:
    run, shelf = tmp_path / "run", tmp_path / "shelf"
    run.mkdir()
    shelf.mkdir()
    (run / "best.safetensors").write_bytes(model_file.read_bytes())
    (run / "config.yaml").write_text("epochs: 3\n")
    (run / "README.md").write_text(f"old{OWN_WORDS}\nMine.\n")
    written = write_shared_model(run, shelf, address="hf://me/digits", licence="mit")
    assert written.licence == "mit"
    text = (shelf / "README.md").read_text()
    assert text.endswith(f"{OWN_WORDS}\nMine.\n") and text.startswith("---\nlicense: mit\n")


def test_pushing_names_a_damaged_configuration_of_the_run(model_file: Path, tmp_path: Path) -> None:
    run, shelf = tmp_path / "run", tmp_path / "shelf"
    for folder in (run, shelf):
        folder.mkdir()
    (run / "best.safetensors").write_bytes(model_file.read_bytes())
    (run / "config.yaml").write_text("lr: [")
    with pytest.raises(ConfigError, match=r"run/config\.yaml \(line 1\): is not valid YAML"):
        write_shared_model(run, shelf, address="hf://me/digits")
    (run / "config.yaml").write_text("")
    assert "config.yaml" in write_shared_model(run, shelf, address="hf://me/digits").files
