"""From the bytes of a request to images; each image is checked before it is decoded."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from fssd.data.decode import START_OF_SCAN, ImageHeader, count_scans, decode_image, probe_image
from fssd.data.sample import Image
from fssd.errors import ImageError, ImageSizeError
from fssd.serve.limits import MEGA, ServerLimits
from fssd.serve.refusals import RequestError

# A form that it cannot read is answered with a 400; its own lines in the log would have no address.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

FORM = "multipart/form-data"
FIELDS = 16  # the most fields of a form apart from its files; they are ignored
PARAMETERS = ("score", "max")  # of the address; a form has them by mistake
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes of the second header, by version
NAME = "the image"


class Upload(NamedTuple):
    """The bytes of one image. name: the file name that the client gave."""

    name: str
    data: bytes


def split_uploads(content_type: str, body: bytes, limits: ServerLimits) -> list[Upload]:
    """The images (one or more, unchecked) in a body that is an image or a form. Raises RequestError."""
    if not body:
        raise RequestError("empty_body", "There is no image in the request; send one as its body.")
    if content_type.partition(";")[0].strip().lower() != FORM:
        return [Upload("", body)]
    uploads = _read_form(content_type, body, limits)
    if not uploads:
        message = "There is no file in the form; send the image as a file, not as a field."
        raise RequestError("bad_upload", message)
    return uploads


def check_image(data: bytes, limits: ServerLimits) -> ImageHeader:
    """The header of an image that may be decoded. Raises RequestError for any other."""
    if not is_image(data):
        raise RequestError("unsupported_image", "This is not a JPEG, PNG, WebP or BMP image; convert it.")
    with _refusals(limits):
        header = probe_image(data, NAME)
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
    with _refusals(limits):
        return decode_image(data, NAME, limits.pixels)


def is_image(data: bytes) -> bool:
    """Whether bytes begin as a JPEG, PNG, WebP or BMP does."""
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return True
    if data.startswith(b"RIFF"):
        return data[8:12] == b"WEBP"
    return data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in BMP_HEADERS


def _read_form(content_type: str, body: bytes, limits: ServerLimits) -> list[Upload]:
    """The files of a form, all kept in memory; of other fields, parameters are refused."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise _bad_form("has no boundary in its Content-Type")
    uploads: list[Upload] = []
    fields = 0
    ended = False

    def on_field(field: Field) -> None:
        nonlocal fields
        fields += 1
        if fields > FIELDS:
            raise _bad_form("holds too many fields")
        name = (field.field_name or b"").decode("utf-8", "replace")
        if name.casefold() in PARAMETERS:
            advice = f"put it into the address, as ?{name.casefold()}="
            raise RequestError("bad_parameter", f"{name}: a form holds images alone; {advice}.")

    def on_file(file: File) -> None:
        if len(uploads) == limits.batch:
            raise RequestError("too_many_images", f"A request holds at most {limits.batch} images.")
        file.file_object.seek(0)
        name = (file.file_name or b"").decode("utf-8", "replace")
        uploads.append(Upload(name, file.file_object.read()))

    def on_end() -> None:
        nonlocal ended
        ended = True

    in_memory = {"MAX_MEMORY_FILE_SIZE": math.inf}
    try:
        parser = FormParser(FORM, on_field, on_file, on_end, boundary, config=in_memory)
        parser.write(body)
    except FormParserError as error:
        raise _bad_form("is damaged") from error
    if not ended:
        raise _bad_form("is cut short")
    return uploads


def _bad_form(reason: str) -> RequestError:
    return RequestError("bad_upload", f"The multipart form {reason}; send it again, or an image as the body.")


@contextmanager
def _refusals(limits: ServerLimits) -> Iterator[None]:
    """Raise the errors of reading an image as those of a request."""
    try:
        yield
    except ImageSizeError as error:
        raise _too_many_pixels(limits) from error
    except ImageError as error:
        message = "The image is damaged or cut short; save or fetch it again."
        raise RequestError("damaged_image", message) from error


def _too_many_pixels(limits: ServerLimits) -> RequestError:
    return RequestError(
        "too_many_pixels", f"The image has more than {limits.pixels / MEGA:g} megapixels; scale it down."
    )
