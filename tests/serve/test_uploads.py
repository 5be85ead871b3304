"""From the bytes of a request to images: forms written by httpx, and refusals before decoding."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace

import httpx
import numpy as np
import pytest
from PIL import Image as Pillow

from fssd.serve.limits import ServerLimits
from fssd.serve.refusals import RequestError
from fssd.serve.uploads import check_image, decode_upload, is_image, split_uploads

LIMITS = ServerLimits()
Encoder = Callable[..., bytes]


def form(*files: tuple[str, bytes], **fields: str) -> tuple[str, bytes]:
    """Content-Type and body of a form, written by another package."""
    request = httpx.Request("POST", "http://a/", files=[("image", file) for file in files], data=fields)
    return request.headers["content-type"], request.read()


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as caught:
        call()
    return caught.value.code


# ---- forms


def test_body_without_a_form_is_the_image() -> None:
    for kind in ("", "image/jpeg", "application/x-www-form-urlencoded", "text/plain; charset=utf-8"):
        assert split_uploads(kind, b"xyz", LIMITS) == [("", b"xyz")]
    assert refusal(lambda: split_uploads("image/jpeg", b"", LIMITS)) == "empty_body"


def test_form_with_files_and_fields() -> None:
    data = bytes(range(256)) * 400 + b"\r\n--"
    kind, body = form(("a.jpg", data), ("ü \u4e2d.png", b""), note="hello")
    assert split_uploads(kind, body, LIMITS) == [("a.jpg", data), ("ü \u4e2d.png", b"")]


@pytest.mark.parametrize("name", ["score", "max", "Score"])
def test_form_with_parameters(name: str) -> None:
    with pytest.raises(
        RequestError, match=rf"{name}: .* put it into the address, as \?{name.lower()}="
    ) as caught:
        split_uploads(*form(("a.jpg", b"x"), **{name: "1"}), LIMITS)
    assert caught.value.code == "bad_parameter"


def test_form_without_files() -> None:
    kind, body = form(("a.jpg", b"x"), note="hello")
    assert (
        refusal(lambda: split_uploads(kind, body.replace(b"filename", b"filenone"), LIMITS)) == "bad_upload"
    )


def test_form_that_is_cut_short_loses_no_file_silently() -> None:
    kind, body = form(("a.jpg", b"first"), ("b.jpg", b"second"))
    for end in range(1, len(body) - 2):  # the line break after the last boundary may be missing
        assert refusal(lambda end=end: split_uploads(kind, body[:end], LIMITS)) == "bad_upload"  # type: ignore[misc]


def test_form_without_boundary_or_of_something_else(caplog: pytest.LogCaptureFixture) -> None:
    kind, body = form(("a.jpg", b"first"))
    assert refusal(lambda: split_uploads("multipart/form-data", body, LIMITS)) == "bad_upload"
    long = f"multipart/form-data; boundary={'x' * 300}"
    assert refusal(lambda: split_uploads(long, body, LIMITS)) == "bad_upload"
    assert refusal(lambda: split_uploads(kind, b"not a form", LIMITS)) == "bad_upload"
    assert not caplog.records, "the answer says it"


def test_form_with_too_many_images() -> None:
    limits = replace(LIMITS, batch=3)
    files = [(f"{number}.jpg", b"x") for number in range(4)]
    assert len(split_uploads(*form(*files[:3]), limits)) == 3
    assert refusal(lambda: split_uploads(*form(*files), limits)) == "too_many_images"
    fields = {f"field{number}": "x" for number in range(1000)}
    assert refusal(lambda: split_uploads(*form(files[0], **fields), limits)) == "bad_upload"


# ---- images


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares a size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def test_formats(kinds: dict[str, bytes]) -> None:
    assert all(is_image(data) for data in kinds.values())
    for data in kinds.values():
        header = check_image(data, LIMITS)
        assert (header.width, header.height) == (160, 120)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "ICO"])
def test_other_formats(kind: str, encoder: Encoder) -> None:
    assert refusal(lambda: check_image(encoder(kind=kind), LIMITS)) == "unsupported_image"


@pytest.mark.parametrize(
    "data",
    [
        b"hello, I am a text",
        b"BMW is a make of cars, and text",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"\xff\xd8",
        b"%PDF-1.7",
    ],
)
def test_what_is_not_an_image(data: bytes) -> None:
    assert refusal(lambda: check_image(data, LIMITS)) == "unsupported_image"


def test_images_cut_short(kinds: dict[str, bytes]) -> None:
    for data in kinds.values():
        assert refusal(lambda data=data: check_image(data[:20], LIMITS)) == "damaged_image"  # type: ignore[misc]
        half = data[: len(data) // 2]
        assert refusal(lambda half=half: decode_upload(half, LIMITS)) == "damaged_image"  # type: ignore[misc]


def test_pixels_are_limited_by_the_header() -> None:
    assert check_image(png_header(8000, 5000), LIMITS).width == 8000  # 40 megapixels exactly
    for width, height in ((8001, 5000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)):
        data = png_header(width, height)
        assert refusal(lambda data=data: check_image(data, LIMITS)) == "too_many_pixels"  # type: ignore[misc]


def test_webp_of_a_few_bytes_that_declares_268_megapixels() -> None:
    side = struct.pack("<I", (16383 - 1) | (16383 - 1) << 14)
    data = b"RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0/" + side + bytes(9)
    assert refusal(lambda: check_image(data, LIMITS)) == "too_many_pixels"


def test_jpeg_with_hundreds_of_scans(encoder: Encoder) -> None:
    limits = replace(LIMITS, passes=160 * 120 * 20)
    data = encoder(kind="JPEG", progressive=True)  # 10 scans
    last = data.rindex(b"\xff\xda")
    check_image(data[:last] + data[last:-2] * 11 + b"\xff\xd9", limits)
    bomb = data[:last] + data[last:-2] * 12 + b"\xff\xd9"
    assert refusal(lambda: check_image(bomb, limits)) == "too_many_pixels"


def test_one_scan_is_never_too_many(encoder: Encoder) -> None:
    check_image(encoder(kind="JPEG"), replace(LIMITS, passes=1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, encoder: Encoder) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    data = encoder(kind="JPEG", quality=95, exif=exif)
    header = check_image(data, LIMITS)
    image = decode_upload(data, LIMITS)
    assert image.shape == (header.height, header.width, 3)
    assert (header.width > header.height) == (orientation < 5)
    # The upper left corner of the stored picture after rotation, by the EXIF standard.
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    stored = np.asarray(Pillow.open(io.BytesIO(data)))[0, 0].astype(int)
    assert np.abs(image[corner[orientation]].astype(int) - stored).max() <= 2
