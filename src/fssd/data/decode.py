"""Bytes of an image file -> (H, W, 3) RGB, or an ImageError that names the file. Nothing else escapes.

Pillow reads the header before any pixel is decoded, so that a file that declares an absurd size costs
nothing. simplejpeg then decodes 8-bit JPEG: to the same pixels as OpenCV, a fifth faster, and unlike OpenCV
and pillow it tells what libjpeg warns of when it fills damaged parts. Pillow decodes the rest.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image as Pillow
from PIL import features

from fssd.data.sample import Image
from fssd.data.stored import PictureSource, StoredPicture, picture_name
from fssd.errors import DataError, ImageError, ImageSizeError

MAX_PIXELS = 100_000_000  # 300 MB decoded: more than any camera makes, less than a small machine has
_JPEG = (".jpg", ".jpeg", ".jfif")
SUFFIXES = {
    "JPEG": _JPEG, "MPO": _JPEG, "PNG": (".png",), "BMP": (".bmp",), "GIF": (".gif",), "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm"),
}  # fmt: skip
"""The endings of file names by pillow's name of the format; MPO is a JPEG with several pictures."""
if "avif" in features.modules and features.check("avif"):  # pillow 11.3 or newer
    SUFFIXES["AVIF"] = (".avif",)
if find_spec("pillow_heif"):
    import_module("pillow_heif").register_heif_opener()
    SUFFIXES["HEIF"] = (".heic", ".heif")
IMAGE_EXTENSIONS = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
# Listed, because pillow would otherwise try all its plugins, one of which starts Ghostscript.
_FORMATS = tuple(name for name in SUFFIXES if name != "MPO")  # pillow opens MPO as JPEG
_SIGNATURES = (b"\xff\xd8", b"\x89PNG", b"BM", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"P5", b"P6")
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # not a stuffed FF 00, a restart marker, or padding
_END_OF_IMAGE = b"\xff\xd9"
_SEQUENTIAL = (0xC0, 0xC1)  # their only spectral selection is 0 to 63; some cameras write other bytes
_NO_PIXELS = frozenset((*range(0xE0, 0xF0), 0xFE))  # APPn and comments
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_UNREAD = re.compile(
    r"unknown pixel mode|cannot handle \d+-bit|unsupported bmp|unknown data organization", re.I
)
_STRAY = 4  # bytes that some cameras leave between the coded data and the end marker
START_OF_SCAN = b"\xff\xda"


@dataclass(frozen=True)
class ImageHeader:
    """What a file's header states.

    format: pillow's name, e.g. "JPEG". mode: pillow's pixel mode, e.g. "RGB", "I;16".
    width, height: pixels once EXIF orientation is applied. orientation: EXIF value 1 to 8, 1 is upright.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int

    @property
    def turned(self) -> bool:
        """True when applying EXIF orientation swaps width and height."""
        return self.orientation >= 5


def read_image(picture: PictureSource, max_pixels: int = MAX_PIXELS) -> Image:
    """`decode_image` of a file or of a picture in a shard. Raises ImageError, also when it is missing."""
    return decode_image(read_bytes(picture), picture_name(picture), max_pixels)


def decode_image(data: bytes, name: Path | str, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode bytes to (H, W, 3) uint8 RGB with EXIF orientation applied.

    Grey, palette and CMYK become RGB; 16 bits keep the upper 8; transparent pixels are blended with white; an
    animation gives its first frame. `name` is used in messages only.

    A JPEG is damaged if libjpeg warns about its coded data: they end early, hold an invalid code, miss a
    restart marker or leave bytes over. Not damage are oddities of the header, such as an unknown version or
    bytes between its segments, and at the end up to 4 bytes too many or padding with one value. Damage that
    still reads as valid codes for the right number of blocks goes unseen: JPEG has no checksum.
    Raises ImageError (ImageSizeError for more than `max_pixels`) and nothing else, whatever the bytes.
    """
    picture, header = _open(io.BytesIO(data), name)
    if header.width * header.height > max_pixels:
        raise _too_large(f"{header.width} x {header.height}", max_pixels, name)
    image = _decode_jpeg(data, header, name) if header.format in {"JPEG", "MPO"} else None
    if image is None:
        image = _decode_with_pillow(picture, name)
    return _upright(image, header.orientation)


def convert_picture(picture: Pillow.Image) -> Image:
    """A picture opened with pillow, as `read_image` would return its file. Raises ImageError."""
    name = getattr(picture, "filename", "") or "PIL image"
    return _upright(_decode_with_pillow(picture, name), _orientation(picture))


def image_size(picture: PictureSource) -> tuple[int, int]:
    """(width, height) in pixels as `read_image` returns them, from the header alone. Raises ImageError."""
    header = read_header(picture)
    return header.width, header.height


def read_header(picture: PictureSource) -> ImageHeader:
    """Format, mode, size and orientation of an image, without decoding it. Raises ImageError."""
    if isinstance(picture, StoredPicture):
        return probe_image(read_bytes(picture), picture.path)
    try:
        with Path(picture).open("rb") as file:
            return _open(file, picture)[1]
    except (OSError, ValueError) as error:
        raise _unreadable(picture, error) from error


def count_pictures(file: Path) -> int:
    """The pictures of an animation or the pages of a TIFF, by their headers; 1 for all other files.

    A JPEG's further pictures are previews of the first.
    """
    if file.suffix.lower() in _JPEG:
        return 1
    try:
        with file.open("rb") as stream:
            picture = _open(stream, file)[0]
            return 1 if picture.format in {"JPEG", "MPO"} else int(getattr(picture, "n_frames", 1))
    except Exception:  # the first picture was read, and the others are not
        return 1


def probe_image(data: bytes, name: Path | str) -> ImageHeader:
    """`read_header` for bytes already in memory. Raises ImageError."""
    return _open(io.BytesIO(data), name)[1]


def read_bytes(picture: PictureSource) -> bytes:
    """The content of an image file. Raises ImageError when it is missing, a folder or not readable.

    Raises ConfigError where a folder of shards cannot be reached.
    """
    if isinstance(picture, StoredPicture):
        try:
            return picture.read()
        except DataError as error:
            raise ImageError(f"cannot be read: {error}", file=picture.path) from error
    try:
        return Path(picture).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(picture, error) from error


def _unreadable(path: Path | str, error: Exception) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError("the image file is missing; restore it or remove its labels", file=path)
    if isinstance(error, IsADirectoryError):
        return ImageError("is a folder, not an image; give the path of a file", file=path)
    return ImageError(f"cannot be opened ({_text(error)}); check its name and permissions", file=path)


def _open(file: BinaryIO, name: Path | str) -> tuple[Pillow.Image, ImageHeader]:
    start = file.read(16)
    file.seek(0)
    if not start:
        raise ImageError("the image file is empty (0 bytes); fetch it again or leave it out", file=name)
    try:
        picture = Pillow.open(file, formats=_FORMATS)
        width, height = picture.size
        orientation = _orientation(picture)
        if orientation >= 5:
            width, height = height, width
        return picture, ImageHeader(picture.format or "", picture.mode, width, height, orientation)
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise _too_large("far more", None, name) from error
    except Exception as error:  # damaged headers raise anything from SyntaxError to struct.error
        if fault := _unread_kind(file, start):
            reason = f"holds pixels of a kind that is not read ({fault}); convert it to RGB of 8 bits"
        elif start.startswith(_SIGNATURES) or ("AVIF" in SUFFIXES and start[4:12] == b"ftypavif"):
            reason = "is damaged or truncated in its header; fetch it again or leave it out"
        else:
            reason = f"is no image in a supported format ({', '.join(_FORMATS)}); convert it"
        raise ImageError(reason, file=name) from error


def _unread_kind(file: BinaryIO, start: bytes) -> str:
    """What pillow says of a header that it understands and whose pixels it does not read, else ""."""
    for kind in _FORMATS:
        factory, accepts = Pillow.OPEN[kind]
        if accepts is None or accepts(start) is not True:
            continue
        try:
            file.seek(0)
            factory(file, "")
        except Exception as error:
            return _text(error) if _UNREAD.match(str(error)) else ""
    return ""


def _orientation(picture: Pillow.Image) -> int:
    if picture.format == "TIFF":
        return 1  # pillow turns TIFF by itself, size included
    try:
        # The method of the base class: PNG's decodes the whole picture to look for EXIF after the pixels.
        value = Pillow.Image.getexif(picture).get(0x0112, 1)
    except Exception:  # an image with damaged EXIF is still usable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def count_scans(data: bytes) -> int:
    """The number of scans of a JPEG, each a pass over its pixels: 1 or a few, about 10 if progressive."""
    return sum(marker == START_OF_SCAN[1] for marker, _, _ in _segments(data))


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each marker and its parameters in the first picture of a JPEG.

    The end marker is the last, if it is there. What lies between is skipped, such as coded data after a scan
    header.
    """
    offset = 2
    while found := _MARKER.search(data, offset):
        marker, offset = data[found.end() - 1], found.end()
        if marker != _END_OF_IMAGE[1]:
            offset += max(int.from_bytes(data[offset : offset + 2], "big"), 2)
        yield marker, found.end() - 2, offset
        if marker == _END_OF_IMAGE[1]:
            return


def _decode_jpeg(data: bytes, header: ImageHeader, name: Path | str) -> Image | None:
    """The stored pixels; None if pillow must decode it. Raises ImageError for damage, which pillow hides."""
    kind = "CMYK" if header.mode == "CMYK" else "RGB"
    try:
        image: Image = simplejpeg.decode_jpeg(data, kind)
    except ValueError:
        if fault := _jpeg_damage(data):
            raise ImageError(f"{fault}; fetch the file again or leave it out", file=name) from None
        try:
            image = simplejpeg.decode_jpeg(data, kind, strict=False)
        except ValueError:
            return None
    stored = (header.width, header.height) if header.turned else (header.height, header.width)
    return image if kind == "RGB" and image.shape[:2] == stored else None


def _jpeg_damage(data: bytes) -> str:
    """What is wrong with the coded data of a JPEG, "" if nothing is or pillow may say it."""
    segments = list(_segments(data))
    if not segments or segments[-1][0] != _END_OF_IMAGE[1]:
        return "the JPEG is truncated"
    try:
        simplejpeg.decode_jpeg(_without_header_faults(data, segments), "GRAY")
    except ValueError as error:
        reason, end = str(error), segments[-1][1]
    else:
        return ""
    left_over = _LEFT_OVER.search(reason)
    if left_over and (int(left_over[1]) <= _STRAY or len(set(data[end - int(left_over[1]) : end])) == 1):
        return ""
    return f"the JPEG is damaged ({reason.removeprefix('Corrupt JPEG data: ')})"


def _without_header_faults(data: bytes, segments: Sequence[tuple[int, int, int]]) -> bytes:
    """The JPEG with nothing but what decoding needs, so that libjpeg warns about its coded data alone."""
    parts = [data[:2]]
    is_sequential = False
    for (marker, start, end), (_, following, _) in zip(segments, (*segments[1:], segments[-1]), strict=True):
        is_sequential |= marker in _SEQUENTIAL
        if marker == START_OF_SCAN[1]:
            header = data[start : end - 3] + b"\0\x3f\0" if is_sequential else data[start:end]
            parts += [header, data[end:following]]
        elif marker not in _NO_PIXELS:
            parts.append(data[start:end])
    return b"".join(parts)


def _decode_with_pillow(picture: Pillow.Image, name: Path | str) -> Image:
    try:
        picture.load()
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as error:
        raise _too_large("far more", None, name) from error
    except Exception as error:  # on damaged data decoders raise any exception
        reason = f"is truncated or damaged ({_text(error)}); fetch it again or leave it out"
        raise ImageError(reason, file=name) from error
    return _as_rgb(picture, name)


def _as_rgb(picture: Pillow.Image, name: Path | str) -> Image:
    """The pixels of a picture that is loaded."""
    try:
        if picture.mode == "F":
            raise ImageError("holds floating-point pixels; convert them to 8 bits", file=name)
        if picture.mode.startswith("I"):
            read = _from_32_bits if (picture.mode, picture.format) == ("I", "TIFF") else _from_16_bits
            return read(np.asarray(picture), name)
        if picture.has_transparency_data:
            return _on_white(picture)
        return np.asarray(picture.convert("RGB"))
    except ImageError:
        raise
    except Exception as error:
        reason = (
            f"has pixels of mode {picture.mode} that do not convert to RGB ({_text(error)}); convert them"
        )
        raise ImageError(reason, file=name) from error


def _from_32_bits(values: npt.NDArray[np.generic], name: Path | str) -> Image:
    """As `_from_16_bits`; small values are as likely of 8 bits, which would turn black."""
    if values.size and 0 < values.max() <= 255:
        reason = f"holds pixels of 32 bits, none above {values.max()}, and does not say of which range"
        raise ImageError(f"{reason}; convert them to 8 bits", file=name)
    return _from_16_bits(values, name)


def _from_16_bits(values: npt.NDArray[np.generic], name: Path | str) -> Image:
    wide = values.astype(np.int64)
    if wide.size and not 0 <= wide.min() <= wide.max() <= 65535:
        raise ImageError("holds pixels of more than 16 bits; convert to 8 bits", file=name)
    return np.repeat((wide >> 8).astype(np.uint8)[:, :, None], 3, axis=2)


def _on_white(picture: Pillow.Image) -> Image:
    above = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
    white = Pillow.new("RGBA", above.size, (255, 255, 255, 255))
    return np.asarray(Pillow.alpha_composite(white, above).convert("RGB"))


def _upright(image: Image, orientation: int) -> Image:
    """Apply the EXIF orientation: 2 to 4 mirror or turn upside down, 5 to 8 also swap the sides."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in {2, 3, 6, 7}:
        image = image[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        image = image[::-1]
    # pillow's arrays are read-only, and callers may write into the result
    return np.require(image, requirements=["C", "W"])


def _too_large(size: str, limit: int | None, name: Path | str) -> ImageSizeError:
    most = " than is safe to decode" if limit is None else f", over the limit of {limit:,} in all"
    return ImageSizeError(f"declares {size} pixels{most}; scale the image down", file=name)


def _text(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
