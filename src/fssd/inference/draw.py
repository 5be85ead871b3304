"""Boxes and names drawn on images, for people to look at."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from fssd.atomic import atomic_write
from fssd.data.sample import Boxes, Image
from fssd.errors import ImageError
from fssd.plots import system_font

Colour = tuple[int, int, int]  # RGB, 0..255
Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2, pixels, last one included
Mark = tuple[Rectangle, str, Colour]  # a visible box, its name and its colour

GOLDEN_RATIO = 0.618034  # step of the hue from class to class, which keeps the hues well separated
SHADES = ((0.85, 0.95), (0.95, 0.65), (0.45, 1.0))  # (saturation, value), in turn
LONGEST_JPEG = 65_500  # pixels, of libjpeg
SMALLEST_TEXT = 7  # pixels; smaller text is illegible


def class_colour(index: int) -> Colour:
    """The colour of a class, always the same."""
    saturation, value = SHADES[index % len(SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: Image,
    boxes: Boxes,
    names: Sequence[str],
    colours: Sequence[Colour],
    text: int | None = None,
    line: int | None = None,
) -> Image:
    """A copy of (H, W, 3) uint8 RGB with (N, 4) xyxy boxes, and a label for each name that is not empty.

    text, line: text height and line width in pixels, by default in proportion to the image. Later boxes are
    drawn on top. Boxes are clipped to the image, labels moved into it, and names that are too long cut.
    """
    canvas = PillowImage.fromarray(np.ascontiguousarray(image))
    pen = ImageDraw.Draw(canvas)
    height, width = image.shape[:2]
    line = line or max(1, round(0.003 * (width + height)))
    items = list(zip(boxes, names, colours, strict=True))
    visible = [(r, str(n), c) for b, n, c in items if (r := _inside(b, width, height)) is not None]
    for rectangle, _, colour in visible:
        pen.rectangle(rectangle, outline=colour, width=line)
    _draw_labels(pen, visible, width, height, text or max(10, round(0.012 * (width + height))))
    return np.array(canvas, np.uint8)


def write_jpeg(path: Path, image: Image) -> None:
    """Write (H, W, 3) uint8 RGB as a JPEG of quality 95, atomically. Raises ImageError if it is too large."""
    height, width = image.shape[:2]
    if max(height, width) > LONGEST_JPEG:
        raise ImageError(
            f"cannot be written: JPEG holds {LONGEST_JPEG} pixels a side, not {width} x {height}", file=path
        )
    atomic_write(path, encode_image(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95]))


def _inside(box: npt.NDArray[Any], width: int, height: int) -> Rectangle | None:
    """The visible part of a box in whole pixels, or None."""
    x1, y1, x2, y2 = box
    if not (x1 <= x2 and y1 <= y2 and x1 < width and y1 < height and x2 >= 0 and y2 >= 0):  # nan fails too
        return None
    x1, y1, x2, y2 = np.clip(box, 0, (width - 1, height - 1) * 2).round().astype(int).tolist()
    return x1, y1, x2, y2


def _draw_labels(
    pen: ImageDraw.ImageDraw, visible: Sequence[Mark], width: int, height: int, size: int
) -> None:
    taken: list[Rectangle] = []
    labels = []
    # The last box is on top and has the highest score, so it chooses its label's position first.
    for rectangle, name, colour in reversed(visible):
        text, font, pad = fitting_text(name, size, width, height)
        if text:
            taken.append(_free_position(rectangle, _text_size(text, font, pad), taken, width, height))
            labels.append((taken[-1], text, font, pad, colour))
    for label, text, font, pad, colour in reversed(labels):
        pen.rectangle(label, fill=colour)
        left, top, _, _ = font.getbbox(text)
        pen.text((label[0] + pad - left, label[1] + pad - top), text, fill=_ink(colour), font=font)


def fitting_text(name: str, size: int, width: int, height: int) -> tuple[str, Any, int]:
    """The name, its font and the padding: reduced in size to fit, then cut; "" if nothing fits."""
    text = " ".join(name.split())  # a line break would make the label two lines high
    if not text.isascii() and system_font() is None:
        text = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in text if not unicodedata.combining(c))  # u for ü rather than an empty box
    while text:
        font, pad = _font(size, name.isascii()), max(1, size // 5)
        box = _text_size(text, font, pad)
        if box[0] <= width and box[1] <= height:
            return text, font, pad
        if size > SMALLEST_TEXT:
            size -= 1
        else:
            text = text[:-1]
    return "", None, 0


@lru_cache(maxsize=64)
def _font(size: int, ascii_only: bool) -> Any:
    file = None if ascii_only else system_font()
    return ImageFont.load_default(size=size) if file is None else ImageFont.truetype(file, size)


def encode_png(image: Image) -> bytes:
    """(H, W, 3) uint8 RGB as a PNG."""
    return encode_image(".png", image)


def encode_image(suffix: str, image: Image, settings: Sequence[int] = ()) -> bytes:
    """(H, W, 3) uint8 RGB as the content of a file; settings: OpenCV's. Raises ImageError."""
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    if not done:
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise ImageError(f"an image of {size} cannot be encoded as {suffix}; write a .png, or scale it down")
    return bytes(data)


def _text_size(text: str, font: Any, pad: int) -> tuple[int, int]:
    """(width, height) of a label, pixels."""
    left, top, right, bottom = font.getbbox(text)
    return int(np.ceil(right - left)) + 2 * pad, int(np.ceil(bottom - top)) + 2 * pad


def _free_position(
    box: Rectangle, size: tuple[int, int], taken: Sequence[Rectangle], width: int, height: int
) -> Rectangle:
    """The first of four that covers no other label: above the box, in its top, below it, in its bottom."""
    x1, y1, _, y2 = box
    lowest = height - size[1]
    left = min(x1, width - size[0])
    tops = [top for top in (y1 - size[1], y1, y2 + 1, y2 - size[1] + 1) if 0 <= top <= lowest]
    # A box may be so low or flat that none of them lies in the image.
    labels = [(left, top, left + size[0] - 1, top + size[1] - 1) for top in tops or [min(y1, lowest)]]
    return next((one for one in labels if not any(_overlap(one, other) for other in taken)), labels[0])


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _ink(colour: Colour) -> Colour:
    """Black or white, whichever contrasts more with the colour (luma of ITU-R BT.601)."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)
