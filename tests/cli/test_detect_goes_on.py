"""`fssd detect` that was killed or stopped: the same command goes on, and ends with the same bytes."""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path
from subprocess import CompletedProcess

import cv2
import forks
import numpy as np
import pytest

from fssd.cli.main import main
from fssd.data.sample import Image
from fssd.inference.detections import Detections

# Ends itself when the picture of a number is drawn, so that no test depends on the clock.
PROGRAM = """
import os, sys
from fssd.cli.main import main
from fssd.inference.detections import Detections
draw, drawn = Detections.draw, []
def draw_and_end(found):
    drawn.append(found)
    if len(drawn) == int(sys.argv[2]):
        os.kill(os.getpid(), int(sys.argv[1]))
    return draw(found)
Detections.draw = draw_and_end
sys.exit(main(sys.argv[3:]))
"""
FLAGS = ("--device", "cpu", "--batch-size", "2", "--score", "0.09", "--keep", "4", "--coco", "--voc")


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Six noisy pictures, the third one no image, and a film of four frames."""
    folder = tmp_path / "shots"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (6, 60, 80, 3), np.uint8)
    for number, image in enumerate(noise):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    (folder / "2.png").write_bytes(b"no image")
    writer = cv2.VideoWriter(str(folder / "f.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (80, 60))
    for image in noise[:4]:
        writer.write(image)
    writer.release()
    return folder


def words(model: Path, out: Path, *sources: Path, flags: tuple[str, ...] = FLAGS) -> list[str]:
    return ["detect", *map(str, (model, *sources, "--out", out)), *flags]


def end(number: int, picture: int, arguments: list[str]) -> CompletedProcess[str]:
    return forks.run(PROGRAM, number, picture, *arguments, variables={"PYTHONUNBUFFERED": "1"})


def fill_disk(patch: pytest.MonkeyPatch, picture: int) -> None:
    """Let the disk be full when the picture of a number is drawn: an end without a process of its own."""
    draw, drawn = Detections.draw, [0]

    def draw_and_fill(found: Detections) -> Image:
        drawn[0] += 1
        if drawn[0] == picture:
            raise OSError(errno.ENOSPC, "No space left on device")
        return draw(found)

    patch.setattr(Detections, "draw", draw_and_fill)


def contents(out: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in out.iterdir() if path.suffix in (".json", ".txt", ".jpg")
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_same_command_goes_on(
    model_file: Path, shots: Path, tmp_path: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ended at the fourth image and again within the film, then done: as if nothing had been."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(words(model_file, whole, shots)) == 1
    assert not [path.name for path in whole.iterdir() if path.name.startswith("unfinished")]
    arguments = words(model_file, out, shots)
    code = -number if number == signal.SIGKILL else 128 + number
    assert end(number, 4, arguments).returncode == code
    again = end(number, 4, arguments)
    assert again.returncode == code
    assert f"going on with what is in {out}" in again.stderr
    assert again.stdout.count(".png: ") == 2, "three images were done, and one cannot be read"
    capsys.readouterr()
    assert main(arguments) == 1
    told = capsys.readouterr()
    assert "6 of 7 inputs done" in told.out and ".png: " not in told.out
    assert told.err.count("error: ") == 1
    assert contents(out) == contents(whole)
    names = {path.name for path in out.iterdir() if not path.name.startswith(".tmp-")}  # left by a kill
    assert names == {path.name for path in whole.iterdir()}


def test_a_film_that_is_done_is_not_done_again(
    model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, flags = tmp_path / "out", FLAGS[:-2]
    other = tmp_path / "g.avi"
    other.write_bytes((shots / "f.avi").read_bytes())
    arguments = words(model_file, out, shots / "f.avi", other, flags=flags)
    assert end(signal.SIGKILL, 6, arguments).returncode == -signal.SIGKILL
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert "f.avi: " not in told and "g.avi: " in told and "2 of 2 inputs done" in told
    assert len(json.loads((out / "g.mp4.json").read_text())) == 4


def test_another_command_starts_from_the_beginning(
    model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of two commands is mixed, also when a finished one lies in the folder."""
    out, images = tmp_path / "out", [shots / f"{number}.png" for number in (0, 1, 3, 4)]
    plain = ("--device", "cpu", "--batch-size", "2", "--no-pictures")
    assert main(words(model_file, out, *images, flags=(*plain, "--score", "0.09"))) == 0
    first = contents(out)["detections.json"]
    arguments = words(model_file, out, *images, flags=(*plain[:-1], "--score", "0.3"))
    assert end(signal.SIGKILL, 3, arguments).returncode == -signal.SIGKILL
    assert main(words(model_file, out, *images, flags=(*plain, "--score", "0.09"))) == 0
    assert "--score 0.3, not 0.09; --pictures is written over" in capsys.readouterr().err
    assert contents(out)["detections.json"] == first


def test_a_kill_between_the_two_files_of_a_detection(model_file: Path, shots: Path, tmp_path: Path) -> None:
    """One of them may have lost what the other has: such an image is detected again, and is there once."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    images = [shots / f"{number}.png" for number in (0, 1, 3, 4, 5)]
    assert main(words(model_file, whole, *images)) == 0
    arguments = words(model_file, out, *images)
    assert end(signal.SIGKILL, 5, arguments).returncode == -signal.SIGKILL
    rows, exact = out / "detections.jsonl", out / "unfinished.jsonl"
    assert len(rows.read_bytes().splitlines()) > 2
    exact.write_bytes(b"".join(exact.read_bytes().splitlines(keepends=True)[1:2]))
    assert main(arguments) == 0
    names = [row["image"] for row in json.loads((out / "detections.json").read_bytes())]
    assert sorted(names) == [str(image) for image in images]
    of_coco = [json.loads((folder / "coco.json").read_bytes()) for folder in (out, whole)]
    assert sorted(map(str, of_coco[0])) == sorted(map(str, of_coco[1]))


@pytest.mark.parametrize(("name", "pictures"), [("x.png", 2), ("x.avi", 6)])
def test_what_was_added_in_between(
    model_file: Path, shots: Path, tmp_path: Path, name: str, pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new input that would have had the name of a finished one gets another, and is detected."""
    source = shots / ("0.png" if name == "x.png" else "f.avi")
    folder, out = tmp_path / "in", tmp_path / "out"
    for place in ("b", "c"):
        (folder / place).mkdir(parents=True)
        (folder / place / name).write_bytes(source.read_bytes())
    arguments = words(model_file, out, folder, flags=("--device", "cpu", "--batch-size", "1"))
    with monkeypatch.context() as patch:
        fill_disk(patch, pictures)
        assert main(arguments) == 2
    (folder / "a").mkdir()
    (folder / "a" / name).write_bytes(source.read_bytes())
    assert main(arguments) == 0
    if name == "x.png":
        rows = json.loads((out / "detections.json").read_bytes())
        found = {row["image"]: row["picture"] for row in rows}
        expected = {"b": "x.jpg", "c": "x-2.jpg", "a": "x-3.jpg"}
        assert found == {str(folder / place / name): picture for place, picture in expected.items()}
        return
    for place, film in {"b": "x.mp4", "c": "x-2.mp4", "a": "x-3.mp4"}.items():
        rows = json.loads((out / f"{film}.json").read_bytes())
        assert {row["image"].rpartition("#")[0] for row in rows} == {str(folder / place / name)}


@pytest.mark.parametrize("flags", [FLAGS, FLAGS[:-2]])
def test_what_was_changed_or_removed_in_between(
    model_file: Path,
    shots: Path,
    tmp_path: Path,
    flags: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    (shots / "2.png").unlink()
    (shots / "f.avi").unlink()
    with monkeypatch.context() as patch:
        fill_disk(patch, 4)
        assert main(words(model_file, out, shots, flags=flags)) == 2
    (shots / "0.png").write_bytes((shots / "5.png").read_bytes())
    (shots / "1.png").unlink()
    capsys.readouterr()
    assert main(words(model_file, out, shots, flags=flags)) == 0
    told = capsys.readouterr()
    assert f"going on with what is in {out}; 2 inputs changed or gone since" in told.err
    assert "3.png: " not in told.out and "0.png: " in told.out
    assert main(words(model_file, whole, shots, flags=flags)) == 0
    rows = [json.loads((folder / "detections.json").read_text()) for folder in (out, whole)]
    assert sorted(rows[0], key=str) == sorted(rows[1], key=str)


def test_results_below_the_source_are_no_inputs(
    model_file: Path, shots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`fssd detect MODEL .`, whose results are in `found`, ended and gone on with, then once more."""
    for name in ("2.png", "4.png", "5.png", "f.avi"):
        (shots / name).unlink()
    monkeypatch.chdir(shots)
    arguments = ["detect", str(model_file), ".", "--device", "cpu", "--batch-size", "1"]
    with monkeypatch.context() as patch:
        fill_disk(patch, 2)
        assert main(arguments) == 2
    for files in (3, 4):  # 0.jpg, detections.json, unfinished.json; three pictures and the json
        capsys.readouterr()
        assert main(arguments) == 0
        told = capsys.readouterr()
        assert f"passed over: {files} in found" in told.err and "3 of 3 inputs done" in told.out


def test_a_source_that_is_spelled_otherwise_starts_from_the_beginning(
    model_file: Path,
    shots: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each image is there once; `./` before a source changes no name, so that it is no other spelling."""
    monkeypatch.chdir(tmp_path)
    for name in ("2.png", "4.png", "5.png", "f.avi"):
        (shots / name).unlink()
    out, flags = tmp_path / "out", ("--device", "cpu", "--batch-size", "1")
    for source in ("shots", "./shots/"):
        with monkeypatch.context() as patch:
            fill_disk(patch, 2)
            assert main(["detect", str(model_file), source, "--out", str(out), *flags]) == 2
    told = capsys.readouterr().err
    assert "going on" in told and "written over" not in told
    assert main(words(model_file, out, shots, flags=flags)) == 0
    assert f"the source shots in {tmp_path}, not {shots} is written over" in capsys.readouterr().err
    names = [row["image"] for row in json.loads((out / "detections.json").read_bytes())]
    assert names == [str(shots / f"{number}.png") for number in (0, 1, 3)]
