"""Small pictures for pages, as data URIs: an image or a part of it, with boxes drawn after scaling."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fssd.data.sample import Image
from fssd.data.stored import PictureSource, StoredPicture
from fssd.evaluation.pairing import Floats
from fssd.inference.draw import Colour, draw_boxes, encode_image
from fssd.report.html import Html, file_link, tag

QUALITY = 80  # of a JPEG
TEXT, LARGE_TEXT = 14, 16  # pixels, the height of names on boxes in whole images and in parts of images
LINE = 2  # pixels, the width of a box
LARGEST_GROWTH = 4.0  # the largest factor by which a part of an image is enlarged

# Okabe and Ito 2008: colour-blind people can distinguish them, and they stand out in most photographs.
CORRECT: Colour = (86, 180, 233)
FALSE: Colour = (213, 94, 0)
FOUND: Colour = (0, 158, 115)
MISSED: Colour = (240, 228, 66)


class Mark(NamedTuple):
    """One box to draw: (4,) xyxy pixels of the image, the text on it ("" for none), its colour."""

    box: Floats
    text: str
    colour: Colour


class View(NamedTuple):
    """A picture in a page. shape: (height, width) in pixels. uri: `data:image/jpeg;base64,...`."""

    shape: tuple[int, int]
    uri: str


def whole(image: Image, marks: Sequence[Mark], side: int = 480) -> View:
    """A whole image, at most `side` pixels wide and three quarters of that high."""
    height, width = image.shape[:2]
    scale = min(1.0, side / width, 0.75 * side / height)
    return _view(image, marks, (0, 0, width, height), scale, TEXT)


def around(image: Image, box: Floats, marks: Sequence[Mark], side: int = 250) -> View:
    """The square around a box, (4,) xyxy pixels, twice as long as it; scaled to at most `side` pixels."""
    height, width = image.shape[:2]
    reach = max(2.0 * float(max(box[2] - box[0], box[3] - box[1])), 48.0)
    left, right = _span(float(box[0] + box[2]) / 2, reach, width)
    top, bottom = _span(float(box[1] + box[3]) / 2, reach, height)
    scale = min(side / max(right - left, bottom - top), LARGEST_GROWTH)
    return _view(image, marks, (left, top, right, bottom), scale, LARGE_TEXT)


def figure(view: View, source: PictureSource, folder: Path, alt: str, *caption: object) -> Html:
    """A picture with a caption that links to its file if it has one, for a page in `folder`."""
    return tag("figure", linked(picture(view, alt), source, folder), tag("figcaption", *caption))


def linked(shown: object, source: PictureSource, folder: Path) -> Html:
    """What is shown, as a link to the file it comes from; a picture in a shard has none."""
    if isinstance(source, StoredPicture):
        return tag("span", shown)
    return tag("a", shown, href=file_link(Path(source), folder))


def picture(view: View, alt: str) -> Html:
    """The picture without caption and link."""
    height, width = view.shape
    return tag("img", src=view.uri, alt=alt, width=width, height=height, loading="lazy")


def _span(middle: float, reach: float, limit: int) -> tuple[int, int]:
    """The part of 0..limit that is `reach` long and centred on `middle` as far as the limits allow."""
    length = min(round(reach), limit)
    start = min(max(round(middle - length / 2), 0), limit - length)
    return start, start + length


def _view(
    image: Image, marks: Sequence[Mark], part: tuple[int, int, int, int], scale: float, text: int
) -> View:
    left, top, right, bottom = part
    shown = image[top:bottom, left:right]
    size = max(1, round(scale * (right - left))), max(1, round(scale * (bottom - top)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    shown = np.asarray(cv2.resize(shown, size, interpolation=interpolation), np.uint8)
    factor = np.array([size[0] / (right - left), size[1] / (bottom - top)] * 2)
    boxes = np.array([(mark.box - [left, top, left, top]) * factor for mark in marks], np.float32)
    names, colours = [mark.text for mark in marks], [mark.colour for mark in marks]
    drawn = draw_boxes(shown, boxes.reshape(-1, 4), names, colours, text, LINE)
    return View((size[1], size[0]), _jpeg(drawn))


def _jpeg(image: Image) -> str:
    data = encode_image(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
