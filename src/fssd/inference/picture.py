"""What a detector takes as an image, as an array; and what is wrong with anything else."""

from __future__ import annotations

import glob
import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from fssd.data.decode import convert_picture, read_image
from fssd.data.sample import Image
from fssd.errors import ImageError
from fssd.inference.inputs import is_video

Picture = str | Path | PIL.Image.Image | np.ndarray
_BYTES = (bytes, bytearray, memoryview, io.IOBase)


def is_one(images: Any) -> bool:
    """Whether this is meant as one image, and not as several. Bytes and files can be iterated over too."""
    single = (str, Path, PIL.Image.Image, np.ndarray, *_BYTES)
    return isinstance(images, single) or not hasattr(images, "__iter__")


def as_array(image: Picture) -> Image:
    """A picture as (H, W, 3) uint8 RGB, rotated upright by its EXIF tag. Raises ImageError."""
    if isinstance(image, (str, Path)):
        _check_path(str(image))
        return read_image(Path(image))
    if isinstance(image, PIL.Image.Image):
        return convert_picture(_eight_bits(image))
    if isinstance(image, _BYTES):
        kind = type(image).__name__
        advice = "give its path, or PIL.Image.open(io.BytesIO(data))"
        raise ImageError(f"the content of an image file ({kind}) is not taken; {advice}")
    if not isinstance(image, np.ndarray):
        raise ImageError(f"an image is a path, a PIL image or an array, not a {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ImageError(f"an image array is (H, W, 3) uint8 RGB; convert {image.shape} {image.dtype}")
    return image


def _check_path(name: str) -> None:
    """Raise ImageError for a path that cannot be an image file."""
    if "://" in name:
        raise ImageError(f"{name}: is an address; download the image and give its path")
    path = Path(name)
    if is_video(path):
        raise ImageError("is a video; use `fssd detect`, or fssd.inference.video.read_frames", file=path)
    if "\0" in name or path.exists():
        return
    if glob.has_magic(name):
        raise ImageError("is a pattern and no file; give a list of files, as of pathlib's glob", file=path)
    raise ImageError("there is no such image file; check the path", file=path)


def _eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The picture; where 8 bits were converted to "I", which else holds 16, as 8 bits again."""
    if picture.mode != "I" or picture.format is not None:
        return picture
    least, most = picture.getextrema()
    return picture.convert("L") if least >= 0 and most <= 255 else picture  # type: ignore[operator]
