"""Pictures on stdin: whole ones, damaged ones among others, and photographs that hold several."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from fssd.errors import ImageError
from fssd.inference.jpeg_stream import pictures_of

TONES = (10, 90, 170, 250)


def jpeg(tone: int, width: int = 64) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((48, width, 3), tone, np.uint8))[1])


def with_thumbnail(tone: int) -> bytes:
    """A JPEG that holds another one in a segment, as cameras write them."""
    inner, outer = jpeg(255), jpeg(tone)
    segment = b"Exif\0\0" + inner
    return outer[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + outer[2:]


def noisy() -> bytes:
    """A JPEG with enough coded data to damage."""
    return bytes(cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8))[1])


def overwritten(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("between", [b"", b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"])
def test_motion_jpeg_on_stdin(between: bytes) -> None:
    tones = (10, 90, 170, 250)
    data = b"".join(between + with_thumbnail(tone) for tone in tones) + b"\r\n"
    frames = list(pictures_of(io.BytesIO(data), pytest.fail))
    assert [number for number, _ in frames] == [0, 1, 2, 3]
    assert [image.shape for _, image in frames] == [(48, 64, 3)] * 4
    assert [image.mean() for _, image in frames] == pytest.approx(tones, abs=2)


def test_one_picture_of_another_format_on_stdin() -> None:
    png = bytes(cv2.imencode(".png", np.full((5, 7, 3), 30, np.uint8))[1])
    ((number, image),) = pictures_of(io.BytesIO(png), pytest.fail)
    assert number == 0 and image.shape == (5, 7, 3)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "stdin"),
        (b"no picture", "stdin"),
        (b"--x\r\n\r\n", "holds no"),
        (jpeg(9) + jpeg(9)[:-9], "stdin#1: is cut"),
    ],
)
def test_stdin_without_whole_pictures(data: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=told):
        list(pictures_of(io.BytesIO(data), pytest.fail))


CODED = noisy().index(b"\xff\xda") + 200  # a place in the coded data


@pytest.mark.parametrize(
    "broken",
    [
        overwritten(noisy(), CODED, b"\xff\x01"),  # a marker that does not exist
        overwritten(noisy(), CODED, b"\xff\xe1\x10\x00"),  # one whose segment leads beyond all the others
        overwritten(noisy(), CODED, b"\xff\xe1\x09\x00"),  # or into one of them
        overwritten(noisy(), CODED, b"\xff\xd9"),  # an end before the end
        overwritten(noisy(), noisy().index(b"\xff\xc0") + 2, b"\xf0"),  # a header of absurd length
        noisy()[:CODED],  # the end was lost
    ],
)
@pytest.mark.parametrize("between", [b"", b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"])
def test_a_damaged_picture_does_not_end_the_others(broken: bytes, between: bytes) -> None:
    data = between.join([jpeg(10), jpeg(90), broken, with_thumbnail(170), jpeg(250)])
    faults: list[ImageError] = []
    frames = list(pictures_of(io.BytesIO(data), faults.append))
    assert [number for number, _ in frames] == [0, 1, 3, 4]
    assert [image.mean() for _, image in frames] == pytest.approx(TONES, abs=2)
    (fault,) = faults
    assert str(fault).startswith("stdin#2: ")


HEADER = jpeg(0).index(b"\xff\xda")


@pytest.mark.parametrize("between", [b"", b"junk"])
@pytest.mark.parametrize("third", [jpeg(170), with_thumbnail(170)])
# In and beside the length of a segment, two bytes before its end, within tables, before the coded data.
@pytest.mark.parametrize("length", [2, 4, 5, 12, 18, 19, 22, 100, 190, 216, 400, 600, HEADER])
def test_a_picture_that_is_cut_in_its_header(length: int, third: bytes, between: bytes) -> None:
    """The length of the segment that was cut leads into the next picture, or beyond the last one."""
    data = between.join([jpeg(10), jpeg(90)[:length], third, jpeg(250)])
    faults: list[ImageError] = []
    frames = list(pictures_of(io.BytesIO(data), faults.append))
    assert [number for number, _ in frames] == [0, 2, 3]
    assert [image.mean() for _, image in frames] == pytest.approx((10, 170, 250), abs=2)
    assert [str(fault)[:8] for fault in faults] == ["stdin#1:"]


def test_bytes_between_segments_are_no_end_of_a_picture() -> None:
    """A segment behind which other bytes stand, as some cameras write them, and the thumbnail in it."""
    whole = with_thumbnail(90)
    end = whole.index(b"\xff\xd9") + 2
    frames = list(pictures_of(io.BytesIO((whole[:end] + bytes(3) + whole[end:]) * 2), pytest.fail))
    assert [image.mean() for _, image in frames] == pytest.approx((90, 90), abs=2)


OUTER = with_thumbnail(90)


@pytest.mark.parametrize(
    "broken",
    [
        overwritten(OUTER, 4, b"\x03\x00"),  # the length of the segment that holds the thumbnail
        overwritten(OUTER, OUTER.rindex(b"\xff\xc0") + 2, b"\x00\x03"),  # of one behind it
    ],
)
def test_a_thumbnail_of_a_damaged_picture_is_no_frame(broken: bytes) -> None:
    faults: list[ImageError] = []
    frames = list(pictures_of(io.BytesIO(jpeg(10) + broken + jpeg(250)), faults.append))
    assert [(number, round(image.mean())) for number, image in frames] == [(0, 10), (2, 250)]
    assert len(faults) == 1


def photograph(order: str) -> bytes:
    """A JPEG of 64 x 48 with a gain map of 32 x 48 behind it, as phones write them: by CIPA DC-007."""
    outer, inner = jpeg(170), jpeg(90, 32)
    length = 4 + 4 + 2 + 3 * 12 + 4 + 2 * 16  # header, position, count, three tags, no next, two entries
    size = len(outer) + 4 + 4 + length
    tags = [(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, 2), (0xB002, 7, 32, 50)]
    rows = [
        struct.pack(f"{order}HHI", *tag[:3])
        + (tag[3] if isinstance(tag[3], bytes) else struct.pack(f"{order}I", tag[3]))
        for tag in tags
    ]
    entries = [(0x20030000, size, 0, 0, 0), (0, len(inner), size - (2 + 4 + 4), 0, 0)]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, 3)
    body = b"".join([head, *rows, bytes(4), *(struct.pack(f"{order}IIIHH", *entry) for entry in entries)])
    segment = b"MPF\0" + body
    return b"".join([outer[:2], b"\xff\xe2", struct.pack(">H", 2 + len(segment)), segment, outer[2:], inner])


def by_pillow() -> bytes:
    first, second = (Pillow.fromarray(np.full((48, width, 3), 170, np.uint8)) for width in (64, 32))
    out = io.BytesIO()
    first.save(out, "MPO", save_all=True, append_images=[second])
    return out.getvalue()


@pytest.mark.parametrize("photo", [photograph("<"), photograph(">"), by_pillow()])
def test_the_other_pictures_of_a_photograph_are_no_frames(photo: bytes) -> None:
    assert len(getattr(Pillow.open(io.BytesIO(photo)), "mpinfo", {}).get(0xB002, ())) == 2
    data = jpeg(10) + photo + photo + jpeg(250, 32)
    frames = list(pictures_of(io.BytesIO(data), pytest.fail))
    assert [number for number, _ in frames] == [0, 1, 2, 3]
    assert [image.shape[1] for _, image in frames] == [64, 64, 64, 32]


def test_a_list_of_pictures_that_are_not_there() -> None:
    """A camera's frames from which the previews were cut away."""
    whole = photograph("<")
    bare = whole[: -len(jpeg(90, 32))]
    frames = list(pictures_of(io.BytesIO(bare * 3), pytest.fail))
    assert [image.shape[1] for _, image in frames] == [64, 64, 64]


@pytest.mark.filterwarnings("ignore")  # pillow's comments
def test_a_list_of_nonsense() -> None:
    body = b"MPF\0II*\0" + b"\xff" * 40
    data = jpeg(10)[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(body)) + body + jpeg(10)[2:]
    assert len(list(pictures_of(io.BytesIO(data * 2), pytest.fail))) == 2
