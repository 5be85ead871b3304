"""`fssd subset`: what it writes and says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.cli.subset import run
from fssd.errors import ConfigError
from fssd.weights.checkpoint import load_model


def test_named_classes_come_in_the_order_given(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = load_model(model_file).classes
    assert len(classes) > 2
    wanted = [classes[2], classes[0]]
    assert run([str(model_file), "--classes", *wanted, "--out", str(tmp_path / "two")]) == 0
    assert load_model(tmp_path / "two").classes == tuple(wanted)
    said = capsys.readouterr().out.splitlines()
    assert said == [*wanted, f"written: {tmp_path / 'two' / 'final.safetensors'}"]


def test_the_result_lies_beside_the_run(model_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs" / "mine" / "best.safetensors"
    file.parent.mkdir(parents=True)
    file.symlink_to(model_file)
    assert run([str(file.parent), "--classes", load_model(model_file).classes[0]]) == 0
    assert (tmp_path / "runs" / "mine-subset" / "final.safetensors").is_file()


def test_voc_and_coco_stand_for_all_their_classes(model_file: Path, tmp_path: Path) -> None:
    for table, first in (("voc", "aeroplane"), ("coco", "person")):
        with pytest.raises(ConfigError, match=f"no class '{first}'"):
            run([str(model_file), "--classes", table, "--out", str(tmp_path)])
