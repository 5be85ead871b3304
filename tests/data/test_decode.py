"""Every kind of image file becomes RGB or an ImageError that names it."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.PngImagePlugin import PngImageFile

from fssd.data.decode import (
    IMAGE_EXTENSIONS,
    count_scans,
    decode_image,
    image_size,
    probe_image,
    read_header,
    read_image,
)
from fssd.data.sample import Image
from fssd.errors import FssdError, ImageError

REAL = os.environ.get("FSSD_TEST_DATA", "")


def picture(height: int = 30, width: int = 40) -> Image:
    """A smooth RGB picture, so that JPEG keeps it within a few grey levels."""
    y, x = np.mgrid[0:height, 0:width]
    planes = (x * 255 / (width - 1), y * 255 / (height - 1), (x + y) * 255 / (width + height - 2))
    return np.stack(planes, axis=2).astype(np.uint8)


def encode(image: Pillow.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation: int) -> Pillow.Exif:
    values = Pillow.Exif()
    values[0x0112] = orientation
    return values


JPEG = encode(Pillow.fromarray(picture(120, 160)), "JPEG", quality=90)


def refusal(path: Path, **options: int) -> str:
    """The message of the ImageError of a file, after checking that it names the file."""
    with pytest.raises(ImageError) as caught:
        read_image(path, **options)
    assert caught.value.file == path
    assert str(path) in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_return_the_very_pixels(kind: str) -> None:
    image = decode_image(encode(Pillow.fromarray(picture()), kind), "a")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, picture())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_is_rgb_and_writable(options: dict[str, object]) -> None:
    image = decode_image(encode(Pillow.fromarray(picture()), "JPEG", quality=95, **options), "a")
    assert image.flags.writeable and image.flags.c_contiguous
    assert np.abs(image.astype(int) - picture()).mean() < 3  # red and blue swapped would give about 40


def test_webp_and_gif_give_three_channels() -> None:
    lossless = decode_image(encode(Pillow.fromarray(picture()), "WEBP", lossless=True), "a")
    np.testing.assert_array_equal(lossless, picture())
    frames = [Pillow.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    animation = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(animation, "a"), np.broadcast_to([255, 0, 0], (6, 8, 3)))


def test_grey_is_repeated() -> None:
    grey = picture()[:, :, 0]
    for kind, allowed in (("PNG", 0), ("JPEG", 3)):
        image = decode_image(encode(Pillow.fromarray(grey), kind), "a")
        assert image.shape == (30, 40, 3)
        assert np.abs(image.astype(int) - grey[:, :, None]).max() <= allowed


def test_sixteen_bits_keep_the_upper_eight() -> None:
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    image = decode_image(encode(Pillow.fromarray(values), "PNG"), "a")
    assert image[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("largest", [1, 200, 255])
def test_thirty_two_bits_that_may_be_eight_are_refused(largest: int) -> None:
    """As 16 bits they would all be black."""
    values = np.array([[0, largest]], np.int32)
    with pytest.raises(ImageError, match=f"32 bits, none above {largest}.*convert them to 8 bits"):
        decode_image(encode(Pillow.fromarray(values), "TIFF"), "a")


@pytest.mark.parametrize(
    ("values", "expected"), [([0, 256], [0, 1]), ([513, 65535], [2, 255]), ([0, 0], [0, 0])]
)
def test_thirty_two_bits_of_sixteen(values: list[int], expected: list[int]) -> None:
    image = decode_image(encode(Pillow.fromarray(np.array([values], np.int32)), "TIFF"), "a")
    assert image[0, :, 0].tolist() == expected


def test_palette() -> None:
    colours = Pillow.new("RGB", (4, 4), (10, 200, 30)).convert("P", palette=Pillow.Palette.ADAPTIVE)
    assert decode_image(encode(colours, "PNG"), "a")[0, 0].tolist() == [10, 200, 30]


def test_transparency_is_laid_on_white() -> None:
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0]]], np.uint8)
    image = decode_image(encode(Pillow.fromarray(pixels), "PNG"), "a")
    assert image.tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_cmyk_jpeg() -> None:
    ink = Pillow.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow make red
    red, green, blue = decode_image(encode(ink, "JPEG", quality=95), "a")[8, 8].tolist()
    assert red > 240 and green < 15 and blue < 15


TURNED = {  # the stored top-left pixel is the first of each list's corners: top-left, top-right of the result
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", list(TURNED))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(kind: str, orientation: int, tmp_path: Path) -> None:
    stored = picture()
    options: dict[str, object] = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(encode(Pillow.fromarray(stored), kind, exif=exif(orientation), **options))
    image, expected = read_image(path), TURNED[orientation](stored)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < (4 if kind == "JPEG" else 0.01)
    assert image_size(path) == (expected.shape[1], expected.shape[0])


def test_header_of_a_turned_jpeg() -> None:
    header = probe_image(encode(Pillow.fromarray(picture()), "JPEG", exif=exif(6)), "a")
    assert (header.format, header.width, header.height, header.turned) == ("JPEG", 30, 40, True)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_impossible_orientation_is_upright(value: int) -> None:
    data = encode(Pillow.fromarray(picture()), "JPEG", exif=exif(value))
    assert decode_image(data, "a").shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("suffix", "kind", "orientation"), [(".avif", "AVIF", 1), (".avif", "AVIF", 6), (".heic", "HEIF", 1)]
)
def test_pictures_of_phones(tmp_path: Path, suffix: str, kind: str, orientation: int) -> None:
    """AVIF with pillow 11.3 or newer, HEIC with the extra `heic`; EXIF's 6 is a quarter turn clockwise."""
    if suffix not in IMAGE_EXTENSIONS:
        pytest.skip(f"pillow reads no {kind} here")
    shown = np.kron(picture(), np.ones((4, 4, 1), np.uint8))
    stored = shown if orientation == 1 else np.rot90(shown)
    path, tags = tmp_path / f"a{suffix}", Pillow.Exif()
    tags[0x0112] = orientation
    Pillow.fromarray(np.ascontiguousarray(stored)).save(path, kind, quality=95, exif=tags)
    assert image_size(path) == (shown.shape[1], shown.shape[0])
    found = read_image(path)
    assert found.shape == shown.shape and found.flags.writeable
    right, wrong = (np.abs(one.astype(int) - shown).mean() for one in (found, np.rot90(found, 2)))
    assert right < wrong / 3
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError):
        read_image(path)


@pytest.mark.parametrize("reader", [read_image, image_size, read_header])
def test_missing_file(reader: object, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.jpg: .*missing"):
        reader(tmp_path / "a.jpg")  # type: ignore[operator]


def test_null_byte_in_a_path() -> None:
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image("a\0.jpg")


def test_folder_and_empty_file(tmp_path: Path) -> None:
    assert "folder" in refusal(tmp_path)
    empty = tmp_path / "a.jpg"
    empty.touch()
    assert "empty" in refusal(empty)


def test_text_named_jpg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_text("<html>not found</html>")
    assert "no image in a supported format" in refusal(path)


def test_wrong_extension_is_read_by_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(Pillow.fromarray(picture()), "PNG"))
    np.testing.assert_array_equal(read_image(path), picture())


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_truncated_jpeg(tmp_path: Path, share: float, progressive: bool) -> None:
    data = encode(Pillow.fromarray(picture(120, 160)), "JPEG", quality=90, progressive=progressive)
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: int(len(data) * share)])
    assert "truncated" in refusal(path)


def test_truncated_jpeg_is_not_hidden_by_padding_or_by_its_thumbnail() -> None:
    half = JPEG[: len(JPEG) // 2]
    thumbnail = encode(Pillow.fromarray(picture(8, 8)), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", len(thumbnail) + 2) + thumbnail  # holds an end marker
    for data in (half + bytes(len(JPEG)), half + b"junk" * 9000, half[:2] + comment + half[2:]):
        with pytest.raises(ImageError, match="truncated"):
            decode_image(data, "a")


@pytest.mark.parametrize("tail", [b"\0" * 500, b"\r\n", b"maker notes" * 3000, b"\xff\xda" + b"x" * 99])
def test_whole_jpeg_with_something_behind_it(tail: bytes) -> None:
    np.testing.assert_array_equal(decode_image(JPEG + tail, "a"), decode_image(JPEG, "a"))


NOISY = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)  # long codes: damage is not smooth
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "restart markers": ("RGB", {"restart_marker_rows": 1}),
    "grey": ("L", {}),
    "cmyk": ("CMYK", {}),
}


def noisy(kind: str) -> bytes:
    mode, options = KINDS[kind]
    return encode(Pillow.fromarray(NOISY).convert(mode), "JPEG", quality=90, **options)


def overwritten(data: bytes) -> bytes:
    """Forty single bytes of the coded data replaced, none of them by a marker."""
    changed = bytearray(data)
    first = data.rindex(b"\xff\xda") + 20
    for number in range(40):
        changed[first + number * (len(data) - first - 40) // 40] ^= 0x55
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_jpeg_decodes_as_with_opencv_and_pillow(kind: str) -> None:
    data = noisy(kind)
    if kind == "cmyk":
        expected = np.asarray(Pillow.open(io.BytesIO(data)).convert("RGB"))
    else:
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(decode_image(data, "a"), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["first half cut out", "middle cut out", "bytes changed", "zeros"])
def test_damage_inside_a_jpeg(kind: str, damage: str, tmp_path: Path) -> None:
    whole = noisy(kind)
    start, third = whole.index(b"\xff\xda") + 20, len(whole) // 3
    changed = {
        "first half cut out": whole[:start] + whole[len(whole) // 2 :],
        "middle cut out": whole[:third] + whole[-third:],
        "bytes changed": overwritten(whole),
        "zeros": whole[:third] + bytes(third) + whole[2 * third :],
    }[damage]
    path = tmp_path / "a.jpg"
    path.write_bytes(changed)
    assert re.search(r"JPEG is (damaged|truncated)", refusal(path))


def test_damage_is_told_as_libjpeg_tells_it() -> None:
    start = JPEG.index(b"\xff\xda") + 14
    with pytest.raises(ImageError, match="premature end of data segment"):
        decode_image(JPEG[: start + (len(JPEG) - start) // 2] + JPEG[-2:], "a")
    with pytest.raises(ImageError, match="extraneous bytes before marker 0xd9"):
        decode_image(JPEG[:-2] + b"abcdefgh" * 5 + JPEG[-2:], "a")


ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07"  # a colour transform that does not exist
BAD_PROFILE = b"\xff\xe2\0\x12ICC_PROFILE\0\x05\x01ab"  # part 5 of 1
HARMLESS = {
    "version": JPEG.replace(b"JFIF\0\x01", b"JFIF\0\x07", 1),
    "adobe": JPEG[:2] + ADOBE + JPEG[2:],
    "colour profile": JPEG[:20] + BAD_PROFILE + JPEG[20:],
    "bytes between segments": JPEG[:20] + b"junk" * 20 + JPEG[20:],
    "spectral selection": JPEG.replace(b"\x03\x11\0\x3f\0", b"\x03\x11\0\0\0", 1),
    "bytes left over": JPEG[:-2] + b"abcd" + JPEG[-2:],
    "padding": JPEG[:-2] + bytes(300) + JPEG[-2:],
    "fill bytes": JPEG[:-2] + b"\xff" * 300 + JPEG[-2:],
}


@pytest.mark.parametrize("oddity", HARMLESS)
def test_oddities_are_no_damage(oddity: str) -> None:
    data = HARMLESS[oddity]
    assert data != JPEG
    np.testing.assert_array_equal(decode_image(data, "a"), decode_image(JPEG, "a"))


@pytest.mark.parametrize("oddity", [name for name in HARMLESS if name not in {"bytes left over", "padding"}])
def test_oddities_do_not_hide_damage(oddity: str) -> None:
    data = HARMLESS[oddity]
    with pytest.raises(ImageError, match="damaged"):
        decode_image(data[:-800] + data[-400:], "a")


@pytest.mark.skipif(not REAL, reason="FSSD_TEST_DATA does not name a folder of data sets")
def test_no_real_image_is_refused() -> None:
    files = sorted(file for file in Path(REAL).rglob("*.jpg") if file.is_file())[::20]
    assert len(files) > 100
    for file in files:
        data = np.fromfile(file, np.uint8)
        expected = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        if read_header(file).orientation == 1:
            np.testing.assert_array_equal(read_image(file), expected)


def test_scans_of_a_jpeg() -> None:
    assert count_scans(JPEG) == 1  # all components in one
    progressive = encode(Pillow.fromarray(picture(120, 160)), "JPEG", quality=90, progressive=True)
    assert count_scans(progressive) == 10  # libjpeg's jpeg_simple_progression for three components
    grey = encode(Pillow.fromarray(picture(120, 160)[:, :, 0]), "JPEG", progressive=True)
    assert count_scans(grey) == 6  # likewise for one
    assert count_scans(progressive + JPEG + b"\xff\xda" * 50) == 10  # the first picture alone
    thumbnail = b"\xff\xfe" + struct.pack(">H", len(JPEG) + 2) + JPEG
    assert count_scans(JPEG[:2] + thumbnail + JPEG[2:]) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF"])
def test_other_truncated_formats(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = encode(Pillow.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)), kind)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(data[: len(data) // 2])
    assert "truncated" in refusal(path)


def png_of(width: int, height: int) -> bytes:
    """A PNG header that declares a size, with next to no pixels behind it."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 15_000, 60_000, 2**31 - 1])
def test_decompression_bomb(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of(side, side))
    assert "scale the image down" in refusal(path)


def test_jpeg_bomb_is_refused_before_decoding() -> None:
    at = JPEG.index(b"\xff\xc0") + 5
    huge = JPEG[:at] + struct.pack(">HH", 65000, 65000) + JPEG[at + 4 :]
    with pytest.raises(ImageError, match="scale the image down"):
        decode_image(huge, "a")


def test_limit_counts_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    assert read_image(path, max_pixels=160 * 120).shape == (120, 160, 3)
    assert "160 x 120" in refusal(path, max_pixels=160 * 120 - 1)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="8 bits"):
        decode_image(encode(Pillow.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "a")


def float_tiff() -> bytes:
    """One pixel of three float32, as scientific programs write them; pillow has no such mode."""
    tags = [
        (256, 1),
        (257, 1),
        (258, 32),
        (259, 1),
        (262, 2),
        (273, 150),
        (277, 3),
        (278, 1),
        (279, 12),
        (339, 3),
    ]
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + rows + bytes(4)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(150, b"\0") + struct.pack("<3f", 0, 0.5, 1)


def of_twelve_bits() -> bytes:
    start = JPEG.index(b"\xff\xc0") + 4  # the precision in the header of the frame
    return JPEG[:start] + b"\x0c" + JPEG[start + 1 :]


@pytest.mark.parametrize("data", [float_tiff(), of_twelve_bits()])
def test_pixels_of_other_kinds_are_no_damage(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"a: holds pixels of a kind that is not read .* 8 bits") as caught:
        decode_image(data, "a")
    assert "damaged" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # pillow comments on damaged TIFF tags
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_damaged_bytes_raise_only_image_errors(kind: str) -> None:
    rng = np.random.default_rng(7)
    options: dict[str, object] = {} if kind in {"BMP", "GIF", "PPM"} else {"exif": exif(6)}
    whole = encode(Pillow.fromarray(picture(24, 32)), kind, **options)
    refused = 0
    for turn in range(250):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)] if turn % 2 else whole)
        near = 64 if turn % 3 else len(data)  # headers are where the trouble is
        for place in rng.integers(0, min(near, len(data)), rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        try:
            image = decode_image(bytes(data), "a", max_pixels=100_000)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        except ImageError as error:
            assert isinstance(error, FssdError)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_size_is_read_from_the_header_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.image"
    data = encode(Pillow.fromarray(picture()), kind)
    keep = (
        len(data) if kind in {"WEBP", "TIFF"} else len(data) * 9 // 10
    )  # those two keep their directory apart
    path.write_bytes(data[:keep])
    assert image_size(path) == (40, 30)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_arrays_from_pillow_are_writable_too(kind: str) -> None:
    assert decode_image(encode(Pillow.fromarray(picture()), kind), "a").flags.writeable


def test_size_of_a_png_costs_no_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Pillow.fromarray(picture()), "PNG"))  # without EXIF, which pillow then looks for
    decoded: list[object] = []

    def load(self: PngImageFile) -> None:
        decoded.append(self)

    monkeypatch.setattr(PngImageFile, "load", load)
    assert image_size(path) == (40, 30)
    assert decoded == []
