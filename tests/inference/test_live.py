"""Live sources: a local camera of Motion JPEG over HTTP, stdin, and a capture that fails."""

from __future__ import annotations

import io
import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.cli.main import main
from fssd.errors import ImageError
from fssd.inference import live
from fssd.inference.live import NewestFrames, is_live, open_live, public_name
from fssd.tracking.live_frames import live_frames


def jpeg(tone: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, 64, 3), tone, np.uint8))[1])


def test_what_is_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source in ("-", "0", "12", "/dev/video0", "rtsp://a/b", "HTTP://a", "https://u:p@a/b.m3u8"):
        assert is_live(source)
    for source in ("a.mp4", "./0", "-x", "s3://a/b", "hf://a/b", "/dev/video", "film-0"):
        assert not is_live(source)
    (tmp_path / "7").mkdir()
    assert not is_live("7"), "a folder of that name"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:secret@host:554/a", "rtsp://host:554/a"),
        ("rtsp://u:p@ss@w@host/x", "rtsp://host/x"),
        ("rtsp://u:p@ss@host", "rtsp://host"),
        ("http://host/@me", "http://host/@me"),
        ("-", "-"),
    ],
)
def test_no_part_of_a_password_is_shown(address: str, shown: str) -> None:
    assert public_name(address) == shown


class Camera:
    """What OpenCV's capture is. A tone for each frame, None where it fails; waits for `go` before each."""

    def __init__(self, tones: list[int | None], go: Callable[[], object] = lambda: None) -> None:
        self.tones, self.go, self.released = list(tones), go, False

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def read(self) -> tuple[bool, Any]:
        self.go()
        tone = self.tones.pop(0) if self.tones else None
        return tone is not None, None if tone is None else np.full((4, 4, 3), (tone, 0, 0), np.uint8)

    def release(self) -> None:
        self.released = True


def test_the_newest_frame_comes_first() -> None:
    """While the first frame is looked at three more come: the next is the last of them, in RGB."""
    all_read, step = Event(), Event()

    def go() -> None:
        if len(camera.tones) == 3:
            step.wait(240)  # the first frame has been taken
        if not camera.tones:
            all_read.set()

    camera = Camera([10, 20, 30, 40], go)
    frames = NewestFrames(lambda: camera, "camera", 0, 0).frames()
    number, image = next(frames)
    assert (number, image[0, 0].tolist()) == (0, [0, 0, 10])
    step.set()
    assert all_read.wait(240)
    number, image = next(frames)
    assert (number, image[0, 0].tolist()) == (3, [0, 0, 40])
    with pytest.raises(ImageError, match="after 0 attempts"):
        next(frames)


def test_nothing_is_read_any_more_once_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python aborts if a thread comes out of OpenCV while it ends."""
    monkeypatch.setattr(live, "FAREWELL", 240)
    camera = Camera([10] * 1000, lambda: Event().wait(0.2))
    frames = NewestFrames(lambda: camera, "camera", 0).frames()
    next(frames)
    frames.close()
    assert camera.released


def test_a_source_that_is_silent_does_not_outlive_the_program(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a read blocks: the thread cannot be waited for, and Python must not end around it."""
    silence, at_exit, codes = Event(), [], []
    camera = Camera([10, 20], lambda: None if len(camera.tones) == 2 else silence.wait(240))
    monkeypatch.setattr(live, "open_capture", lambda _: camera)
    monkeypatch.setattr(live, "FAREWELL", 0)
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    monkeypatch.setattr("os._exit", codes.append)

    def interrupted(_: object, frames: Iterator[Any], *__: object) -> Iterator[Any]:
        next(frames)
        signal.raise_signal(signal.SIGINT)
        yield

    monkeypatch.setattr("fssd.tracking.live_frames.live_frames", interrupted)
    assert main(["detect", str(model_file), "rtsp://camera/", "--device", "cpu"]) == 130
    ((end, *arguments),) = at_exit
    end(*arguments)
    assert codes == [130]
    (reader,) = (thread for thread in threading.enumerate() if thread.name == live.READER)
    silence.set()
    reader.join(240)
    end(*arguments)
    assert codes == [130], "no need for it any more"


def test_connections_are_tried_again_up_to_the_limit() -> None:
    """Twice it comes back with a frame, which starts the count anew; then three times in vain."""
    opened: list[Camera] = []
    plans: list[list[int | None]] = [[1], [], [2], [3], [], [], []]

    def connect() -> Camera:
        opened.append(Camera(plans[len(opened)]))
        return opened[-1]

    with pytest.raises(ImageError, match="camera: gives no more pictures, after 3 attempts"):
        for _ in NewestFrames(connect, "camera", 3, 0).frames():
            pass
    assert len(opened) == 7 and all(one.released for one in opened)


def test_a_fault_of_the_reader_reaches_the_one_who_waits() -> None:
    def broken() -> None:
        if len(camera.tones) < 2:
            raise cv2.error("the driver is gone")

    camera = Camera([10, 20], broken)
    with pytest.raises(ImageError, match=r"camera: cannot be read \(the driver is gone\)"):
        for _ in NewestFrames(lambda: camera, "camera", 3, 0).frames():
            pass


def test_a_source_that_is_not_there() -> None:
    for source in ("97", "/dev/video97", "http://127.0.0.1:9/stream"):
        with pytest.raises(ImageError, match="cannot be opened"):
            next(open_live(source, io.BytesIO(), 3, pytest.fail))


@pytest.fixture
def stream() -> Iterator[str]:
    """The address of a camera that sends eight frames to whoever asks, and ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(8):
                data = jpeg(30 * number)
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/video"
    server.shutdown()
    server.server_close()


def test_motion_jpeg_over_http(stream: str) -> None:
    frames = open_live(stream, io.BytesIO(), 0, pytest.fail)
    number, image = next(frames)
    assert number >= 0 and image.shape == (48, 64, 3)
    with pytest.raises(ImageError, match="gives no more pictures"):
        for _ in frames:
            pass


def test_every_third_frame(detectors: Any) -> None:
    frames = ((number, np.zeros((40, 60, 3), np.uint8)) for number in (0, 1, 2, 4, 5, 7, 8))
    rows = [json.loads(frame.row()) for frame in live_frames(detectors["tiny"], frames, {}, 3, None)]
    assert [row["frame"] for row in rows] == [0, 4, 7]
    assert all((row["width"], row["height"]) == (60, 40) for row in rows)


def test_lines_of_json_on_stdout(
    model_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO(b"".join(map(jpeg, (20, 120, 220))))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=data))
    assert main(["detect", str(model_file), "-", "--device", "cpu", "--every", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["frame"] for row in rows] == [0, 2]
    assert set(rows[0]) == {"frame", "width", "height", "objects"}


def test_a_damaged_picture_on_stdin_does_not_end_the_others(
    model_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO(jpeg(20) + jpeg(120)[:-9] + jpeg(220))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=data))
    assert main(["detect", str(model_file), "-", "--device", "cpu"]) == 1
    told = capsys.readouterr()
    assert [json.loads(line)["frame"] for line in told.out.splitlines()] == [0, 2]
    assert told.err.count("error: ") == 1 and "stdin#1: the JPEG is truncated" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-", "--out", "there"], "leave out --out"),
        (["0", "a.jpg"], "one source by itself"),
        (["rtsp://u:secret@a", "--voc"], "rtsp://a is live"),
        (["-", "--count-line", "0,0,9,9"], "add --track"),
        (["a.jpg", "--every", "2"], "--every is for live sources"),
        (["a.jpg", "--engine", "local", "--reconnect", "1"], "--reconnect is for live sources"),
        (["a.jpg", "rtsp://u:secret@a", "--engine", "local"], "rtsp://a is live, which --engine does not"),
    ],
)
def test_flags_that_do_not_fit(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "model", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and "secret" not in error
