"""`fssd detect --engine local`: one row for each input, whatever ends the process and however often."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import forks
import numpy as np
import pytest

from fssd.parts import part_plan

Detect = Callable[..., int]
Words = Callable[..., list[str]]
ReadParts = Callable[[Path], list[dict[str, Any]]]
AsJson = Callable[[dict[str, Any]], list[dict[str, Any]]]

# Ends itself when it is about to name its third part, so that no test depends on the clock.
PROGRAM = """
import os, pathlib, signal, sys
replace, named = pathlib.Path.replace, []
def third(file, target):
    if file.parent.name == "parts":
        named.append(file)
        if len(named) == 3:
            os.kill(os.getpid(), int(sys.argv[1]))
    return replace(file, target)
pathlib.Path.replace = third
from fssd.cli.main import main
sys.exit(main(sys.argv[2:]))
"""
LOCAL = ("--engine", "local", "--part", "8")


def test_the_same_as_plain_detect(
    detect: Detect,
    shots: Path,
    expected: dict[str, Any],
    read_parts: ReadParts,
    as_json: AsJson,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert detect(shots, "--out", out, *LOCAL) == 0
    rows = read_parts(out)
    assert [row["image"] for row in rows] == sorted(map(str, shots.iterdir()))
    assert {Path(row["image"]).name: as_json(row) for row in rows} == expected
    assert {(row["width"], row["height"], row["error"]) for row in rows} == {(32, 24, None)}
    assert {one["frame"] for row in rows for one in row["objects"]} == {None}
    assert json.loads((out / "_SUCCESS").read_text()) == {"rows": 96, "errors": 0, "parts": 12}
    assert {path.name for path in out.iterdir()} == {"plan.parquet", "plan.json", "parts", "_SUCCESS"}
    before = [(file, file.stat().st_mtime_ns) for file in sorted(out.rglob("*"))]
    assert detect(shots, "--out", out, *LOCAL) == 0
    assert "96 rows, results in" in capsys.readouterr().out
    assert [(file, file.stat().st_mtime_ns) for file in sorted(out.rglob("*"))] == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_going_on_after_a_signal(
    words: Words,
    detect: Detect,
    shots: Path,
    expected: dict[str, Any],
    read_parts: ReadParts,
    as_json: AsJson,
    tmp_path: Path,
    number: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    ended = forks.run(PROGRAM, number, *words(shots, "--out", out, *LOCAL))
    assert ended.returncode == (-number if number == signal.SIGKILL else 128 + number), ended.stderr
    if number == signal.SIGTERM:
        assert ended.stderr == "stopped; the same command goes on\n"
    assert len(read_parts(out)) == 16
    assert not (out / "_SUCCESS").exists()
    assert detect(shots, "--out", out, *LOCAL) == 0
    told = capsys.readouterr().out
    assert "going on: 2 of 12 parts are done" in told
    assert told.count(" 8 rows (") == 10, "no part is computed that was there"
    rows = read_parts(out)
    assert len(rows) == 96
    assert {Path(row["image"]).name: as_json(row) for row in rows} == expected
    assert not list((out / "parts").glob(".tmp-*"))


def test_the_plan_is_frozen(
    detect: Detect, shots: Path, read_parts: ReadParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that come later are of another detection, those that go are errors, and folders may change."""
    folder, out = tmp_path / "few", tmp_path / "out"
    folder.mkdir()
    for name in ("000.png", "001.png", "002.png"):
        (folder / name).write_bytes((shots / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert detect("few", "--out", out, "--engine", "local", "--part", "2") == 0
    for file in ("_SUCCESS", "parts/part-000001.parquet"):
        (out / file).unlink()
    (folder / "001a.png").write_bytes((shots / "003.png").read_bytes())
    (folder / "002.png").unlink()
    monkeypatch.chdir(folder)
    assert detect(tmp_path / "few", "--out", out, "--engine", "local", "--part", "2") == 1
    rows = read_parts(out)
    assert [row["image"] for row in rows] == ["few/000.png", "few/001.png", "few/002.png"]
    assert [row["error"] is None for row in rows] == [True, True, False]
    assert "missing" in rows[2]["error"] and rows[2]["objects"] == [] and rows[2]["width"] is None


def test_every_input_has_a_row(
    detect: Detect, shots: Path, read_parts: ReadParts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "mixed", tmp_path / "out"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes((shots / f"00{number}.png").read_bytes())
    (folder / "1.png").write_bytes(b"")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "bad.avi").write_bytes(b"no film")
    (folder / "notes.md").touch()
    odd = os.fsencode(folder) + b"/stra\xdfe.png"
    Path(os.fsdecode(odd)).write_bytes((shots / "000.png").read_bytes())
    assert detect(folder, "--out", out, "--engine", "local", "--part", "3") == 1
    rows = {Path(row["image"]).name: row for row in read_parts(out)}
    names = ["0.png", "1.png", "2.png", "3.png", "4.png", "bad.avi#0-", "gone.jpg", r"stra\udcdfe.png"]
    assert sorted(rows) == names
    faulty = {name for name, row in rows.items() if row["error"]}
    assert faulty == {"1.png", "3.png", "bad.avi#0-", "gone.jpg"}
    assert rows[r"stra\udcdfe.png"]["objects"] == rows["0.png"]["objects"] != []
    told = capsys.readouterr()
    assert "8 rows, 4 with an error" in told.out
    assert "passed over: 1 .md" in told.err
    assert json.loads((out / "_SUCCESS").read_text())["errors"] == 4


def test_stretches_of_a_film(
    detect: Detect, read_parts: ReadParts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten frames in stretches of four, also when the one in the middle is computed alone."""
    film, out = tmp_path / "a.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 25, (32, 24))
    for image in np.random.default_rng(0).integers(0, 255, (10, 24, 32, 3), np.uint8):
        writer.write(image)
    writer.release()
    assert detect(film, "--out", tmp_path / "plain", "--no-pictures") == 0
    plain = json.loads((tmp_path / "plain" / "a.mp4.json").read_text())
    monkeypatch.setattr(part_plan, "STRETCH", 4)
    assert detect(film, "--out", out, "--engine", "local", "--part", "4") == 0
    rows = read_parts(out)
    assert [row["image"] for row in rows] == [f"{film}#{frames}" for frames in ("0-3", "4-7", "8-")]
    found: dict[int, int] = {}
    for row in rows:
        for one in row["objects"]:
            found[one["frame"]] = found.get(one["frame"], 0) + 1
    assert found == {number: len(frame["objects"]) for number, frame in enumerate(plain)}
    for file in ("_SUCCESS", "parts/part-000001.parquet"):
        (out / file).unlink()
    assert detect(film, "--out", out, "--engine", "local", "--part", "4") == 0
    assert read_parts(out) == rows


def test_results_of_other_settings_are_refused(
    detect: Detect,
    words: Words,
    shots: Path,
    other_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fssd.cli.main import main

    out, image = tmp_path / "out", shots / "000.png"
    assert detect(image, "--out", out, *LOCAL) == 0
    given = words(image, "--out", out, *LOCAL)
    for changed, told in (
        ([*given, "--score", "0.5"], "--score 0.05, not 0.5"),
        ([*given, "--scales", "256"], "no --scales; choose"),
        ([*given, "--part", "9"], "--part 8, not 9"),
        ([given[0], str(other_model), *given[2:]], "the model of SHA-256 "),
        ([*given[:2], str(shots / "001.png"), *given[3:]], f"the source {image}, not {shots / '001.png'}"),
    ):
        capsys.readouterr()
        assert main(changed) == 2
        error = capsys.readouterr().err
        assert told in error and "choose another --out" in error and error.count("\n") == 1
    (out / "plan.json").unlink()
    assert detect(image, "--out", out, *LOCAL) == 2
    assert "holds parts but no plan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--part", "5"), "--part is for --engine"),
        (("--actors", "5"), "--actors is for --engine"),
        (("--engine", "local", "--actors", "5"), "--actors is for --engine ray"),
        (("--engine", "local", "--coco"), "--voc and --coco are not written with --engine"),
        (("--engine", "local", "--part", "0"), "1 or more"),
        (("--out", "s3://bucket/out"), "only --engine local or ray writes there"),
    ],
)
def test_flags_without_an_effect(
    detect: Detect, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: Any, told: str
) -> None:
    assert detect(shots, "--out", tmp_path / "out", *flags) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [("--classes", "dgo"), ("--class-scores", "dog=2"), ("--tiles", "²")])
@pytest.mark.parametrize("engine", [(), LOCAL])
def test_settings_that_cannot_be_leave_results_as_they_are(
    detect: Detect, shots: Path, tmp_path: Path, engine: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    assert detect(shots / "000.png", "--out", out, *engine, *flags) == 2
    assert not list(out.glob("**/*.*"))
    if not engine:
        assert detect(shots / "000.png", "--out", out) == 0
        before = {file.name: file.read_bytes() for file in out.iterdir()}
        assert detect(shots / "000.png", "--out", out, *flags) == 2
        assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_list_is_not_overwritten_by_the_plan(
    detect: Detect, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    source = tmp_path / "plan.parquet"
    write_table(pa.table({"image": [str(shots / "000.png")], "mine": [1]}), source)
    before = source.read_bytes()
    assert detect(source, "--out", tmp_path, *LOCAL) == 2
    assert f"{source}: is a source and would become the plan" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_part_that_is_damaged_is_named(
    detect: Detect, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    image = shots / "000.png"
    assert detect(image, "--out", out, *LOCAL) == 0
    (out / "_SUCCESS").unlink()
    part = out / "parts" / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    assert detect(image, "--out", out, *LOCAL) == 2
    assert f"{part}: is no whole parquet file" in capsys.readouterr().err
    for _ in range(2):  # before and after _SUCCESS is there
        part.unlink()
        assert detect(image, "--out", out, *LOCAL) == 0
        assert part.is_file() and (out / "_SUCCESS").is_file()


@pytest.mark.parametrize("in_store", [False, True])
def test_shards(
    detect: Detect,
    scenes: Path,
    read_parts: ReadParts,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    in_store: bool,
) -> None:
    """Images in shards, also of two splits, have the results of the files that they were made of."""
    from fssd.cli.main import main

    shards = f"{request.getfixturevalue('s3')}/shards" if in_store else str(tmp_path / "shards")
    assert main(["shard", str(scenes), shards]) == 0
    assert detect(shards, "--out", tmp_path / "out", *LOCAL) == 0
    assert detect(scenes / "JPEGImages", "--out", tmp_path / "plain", *LOCAL) == 0
    packed, plain = read_parts(tmp_path / "out"), read_parts(tmp_path / "plain")
    assert len(packed) == 16 and all(row["image"].startswith(shards) for row in packed)
    named = {Path(row.pop("image")).name: row for row in packed}
    assert named == {Path(row.pop("image")).name: row for row in plain}


def test_parts_are_measured_like_any_results(
    detect: Detect, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `eval` reads is what plain detect writes, but not rounded; an unreadable image is told."""
    from fssd.data.source import open_data
    from fssd.errors import DataError
    from fssd.evaluation.detection_files import is_detection_file, read_detections

    out, images = tmp_path / "out", tmp_path / "images"
    images.mkdir()
    for file in (scenes / "JPEGImages").iterdir():
        (images / file.name).symlink_to(file)
    (images / "other.jpg").write_bytes(b"no image")
    dataset = open_data(scenes, "val")
    assert detect(images, "--out", tmp_path / "plain", "--no-pictures") == 1
    assert detect(images, "--out", out, *LOCAL) == 1
    assert is_detection_file(out)
    theirs = read_detections(out, dataset)
    plain = read_detections(tmp_path / "plain" / "detections.json", dataset)
    assert theirs.form == "the parts of `fssd detect`"
    assert "left out: 1 image that could not be read, see the column `error`" in theirs.notes
    assert sum(map(len, theirs.detections)) == 4 * 3
    for one, other in zip(theirs.detections, plain.detections, strict=True):
        assert one.names == other.names
        np.testing.assert_allclose(one.boxes, other.boxes, atol=0.0051)
        np.testing.assert_allclose(one.scores, other.scores, atol=0.0000051)
    (out / "_SUCCESS").unlink()
    with pytest.raises(DataError, match="is not finished; run `fssd detect` again"):
        read_detections(out, dataset)
