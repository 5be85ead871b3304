"""What is taken as an image, and the sentence for what is not."""

from __future__ import annotations

import io
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from fssd.errors import ImageError
from fssd.inference.picture import as_array, every_image, kind_of, single_images
from fssd.inference.video import FilmWriter

SMALL = np.array([[[0, 60, 120], [255, 1, 2]]], np.uint8)  # two pixels


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "png")
    return file.getvalue()


def loaded(data: bytes) -> PIL.Image.Image:
    """A picture that outlives its file."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        picture.load()
    return picture


def opened(data: bytes, rank: int) -> io.BytesIO:
    file = io.BytesIO(data)
    file.seek(rank)
    return file


class OpenFile:
    """An open file that is no io.IOBase, as those of tempfile and of web frameworks are none."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def read(self) -> bytes:
        return self.file.read()

    def __iter__(self) -> Any:
        return iter(self.file)


def closed(picture: PIL.Image.Image) -> PIL.Image.Image:
    picture.close()
    return picture


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"\xff\xd8", r"bytes: is damaged"),
        (bytearray(9), r"bytearray: is no image in a supported format"),
        (memoryview(b"abc"), r"memoryview: is no image"),
        (b"", r"bytes: the image file is empty"),
        (io.BytesIO(b"abc"), r"BytesIO: is no image"),
        (io.StringIO("abc"), r"StringIO: is open as text; open it in binary mode"),
        (opened(b"abc", 3), r"BytesIO: has been read to its end; call seek\(0\) first"),
        ("clip.mp4", r"clip\.mp4: there is no such image file"),
        ("", r"there is no such image file|is a folder"),
        ("none.jpg", r"none\.jpg: there is no such image file; check the path"),
        (300 * "A", r"A: there is no such image file; check the path"),  # longer than any name
        ("https://host/a.jpg", r"^https://host/a\.jpg: is an address; .* allow_url=True"),
        ("rtsp://host/a", r"^rtsp://host/a: is an address of another kind than http"),
        (3, "a tensor or bytes, not int 3"),
        (PIL.Image.new("RGB", (0, 30)), "a PIL image of 0 x 30 has no pixels"),
        (torch.eye(9).to_sparse(), "is sparse or quantised; give tensor.to_dense"),
        (None, "not None"),
        (np.zeros((2, 9, 9)), r"an array \(2, 9, 9\) float64 is no image; give \(H, W\), \(H, W, 3\)"),
        (np.zeros((3, 9, 9)), r"has its channels first; give array\.transpose\(1, 2, 0\)"),
        (np.zeros((0, 9, 3), np.uint8), "is no image"),
        (np.zeros(9), "is no image"),
        (np.full((2, 2, 3), 255.0), r"float64 with values from 255 to 255 is no image of floats"),
        (np.full((2, 2, 3), -0.1), "from -0.1 to -0.1"),
        (np.full((2, 2, 3), np.nan), "values from nan to nan"),
        (np.ones((2, 2, 3), int), "int64 is not uint8, uint16 or float"),
        (np.ones((2, 2), bool), "bool is not uint8"),
        (np.full((2, 2), 200, np.uint16), "from 200 to 200 may be of 8 bits or a dark one of 16"),
        (torch.zeros(9, 9, 3), r"a tensor \(9, 9, 3\) float32 has its channels last; give tensor\.permute"),
        (torch.zeros(3, 9, 3), "channels first or last"),
        (torch.zeros(2, 9, 9), r"is no image; give \(H, W\), \(3, H, W\)"),
        (torch.full((3, 9, 9), 2.0), "from 2 to 2 is no image of floats"),
        (torch.zeros(3, 9, 9, dtype=torch.int32), "int32 is not uint8"),
        (torch.zeros(3, 9, 9, device="meta"), r"a tensor \(3, 9, 9\) float32 is on the device meta"),
        (OpenFile(b""), "OpenFile: the image file is empty"),
        (closed(PIL.Image.new("RGB", (3, 4))), "a PIL image is closed"),
        (closed(PIL.Image.open(io.BytesIO(png(SMALL)))), "a PIL image is closed"),
    ],
)
def test_one_sentence_for_what_is_no_image(given: Any, reason: str) -> None:
    assert kind_of(given) == "one"
    with pytest.raises(ImageError, match=reason) as caught:
        as_array(given)
    assert "label" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([[0, 7]], np.uint8), [[[0, 0, 0], [7, 7, 7]]]),
        (np.array([[[0], [7]]], np.uint8), [[[0, 0, 0], [7, 7, 7]]]),
        (np.array([[0, 7 * 256 + 255]], np.uint16), [[[0, 0, 0], [7, 7, 7]]]),
        (SMALL.astype(np.uint16) * 257, SMALL),
        (SMALL / 255, SMALL),
        ((SMALL / 255).astype(np.float32), SMALL),
        ((SMALL / 255).astype(np.float16), SMALL),
        # half transparent: 128 of 255 parts of 100 over white, 100 * 128 / 255 + 127 = 177.2
        (np.array([[[100, 0, 255, 128], [9, 9, 9, 0]]], np.uint8), [[[177, 127, 255], [255, 255, 255]]]),
        (np.array([[[100, 0, 255, 255]]], np.uint8), [[[100, 0, 255]]]),
        (SMALL[:, ::-1], SMALL[:, ::-1]),
        (torch.from_numpy(SMALL).permute(2, 0, 1), SMALL),
        (torch.from_numpy(SMALL / 255).permute(2, 0, 1).requires_grad_(), SMALL),
        (torch.from_numpy(SMALL / 255).permute(2, 0, 1).to(torch.float32), SMALL),
        (torch.tensor([[0, 7]], dtype=torch.uint8), [[[0, 0, 0], [7, 7, 7]]]),
        (torch.tensor([[0, 0.5]], dtype=torch.bfloat16), [[[0, 0, 0], [128, 128, 128]]]),
        (png(SMALL), SMALL),
        (bytearray(png(SMALL)), SMALL),
        (memoryview(png(SMALL)), SMALL),
        (io.BytesIO(png(SMALL)), SMALL),
        (opened(b"head" + png(SMALL), 4), SMALL),
        (OpenFile(png(SMALL)), SMALL),
        (torch.tensor([[0, 0.5]], dtype=torch.float8_e4m3fn), [[[0, 0, 0], [128, 128, 128]]]),
        (torch._neg_view(torch.tensor([[0, -0.5]])), [[[0, 0, 0], [128, 128, 128]]]),
        (
            torch.complex(torch.zeros(1, 2), torch.tensor([[0, -0.5]])).conj().imag,
            [[[0, 0, 0], [128, 128, 128]]],
        ),
        # 51 of 255 parts of 100 over white: 20 + 204; pillow keeps them multiplied, as 20
        (PIL.Image.new("LA", (1, 1), (100, 51)).convert("La"), [[[224, 224, 224]]]),
        (loaded(png(SMALL)), SMALL),
    ],
)
def test_every_kind_of_pixels(given: Any, expected: Any) -> None:
    assert kind_of(given) == "one"
    image = as_array(given)
    assert image.dtype == np.uint8
    assert np.array_equal(image, expected)


def test_batches() -> None:
    batch = np.stack([SMALL, SMALL[:, ::-1], SMALL // 2])
    for several in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2), list(batch), iter(batch)):
        assert kind_of(several) == "several"
        images = [one.image for one in single_images(several)]
        assert np.array_equal(images, batch)
    assert list(single_images(np.zeros((0, 5, 5, 3)))) == []
    for wrong, reason in (
        (np.zeros((2, 3, 9, 9)), r"channels first; give array\.transpose\(0, 2, 3, 1\)"),
        (torch.zeros(2, 9, 9, 3), r"channels last; give tensor\.permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 3, 9, 3), "channels first or last"),
        (np.zeros((2, 9, 9, 9)), r"no batch of images; give \(N, H, W, 3\)"),
        ([batch], r"a batch \(3, 1, 2, 3\) stands where one image is meant"),
    ):
        with pytest.raises(ImageError, match=reason):
            list(single_images(wrong))
    assert len(list(every_image([batch, SMALL]))) == 4


def test_folders_patterns_and_films(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        PIL.Image.new("RGB", (16, 16), (0, ord(name), 0)).save(tmp_path / f"{name}.png")
    for several in (tmp_path, str(tmp_path / "*.png")):
        assert kind_of(several) == "several"
        sources = [one.source for one in single_images(several)]
        assert sources == [str(tmp_path / f"{name}.png") for name in "abc"]
    with pytest.raises(ImageError, match="stands for several images in a list"):
        list(single_images([tmp_path]))
    with pytest.raises(ImageError, match="no such file, folder or pattern"):
        list(single_images(str(tmp_path / "*.jpg")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="this folder holds no image or video"):
        list(single_images(tmp_path / "empty"))

    film = tmp_path / "clip.mp4"
    with FilmWriter(film, 10) as writer:
        for _ in range(3):
            writer.write(np.zeros((16, 16, 3), np.uint8))
    assert kind_of(film) == "film"
    assert [one.source for one in every_image(film)] == [f"{film}#{number}" for number in range(3)]
    assert len(list(every_image([tmp_path]))) == 6
    for mixed in ([film], tmp_path):
        with pytest.raises(ImageError, match=r"clip\.mp4: is a video among images"):
            list(single_images(mixed))
    film.write_bytes(film.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"clip\.mp4"):
        list(every_image(film))


class Answers(BaseHTTPRequestHandler):
    """A server of one picture."""

    def do_GET(self) -> None:
        data = {"/a.png": png(SMALL), "/page": b"<html>"}.get(self.path)
        self.send_response(404 if data is None else 200)
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: Any) -> None:
        pass


def test_addresses() -> None:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        host = f"http://127.0.0.1:{server.server_port}"
        try:
            (one,) = single_images(f"{host}/a.png", True)
            assert np.array_equal(one.image, SMALL)
            assert one.source == f"{host}/a.png"
            with pytest.raises(ImageError, match=r"/none: cannot be fetched .*404"):
                as_array(f"{host}/none", True)
            with pytest.raises(ImageError, match="/page: is no image"):
                as_array(f"{host}/page", True)
            with pytest.raises(ImageError, match="pass allow_url=True"):
                as_array(f"{host}/a.png")
        finally:
            server.shutdown()
            thread.join()


def test_a_name_with_the_signs_of_a_pattern_is_a_file_if_there_is_one(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 3), "red").save(tmp_path / "a[1].png")
    assert as_array(tmp_path / "a[1].png").shape == (3, 4, 3)


def test_several() -> None:
    for several in ([], ["a.jpg"], ("a.jpg",), iter(["a.jpg"]), torch.zeros(1, 3, 2, 2)):
        assert kind_of(several) == "several"


def test_eight_bits_in_thirty_two_stay_as_bright() -> None:
    grey = PIL.Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert np.array_equal(as_array(grey.convert("I")), as_array(grey))


def test_sixteen_bits_in_thirty_two_keep_the_upper_eight(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.int32).reshape(16, 16) * 257
    assert np.array_equal(as_array(PIL.Image.fromarray(values))[..., 0], values >> 8)
    # A dark file of 16 bits is dark, however it is opened.
    PIL.Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "dark.png")
    assert not as_array(PIL.Image.open(tmp_path / "dark.png")).any()
    assert not as_array(tmp_path / "dark.png").any()
