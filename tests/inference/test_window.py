"""The window of `fssd detect --show`: refused where there is none, frames in right colours, how it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from fssd.cli.main import main
from fssd.inference.draw import encode_png
from fssd.inference.window import FrameWindow

BUILT = "  GUI:                           {}\n    Other:    NONE\n"


class Screen:
    """Stands in for OpenCV's windows. keys: pressed after each frame. closed: after so many frames."""

    def __init__(self, keys: tuple[int, ...] = (), closed: int = 99) -> None:
        self.keys, self.closed = list(keys), closed
        self.shown: list[Any] = []
        self.sizes: list[tuple[int, int]] = []
        self.gone = False

    def put_up(self, monkeypatch: pytest.MonkeyPatch, built: str = "QT5") -> None:
        calls = {
            "namedWindow": lambda *_: None,
            "resizeWindow": lambda _, *size: self.sizes.append(size),
            "imshow": lambda _, image: self.shown.append(image.copy()),
            "waitKey": lambda _: self.keys.pop(0) if self.keys else -1,
            "getWindowProperty": lambda *_: float(len(self.shown) < self.closed),
            "destroyAllWindows": lambda: setattr(self, "gone", True),
            "getBuildInformation": lambda: BUILT.format(built),
        }
        for name, call in calls.items():
            monkeypatch.setattr(cv2, name, call)
        monkeypatch.setattr("sys.platform", "linux")
        monkeypatch.setenv("DISPLAY", ":0")


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three pictures."""
    pictures = [encode_png(np.full((40, 60, 3), grey, np.uint8)) for grey in (20, 120, 220)]
    data = io.BytesIO(b"".join(cv2.imencode(".jpg", _read(png))[1].tobytes() for png in pictures))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=data))


def _read(png: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("key", [ord("q"), 27, 27 | 1 << 20])  # GTK sets bits for modifiers
def test_red_is_shown_as_red_and_a_key_ends(monkeypatch: pytest.MonkeyPatch, key: int) -> None:
    screen = Screen((-1, ord("a"), key))
    screen.put_up(monkeypatch)
    window = FrameWindow("films")
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert [window.show(red) for _ in range(3)] == [True, True, False]
    assert screen.shown[0][0, 0].tolist() == [0, 0, 255]  # OpenCV's order is blue, green, red


@pytest.mark.parametrize(("image", "window"), [((300, 400), (400, 300)), ((2560, 1280), (640, 1280))])
def test_it_begins_with_the_size_of_the_frames(
    monkeypatch: pytest.MonkeyPatch, image: tuple[int, int], window: tuple[int, int]
) -> None:
    """(height, width) of a frame, (width, height) of the window."""
    screen = Screen()
    screen.put_up(monkeypatch)
    shown = FrameWindow("films")
    for _ in range(2):
        shown.show(np.zeros((*image, 3), np.uint8))
    assert screen.sizes == [window]


def test_a_closed_window_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(closed=2)
    screen.put_up(monkeypatch)
    window = FrameWindow("films")
    assert [window.show(np.zeros((4, 4, 3), np.uint8)) for _ in range(2)] == [True, False]


def test_where_there_is_no_window(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_file: Path
) -> None:
    command = ["detect", str(model_file), "-", "--show"]
    Screen().put_up(monkeypatch, built="NONE")
    assert main(command) == 2
    assert "pip install opencv-python" in capsys.readouterr().err
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(command) == 2
    assert "--show needs a display, and DISPLAY is not set; leave it out" in capsys.readouterr().err
    assert main(["detect", str(model_file), "a.jpg", "--show"]) == 2
    assert "--show is for live sources" in capsys.readouterr().err


def test_live_frames_are_shown_until_the_user_ends(
    stdin: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_file: Path
) -> None:
    screen = Screen((-1, ord("q")))
    screen.put_up(monkeypatch)
    assert main(["detect", str(model_file), "-", "--device", "cpu", "--show"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["frame"] for row in rows] == [0, 1]
    assert [image.shape for image in screen.shown] == [(40, 60, 3)] * 2 and screen.gone
