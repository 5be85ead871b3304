"""Detections as HTML for notebooks: a picture and a table."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import cv2

from fssd.data.sample import Image
from fssd.inference.draw import encode_image

WIDEST = 800  # pixels of the longer side: a notebook keeps every picture in its file
MOST_ROWS = 20
COLUMNS = ("name", "score", "x1", "y1", "x2", "y2")


def detections_html(title: str, picture: Image | None, rows: Sequence[Sequence[str]]) -> str:
    """A picture, scaled down to `WIDEST`, above a table of the first `MOST_ROWS` rows with `COLUMNS`."""
    parts = [f"<div>{escape(title)}</div>"]
    if picture is not None:
        parts.append(_image_tag(picture, title))
    if rows:
        parts.append(f"<table><tr>{_cells('th', COLUMNS)}</tr>")
        parts += [f"<tr>{_cells('td', row)}</tr>" for row in rows[:MOST_ROWS]]
        parts.append("</table>")
    if len(rows) > MOST_ROWS:
        parts.append(f"<div>and {len(rows) - MOST_ROWS} more</div>")
    return "".join(parts)


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _image_tag(picture: Image, text: str) -> str:
    height, width = picture.shape[:2]
    scale = min(1.0, WIDEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smaller = picture if scale == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(encode_image(".jpg", smaller)).decode()  # type: ignore[arg-type]
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(text)}">'
