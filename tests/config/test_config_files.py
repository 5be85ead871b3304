"""Configurations in files, and those of the package by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.config.config_files import load_config
from fssd.config.train_config import TrainConfig
from fssd.errors import ConfigError


def test_unknown_key_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("batch_size: 8\nbatchs: 9\n")
    with pytest.raises(ConfigError, match=r"run\.yaml.*'batchs'"):
        load_config(file)


def test_file_goes_over_the_base(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("lr: 1e-3\nsteps: [10, 20]\noptions: {priors: voc}\n")
    config = load_config(file, TrainConfig(seed=3, lr=0.5))
    assert config == TrainConfig(seed=3, lr=1e-3, steps=(10, 20), options={"priors": "voc"})


def test_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    assert load_config(file, TrainConfig(seed=3)) == TrainConfig(seed=3)


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [1", "7", "!!python/object/apply:os.getcwd []"])
def test_files_that_are_no_configuration(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(file)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00lr")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        load_config(binary)


def test_packaged_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("photographs")).batch_size == 16
    assert load_config(Path("fssd300-voc0712")).model == "fssd300-vgg16"
    (tmp_path / "own.yaml").write_text("base: photographs\niterations: 50\n")
    own = load_config(Path("own.yaml"))
    assert (own.batch_size, own.iterations, own.epochs) == (16, 50, None)
    (tmp_path / "photographs").write_text("batch_size: 3\n")
    assert load_config(Path("photographs")).batch_size == 3  # a file comes first


def test_an_unknown_name_of_a_configuration_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"photgraphs: there is no such file.*did you mean 'photographs'"):
        load_config(Path("photgraphs"))
    (tmp_path / "own.yaml").write_text("base: fssd300-voc712\n")
    with pytest.raises(ConfigError, match="did you mean 'fssd300-voc0712'"):
        load_config(tmp_path / "own.yaml")
