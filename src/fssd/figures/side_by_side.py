"""The detections of two models in the same images, one row for each model: the paper's Fig. 6."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw

from fssd.atomic import atomic_write, make_folder
from fssd.counted import counted
from fssd.data.sample import Image
from fssd.errors import ConfigError
from fssd.inference.detections import Detections
from fssd.inference.draw import encode_png, fitting_text, write_jpeg

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
TITLE = 24  # pixels, the height of the line above each image
TITLE_TEXT = 14  # pixels
GAP = 6  # pixels between the images of a block
BLOCK_GAP = 24  # pixels between two blocks of rows
TALLEST = 1.5  # times the width of a cell; a taller image is scaled down to this height
LONGEST_SIDE = 65_000  # pixels; a JPEG allows 65,535
PAPER, INK = (255, 255, 255), (51, 51, 51)


def shared_classes(rows: Sequence[Sequence[Detections]]) -> list[list[Detections]]:
    """The same detections with one common list of classes, so that a class has one colour in all rows."""
    names = list(dict.fromkeys(name for row in rows for found in row for name in found.classes))
    label = {name: index for index, name in enumerate(names)}
    return [
        [
            replace(found, labels=np.array([label[n] for n in found.names], np.int64), classes=tuple(names))
            for found in row
        ]
        for row in rows
    ]


def compose(
    rows: Sequence[Sequence[Detections]], names: Sequence[str], columns: int = 4, cell: int = 320
) -> Image:
    """One picture of detections that carry their images, (H, W, 3) uint8 RGB.

    rows: for each model the detections in the same images. names: of the models. columns: images side by
    side; further images form further blocks of rows. cell: width of an image, pixels. Images are scaled
    before boxes are drawn, so the text stays readable.
    """
    rows = shared_classes(rows)
    columns = min(columns, len(rows[0]))
    starts = range(0, len(rows[0]), columns)
    strips: list[Image] = []
    for start in starts:
        block = [[fit(found, cell) for found in row[start : start + columns]] for row in rows]
        height = max(_image(found).shape[0] for row in block for found in row)
        for name, row in zip(names, block, strict=True):
            strips.append(_strip([_cell(found, name, cell, height) for found in row], columns))
            strips.append(_blank(GAP, strips[-1].shape[1]))
        strips[-1] = _blank(BLOCK_GAP, strips[-1].shape[1])
    inner = np.concatenate(strips[:-1])
    return np.pad(inner, ((0, GAP), (GAP, GAP), (0, 0)), constant_values=255)


def check_room(images: int, models: int, columns: int, cell: int) -> None:
    """Raise ConfigError if the picture could be larger than a file format allows."""
    row = int(TALLEST * cell) + TITLE + GAP
    height = -(-images // columns) * (models * row + BLOCK_GAP)
    if max(height, min(columns, images) * (cell + GAP)) > LONGEST_SIDE:
        raise ConfigError(
            f"{images} images of {cell} pixels, {columns} side by side, are too many for one picture; name"
            " fewer, or change --columns or --cell"
        )


def write_picture(path: Path, image: Image) -> None:
    """Write (H, W, 3) uint8 RGB as PNG or JPEG, by the suffix, atomically, making the folder."""
    make_folder(path.parent)
    if path.suffix.lower() == ".png":
        atomic_write(path, encode_png(image))
    else:
        write_jpeg(path, image)


def _image(found: Detections) -> Image:
    if found.image is None:
        raise ValueError("these detections carry no image to draw on; detect with keep_image=True")
    return found.image


def fit(found: Detections, cell: int) -> Detections:
    """The same detections, with image and boxes scaled to the size in which they are shown."""
    image = _image(found)
    height, width = image.shape[:2]
    scale = min(cell / width, TALLEST * cell / height)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    factors = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    return replace(
        found,
        boxes=found.boxes * factors,
        image=np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8),
    )


def _cell(found: Detections, name: str, width: int, height: int) -> Image:
    """An image with its boxes, centred below its title, (TITLE + height, width, 3)."""
    drawn = found.draw()
    canvas = _blank(TITLE + height, width)
    left = (width - drawn.shape[1]) // 2
    top = TITLE + (height - drawn.shape[0]) // 2
    canvas[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    canvas[:TITLE] = _title(f"{name}: {counted(len(found), 'object')}", width)
    return canvas


def _title(text: str, width: int) -> Image:
    """(TITLE, width, 3): a line of text; if it is too long, it is made smaller or cut."""
    canvas = PillowImage.new("RGB", (width, TITLE), PAPER)
    shown, font, _ = fitting_text(text, TITLE_TEXT, width, TITLE)
    if shown:
        ImageDraw.Draw(canvas).text((1, TITLE - 6), shown, fill=INK, font=font, anchor="ls")
    return np.array(canvas, np.uint8)


def _strip(cells: Sequence[Image], columns: int) -> Image:
    """Cells side by side; a row that is not full is padded with blank cells."""
    height, width = cells[0].shape[:2]
    whole = [*cells, *[_blank(height, width)] * (columns - len(cells))]
    parts = [part for cell in whole for part in (cell, _blank(height, GAP))]
    return np.concatenate(parts[:-1], axis=1)


def _blank(height: int, width: int) -> Image:
    return np.full((height, width, 3), PAPER, np.uint8)
