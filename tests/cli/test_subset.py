"""`fssd subset`: what it writes and says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fssd.cli.subset import run
from fssd.errors import ConfigError
from fssd.weights.checkpoint import load_model, save_model, write_facts


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


def test_what_an_evaluation_keeps_in_a_model_makes_no_other_model_of_it(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tiles go into the subset, thresholds do not."""
    own = tmp_path / "mine" / "best.safetensors"
    own.parent.mkdir()
    shutil.copy(model_file, own)
    name = load_model(own).classes[0]
    assert run([str(own), "--classes", name]) == 0
    assert "thresholds" not in capsys.readouterr().err
    write_facts(own, {"tiles": {"side": 200}, "class_scores": {name: 0.4}})
    assert run([str(own), "--classes", name]) == 0
    assert f"the thresholds of {own} are left out; choose them for these classes" in capsys.readouterr().err
    facts = load_model(tmp_path / "mine-subset").facts
    assert facts["tiles"] == {"side": 200} and "class_scores" not in facts


def placed(model_file: Path, place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(model_file)
    return place


def subset(model: Path | str, model_file: Path, *more: str) -> Path:
    """Where a subset without --out was written."""
    with pytest.MonkeyPatch.context() as patch:
        told: dict[str, object] = {}
        patch.setattr("fssd.cli.subset.add_result", lambda **facts: told.update(facts))
        assert run([str(model), "--classes", load_model(model_file).classes[0], *more]) == 0
    return Path(str(told["file"])).parent


def test_each_file_of_a_folder_has_a_result_of_its_own(model_file: Path, tmp_path: Path) -> None:
    for name in ("dayshift", "nightshift"):
        file = placed(model_file, tmp_path / "m" / f"{name}.safetensors")
        assert subset(file, model_file) == tmp_path / f"m-{name}-subset"


def test_models_by_name_leave_their_result_in_the_current_folder(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not beside the cache of published weights, nor in that of the hub."""
    monkeypatch.setenv("FSSD_WEIGHTS", str(tmp_path / "weights"))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    published = placed(model_file, tmp_path / "weights" / "ssd300-coco.safetensors")
    snapshot = placed(model_file, tmp_path / "hub" / "snapshots" / "0a1b" / "best.safetensors")
    monkeypatch.setattr("fssd.zoo.models.find_published", lambda *_, **__: published)
    monkeypatch.setattr("fssd.zoo.models.hub_file", lambda _: snapshot)
    assert subset("ssd300-coco", model_file) == Path("ssd300-coco-subset")
    assert subset("hf://user/birds", model_file) == Path("birds-subset")
    assert {path.name for path in here.iterdir()} == {"ssd300-coco-subset", "birds-subset"}
    assert not list((tmp_path / "hub").rglob("*-subset"))


def test_a_subset_of_another_model_is_replaced_only_when_named(model_file: Path, tmp_path: Path) -> None:
    file = placed(model_file, tmp_path / "m" / "best.safetensors")
    out = subset(file, model_file)
    written = (out / "final.safetensors").read_bytes()
    assert subset(file, model_file) == out, "the same again"
    network, classes, _ = load_model(model_file)
    file.unlink()
    save_model(file, network.state_dict(), network, classes, {"iteration": 0, "seed": 5})
    with pytest.raises(ConfigError, match="holds a subset of another model; name a folder with --out"):
        subset(file, model_file)
    assert (out / "final.safetensors").read_bytes() == written
    assert subset(file, model_file, "--out", str(out)) == out
    assert load_model(out).facts["seed"] == 5


def test_voc_and_coco_stand_for_all_their_classes(model_file: Path, tmp_path: Path) -> None:
    for table, first in (("voc", "aeroplane"), ("coco", "person")):
        with pytest.raises(ConfigError, match=f"no class '{first}'"):
            run([str(model_file), "--classes", table, "--out", str(tmp_path)])
