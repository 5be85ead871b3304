"""From the bytes of a request to images; each image is checked before it is decoded."""

from __future__ import annotations

from typing import Any, NamedTuple

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from fssd.data.decode import START_OF_SCAN, ImageHeader, count_scans, decode_image, probe_image
from fssd.data.sample import Image
from fssd.errors import ImageError, ImageSizeError
from fssd.serve.limits import MEGA, ServerLimits
from fssd.serve.refusals import RequestError

FORM = "multipart/form-data"
FIELDS = 16  # the most fields of a form apart from its files; they are ignored
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of the second header, by version
NAME = "the image"


class Upload(NamedTuple):
    """The bytes of one image. name: the file name that the client gave."""

    name: str
    data: bytes


def split_uploads(content_type: str, body: bytes, limits: ServerLimits) -> list[Upload]:
    """The images of a body, at least one: the body is an image or a multipart form. Raises RequestError.

    The images are not checked yet; see `check_image`.
    """
    if not body:
        raise RequestError("empty_body", "There is no image in the request; send one as its body.")
    if content_type.partition(";")[0].strip().lower() != FORM:
        return [Upload("", body)]
    uploads = _read_form(content_type, body, limits)
    if not uploads:
        raise RequestError(
            "bad_upload", "There is no file in the form; send the image as a file, not as a field."
        )
    return uploads


def check_image(data: bytes, limits: ServerLimits) -> ImageHeader:
    """The header of an image that may be decoded. Raises RequestError for any other."""
    if not is_image(data):
        raise RequestError("unsupported_image", "This is not a JPEG, PNG, WebP or BMP image; convert it.")
    try:
        header = probe_image(data, NAME)
    except ImageSizeError as error:
        raise _too_many_pixels(limits) from error
    except ImageError as error:
        raise _damaged() from error
    pixels = header.width * header.height
    if pixels > limits.pixels:
        raise _too_many_pixels(limits)
    if header.format in {"JPEG", "MPO"} and _asks_for_too_much(data, pixels, limits):
        raise RequestError("too_many_pixels", "The JPEG has too many scans for its size; save it again.")
    return header


def _asks_for_too_much(jpeg: bytes, pixels: int, limits: ServerLimits) -> bool:
    """Whether a JPEG has too many scans: a scan of a few bytes can cost as much as decoding the whole image.

    Counting the byte pattern that begins a scan gives an upper bound in a hundredth of the time of parsing
    the markers, so that comes first.
    """
    most = max(limits.passes, pixels)
    return pixels * jpeg.count(START_OF_SCAN) > most and pixels * count_scans(jpeg) > most


def decode_upload(data: bytes, limits: ServerLimits) -> Image:
    """(H, W, 3) uint8 RGB, upright, from bytes that `check_image` accepted. Raises RequestError."""
    try:
        return decode_image(data, NAME, limits.pixels)
    except ImageSizeError as error:
        raise _too_many_pixels(limits) from error
    except ImageError as error:
        raise _damaged() from error


def is_image(data: bytes) -> bool:
    """Whether bytes begin as a JPEG, PNG, WebP or BMP does."""
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return True
    if data.startswith(b"RIFF"):
        return data[8:12] == b"WEBP"
    return data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in BMP_HEADERS


class _Form:
    """Collects the files of a form in memory; python-multipart calls its methods while it parses a body."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.files: list[Upload] = []
        self.ended = False
        self._parts = 0
        self._header = b""
        self._value = b""
        self._name: str | None = None
        self._chunks: list[bytes] = []

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self.most + FIELDS:
            raise _bad_form("holds too many parts")
        self._name = None
        self._chunks = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            name = parse_options_header(self._value)[1].get(b"filename")
            self._name = None if name is None else name.decode("utf-8", "replace")
        self._header = self._value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self._chunks.append(data[start:end])

    def on_part_end(self) -> None:
        if self._name is None:
            return
        if len(self.files) == self.most:
            raise RequestError("too_many_images", f"A request holds at most {self.most} images.")
        self.files.append(Upload(self._name, b"".join(self._chunks)))

    def on_end(self) -> None:
        self.ended = True


def _read_form(content_type: str, body: bytes, limits: ServerLimits) -> list[Upload]:
    form = _Form(limits.batch)
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise _bad_form("has no boundary in its Content-Type")
    callbacks: Any = {name: getattr(form, name) for name in vars(_Form) if name.startswith("on_")}
    try:
        MultipartParser(boundary, callbacks).write(body)
    except FormParserError as error:
        raise _bad_form("is damaged") from error
    if not form.ended:
        raise _bad_form("is cut short")
    return form.files


def _bad_form(reason: str) -> RequestError:
    return RequestError("bad_upload", f"The multipart form {reason}; send it again, or an image as the body.")


def _too_many_pixels(limits: ServerLimits) -> RequestError:
    return RequestError(
        "too_many_pixels", f"The image has more than {limits.pixels / MEGA:g} megapixels; scale it down."
    )


def _damaged() -> RequestError:
    return RequestError("damaged_image", "The image is damaged or cut short; save or fetch it again.")
