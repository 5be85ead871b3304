"""`fssd detect`: one bad output leaves the others, and whatever ends the run, what is done is kept."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import forks
import numpy as np
import pytest
from PIL import Image as Pillow

from fssd.cli.main import main
from fssd.errors import ImageError
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector

GOOD, FINDING, BAD_INPUT = 0, 1, 2


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """A folder with six noisy pictures, 0.png to 5.png."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for number, image in enumerate(np.random.default_rng(0).integers(0, 255, (6, 60, 80, 3), np.uint8)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    return folder


def film(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (80, 60))
    for image in np.random.default_rng(0).integers(0, 255, (frames, 60, 80, 3), np.uint8):
        writer.write(image)
    writer.release()
    return path


def detect(model: Path, out: Path, *more: object) -> int:
    arguments = ("detect", model, *more, "--out", out, "--device", "cpu", "--batch-size", 2)
    return main([str(argument) for argument in arguments])


def rows(file: Path) -> list[dict[str, Any]]:
    return list(json.loads(file.read_text(encoding="utf-8")))


def test_the_json_names_the_pictures(model_file: Path, shots: Path, tmp_path: Path) -> None:
    (shots / "other").mkdir()
    (shots / "0.png").rename(shots / "other" / "1.png")
    out = tmp_path / "out"
    assert detect(model_file, out, shots, film(tmp_path / "a.avi", 2)) == GOOD
    pairs = {row["image"]: row["picture"] for row in rows(out / "detections.json")}
    assert pairs[str(shots / "1.png")] == "1.jpg"
    assert pairs[str(shots / "other" / "1.png")] == "1-2.jpg"
    assert all((out / name).is_file() for name in pairs.values())
    assert [row["picture"] for row in rows(out / "a.mp4.json")] == ["a.mp4", "a.mp4"]
    assert detect(model_file, out, shots, "--no-pictures") == GOOD
    assert {row["picture"] for row in rows(out / "detections.json")} == {None}


def test_of_several_pictures_in_a_file_the_first_is_looked_at_and_a_line_says_so(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = (Pillow.new("RGB", (64, 48), (tone, 0, 0)) for tone in (10, 90, 170))
    names = ("a.gif", "b.webp", "c.png", "d.tif")
    for name in names:
        first.save(tmp_path / name, save_all=True, append_images=others)
    first.save(tmp_path / "e.png")
    first.save(tmp_path / "f.jpg", "MPO", save_all=True, append_images=others)
    assert detect(model_file, tmp_path / "out", tmp_path) == GOOD
    told = capsys.readouterr()
    expected = [f"{tmp_path / name}: the first of 3 pictures" for name in names]
    assert [line for line in told.err.splitlines() if "the first of" in line] == expected
    assert "6 of 6 inputs done" in told.out


def test_a_picture_that_cannot_be_written_is_an_error_of_that_image(
    model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "1.jpg").mkdir(parents=True)
    cv2.imwrite(str(shots / "wide.png"), np.zeros((2, 65_600, 3), np.uint8))
    long = f"{'n' * 250}.png"  # 254 bytes with .png, 255 with .jpeg; the film's json would need 259
    (shots / "3.png").rename(shots / long)
    film(shots / f"{'f' * 250}.avi", 2)
    assert detect(model_file, out, shots, "--voc", "--coco") == FINDING
    told = capsys.readouterr()
    assert "5 of 8 inputs done" in told.out
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert f"{out / '1.jpg'}: is a folder; " in errors[0]
    assert f"{out / 'wide.jpg'}: cannot be written: JPEG holds 65500 pixels a side" in errors[1]
    assert "ffff.mp4.json" in errors[2] and "File name too long" in errors[2]
    pictures = {Path(row["image"]).name: row["picture"] for row in rows(out / "detections.json")}
    assert (pictures["1.png"], pictures["wide.png"], pictures["2.png"]) == (None, None, "2.jpg")
    assert len(pictures) == 7
    assert (out / "coco.json").is_file()


def test_a_film_that_cannot_be_drawn_keeps_its_detections(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "a.mp4").mkdir(parents=True)
    assert detect(model_file, out, film(tmp_path / "a.avi", 3), film(tmp_path / "b.avi", 3)) == FINDING
    told = capsys.readouterr()
    assert "1 of 2 inputs done" in told.out
    assert told.err.count("error: ") == 1
    assert [row["picture"] for row in rows(out / "a.mp4.json")] == [None] * 3
    assert [row["picture"] for row in rows(out / "b.mp4.json")] == ["b.mp4"] * 3


def test_a_drawn_film_that_is_not_there_in_the_end_is_not_named(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All its frames were drawn, but it turns out that they could not be written."""
    monkeypatch.setattr("fssd.inference.film_output.can_write", lambda: False)
    monkeypatch.setattr("fssd.inference.video._frame_count", lambda _: 0)
    out = tmp_path / "out"
    path = film(tmp_path / "a.avi", 3).rename(tmp_path / "a\udcdf.avi")
    assert detect(model_file, out, path) == FINDING
    assert capsys.readouterr().err.count("error: ") == 1
    found = rows(out / "a\udcdf.mp4.json")
    assert [row["picture"] for row in found] == [None] * 3
    assert found[2]["image"] == f"{path}#2"
    assert not (out / "a\udcdf.mp4").exists()


def test_of_two_tracks_of_pictures_the_first_is_read(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    av = pytest.importorskip("av", reason='needs PyAV: pip install "fssd[video]"')
    path, out = tmp_path / "a.mp4", tmp_path / "out"
    with av.open(str(path), "w") as two:
        tracks = [two.add_stream("mpeg4", 25, width=16 * n, height=48, pix_fmt="yuv420p") for n in (3, 5)]
        for track in tracks:
            two.mux(track.encode(av.VideoFrame(track.width, 48, "yuv420p")))
            two.mux(track.encode())
    assert detect(model_file, out, path, "--no-pictures") == GOOD
    assert f"{path}: the first of 2 tracks of pictures is read\n" in capsys.readouterr().err
    assert [row["width"] for row in rows(out / "a.mp4.json")] == [48]


def test_frames_that_were_read_ahead_are_not_counted(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batches of two, of which the second one fails."""
    whole = Detector.stream

    def stream(self: Detector, images: Any, **others: Any) -> Iterator[Detections]:
        for number, found in enumerate(whole(self, images, **others)):
            if number == 2:
                raise ImageError("too many tiles")
            yield found

    monkeypatch.setattr(Detector, "stream", stream)
    assert detect(model_file, tmp_path / "out", film(tmp_path / "a.avi", 9), "--no-pictures") == FINDING
    found = rows(tmp_path / "out" / "a.mp4.json")
    objects = sum(len(row["objects"]) for row in found)
    assert f"{tmp_path / 'a.avi'}: {objects} objects in 2 frames\n" in capsys.readouterr().out


def test_a_damaged_film_keeps_its_results(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frame 2 of 5 is overwritten: the others keep their numbers, and the drawn film its length."""
    path, out = film(tmp_path / "a.avi", 5), tmp_path / "out"
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    data[starts[2] : starts[3] - 8] = bytes(starts[3] - 8 - starts[2])
    path.write_bytes(data)
    assert detect(model_file, out, path) == FINDING
    told = capsys.readouterr()
    assert "0 of 1 inputs done" in told.out
    assert f"error: {path}: 1 of 5 frames cannot be decoded (2); " in told.err
    assert [row["image"].rpartition("#")[2] for row in rows(out / "a.mp4.json")] == ["0", "1", "3", "4"]
    assert cv2.VideoCapture(str(out / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5


@pytest.mark.parametrize("flag", ["--voc", "--coco"])
def test_result_files_of_films_alone(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    assert detect(model_file, tmp_path / "out", film(tmp_path / "a.avi", 1), flag) == BAD_INPUT
    assert "--voc and --coco are for images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_detections_json_that_is_a_folder(
    model_file: Path, shots: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "detections.json").mkdir(parents=True)
    assert detect(model_file, tmp_path / "out", shots) == BAD_INPUT
    told = capsys.readouterr()
    assert "detections.json: is a folder" in told.err
    assert "0.png" not in told.out, "before anything is detected"


def test_a_full_disk_keeps_what_is_done(
    model_file: Path,
    shots: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"

    def full(path: Path, _: object) -> None:
        if path.name == "3.jpg":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.touch()

    monkeypatch.setattr("fssd.inference.draw.write_jpeg", full)
    assert detect(model_file, out, shots, "--coco") == BAD_INPUT
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"stopped; 3 of 6 inputs done, results in {out}"
    assert told[1].startswith(f"error: {out / '3.jpg'}: No space left on device")
    assert len(told) == 2
    assert [row["picture"] for row in rows(out / "detections.json")] == ["0.jpg", "1.jpg", "2.jpg"]
    assert (out / "coco.json").is_file()
    assert not (out / "detections.jsonl").exists()


# ---- ended from outside

# Ends itself after three images, so that no test depends on the clock.
PROGRAM = """
import os, sys
from fssd.cli.main import main
from fssd.errors import ImageError
from fssd.inference.detections import Detections
from fssd.inference.detector import Detector
draw, drawn = Detections.draw, []
def draw_and_end(found):
    drawn.append(found)
    if len(drawn) == 4:
        os.kill(os.getpid(), int(sys.argv[1]))
        os.kill(os.getpid(), int(sys.argv[1]))
    return draw(found)
Detections.draw = draw_and_end
sys.exit(main(sys.argv[2:]))
"""


def end(number: int, *arguments: object) -> CompletedProcess[str]:
    return forks.run(PROGRAM, number, "detect", *arguments, "--device", "cpu", "--batch-size", "2")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_what_is_done(model_file: Path, shots: Path, tmp_path: Path, number: int) -> None:
    """`timeout` sends the signal twice."""
    out = tmp_path / "out"
    done = end(number, model_file, shots, "--out", out, "--coco", "--voc")
    assert done.returncode == 128 + number
    assert done.stderr == f"stopped; 3 of 6 inputs done, results in {out}\n"
    assert [row["picture"] for row in rows(out / "detections.json")] == ["0.jpg", "1.jpg", "2.jpg"]
    names = {path.name for path in out.iterdir()}
    assert {"coco.json", "0.jpg", "1.jpg", "2.jpg"} < names
    assert not {"3.jpg", "detections.jsonl"} & names


def test_a_signal_keeps_a_film_s_frames(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = end(signal.SIGTERM, model_file, film(tmp_path / "a.avi", 8), "--out", out)
    assert done.returncode == 143
    assert done.stderr == f"stopped; 0 of 1 inputs done, results in {out}\n"
    assert [row["image"].rpartition("#")[2] for row in rows(out / "a.mp4.json")] == ["0", "1", "2"]
    assert cv2.VideoCapture(str(out / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert {path.name for path in out.iterdir()} == {"a.mp4", "a.mp4.json", "unfinished.json"}


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_is_closed(model_file: Path, shots: Path, tmp_path: Path, unbuffered: str) -> None:
    """`| head -1`: unbuffered, the first line that nobody reads ends the work; else it is done by then."""
    out = tmp_path / "out"
    words = ("detect", model_file, shots, "--out", out, "--device", "cpu")
    done = forks.run(forks.FSSD, *words, variables={"PYTHONUNBUFFERED": unbuffered}, closed=True)
    assert done.returncode == 141
    expected = f"stopped; 1 of 6 inputs done, results in {out}\n" if unbuffered else ""
    assert done.stderr == expected
    assert len(rows(out / "detections.json")) == (1 if unbuffered else 6)


def test_an_error_of_the_detector_keeps_what_is_done(
    model_file: Path, shots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fssd.inference.detector import Detector

    plain = Detector.stream

    def stream(self: Detector, *arguments: Any, **settings: Any) -> Iterator[Detections]:
        for number, found in enumerate(plain(self, *arguments, **settings)):
            if number == 4:
                raise RuntimeError("out of memory")
            yield found

    monkeypatch.setattr(Detector, "stream", stream)
    assert detect(model_file, tmp_path / "out", shots) == BAD_INPUT
    assert len(rows(tmp_path / "out" / "detections.json")) == 4


# ---- names


def test_names_that_cannot_be_encoded(model_file: Path, shots: Path, tmp_path: Path) -> None:
    odd = [b"stra\xdfe.png", "fö.png".encode(), b"http:x.png", b"a%20b.png", b"img%03d.png"]
    try:
        for number, name in enumerate(odd):
            (shots / f"{number}.png").rename(shots / os.fsdecode(name))
        film(tmp_path / "a.avi", 2).rename(shots / os.fsdecode(b"fil\xdfm.avi"))
    except OSError:
        pytest.skip("this file system takes no names that are not UTF-8")
    for encoding in ("ascii:strict", "cp1252:strict", "utf-8:strict"):
        out = tmp_path / encoding[:2]
        words = ("detect", model_file, shots, "--out", out, "--device", "cpu", "--voc")
        done = forks.run(forks.FSSD, *words, variables={"PYTHONIOENCODING": encoding})
        assert (done.returncode, done.stderr) == (GOOD, ""), done.stderr
        assert r"stra\udcdfe.png: " in done.stdout
        images = {os.fsencode(Path(row["image"]).name) for row in rows(out / "detections.json")}
        assert images == {*odd, b"5.png"}
        assert len(rows(out / os.fsdecode(b"fil\xdfm.mp4.json"))) == 2
