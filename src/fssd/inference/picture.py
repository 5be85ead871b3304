"""What a detector takes: one image, several or a film, in any form; and what is wrong with anything else."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.request import Request, urlopen

import numpy as np
import PIL.Image
from torch import Tensor

from fssd.data.decode import convert_picture, decode_image, read_image
from fssd.data.sample import Image
from fssd.errors import DataError, ImageError
from fssd.inference.inputs import find_inputs, is_video
from fssd.inference.pixels import from_array, from_tensor, images_of_batch, is_batch
from fssd.inference.video import Film

Picture = str | Path | PIL.Image.Image | np.ndarray | Tensor | bytes | bytearray | memoryview | io.IOBase
_BYTES = (bytes, bytearray, memoryview)
_SINGLE = (PIL.Image.Image, *_BYTES)
LARGEST_DOWNLOAD = 100_000_000  # bytes
PATIENCE = 30.0  # seconds without a byte from a server


class NamedImage(NamedTuple):
    """(H, W, 3) uint8 RGB, and the file or address that it came from: "clip.mp4#12" for a frame, or None."""

    image: Image
    source: str | None


def kind_of(images: Any) -> Literal["one", "several", "film"]:
    """What is meant: one image; a folder, a pattern, a batch or another iterable of images; or a film."""
    if isinstance(images, (str, Path)):
        return _kind_of_path(str(images))
    if isinstance(images, (np.ndarray, Tensor)):
        return "several" if is_batch(images) else "one"
    # Bytes and open files can be iterated over too; not every open file is an io.IOBase.
    single = isinstance(images, _SINGLE) or _is_open_file(images)
    return "one" if single or not hasattr(images, "__iter__") else "several"


def as_array(image: Any, allow_url: bool = False) -> Image:
    """One picture as (H, W, 3) uint8 RGB, files rotated upright by their EXIF tag. Raises ImageError.

    allow_url: whether "http://" and "https://" addresses are fetched.
    """
    if isinstance(image, (str, Path)):
        if "://" in str(image):
            return _from_address(str(image), allow_url)
        _check_path(str(image))
        return read_image(Path(image))
    if isinstance(image, PIL.Image.Image):
        if not all(image.size):
            raise ImageError("a PIL image of {} x {} has no pixels; leave it out".format(*image.size))
        if _is_closed(image):
            raise ImageError("a PIL image is closed; use it before, or call its load() before it is closed")
        return convert_picture(_eight_bits(image))
    if isinstance(image, _BYTES):
        return decode_image(bytes(image), type(image).__name__)
    if _is_open_file(image):
        return _from_file(image)
    if is_batch(image):
        shape = tuple(image.shape)
        raise ImageError(f"a batch {shape} stands where one image is meant; give the batch by itself")
    if isinstance(image, np.ndarray):
        return from_array(image)
    if isinstance(image, Tensor):
        return from_tensor(image)
    raise ImageError(f"an image is a path, a PIL image, an array, a tensor or bytes, not {_kind_name(image)}")


def single_images(images: Any, allow_url: bool = False) -> Iterator[NamedImage]:
    """One image for each item, so that results stand in the order of what was given; a folder, pattern or
    batch gives several. Raises ImageError for a film, and for several images in a place of one."""
    for item in _items(images):
        if kind_of(item) == "film":
            raise ImageError("is a video among images; give it alone, or use stream()", file=item)
        if kind_of(item) == "several" and isinstance(item, (str, Path)):
            raise ImageError("stands for several images in a list; give it alone, or use stream()", file=item)
        yield NamedImage(as_array(item, allow_url), _source(item))


def every_image(images: Any, allow_url: bool = False) -> Iterator[NamedImage]:
    """All images of all items, one at a time: also of folders and patterns, and the frames of films.

    Raises ImageError for what is none, and after its last frame for a film that is damaged.
    """
    for item in _items(images):
        kind = kind_of(item)
        if kind == "film":
            film = Film(Path(item))
            for image in film.frames():
                yield NamedImage(image, f"{item}#{film.decoded[-1]}")
            film.require_whole()
        elif kind == "several" and (isinstance(item, (str, Path)) or is_batch(item)):
            yield from every_image(item, allow_url)
        else:
            yield NamedImage(as_array(item, allow_url), _source(item))


def batches(images: Iterable[NamedImage], size: int) -> Iterator[list[NamedImage]]:
    """The images, `size` at a time. Those that came before an error are given before it is raised."""
    batch: list[NamedImage] = []
    try:
        for image in images:
            batch.append(image)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _items(images: Any) -> Iterable[Any]:
    """What is given, one after another; the files of a folder or a pattern, the images of a batch."""
    if kind_of(images) != "several":
        return [images]
    if isinstance(images, (str, Path)):
        try:
            return find_inputs([str(images)])
        except ImageError:
            raise
        except DataError as error:
            raise ImageError(error.reason, file=error.file) from error
    if is_batch(images):
        return images_of_batch(images)
    return images  # type: ignore[no-any-return]


def _source(item: Any) -> str | None:
    return str(item) if isinstance(item, (str, Path)) else None


def _kind_of_path(name: str) -> Literal["one", "several", "film"]:
    if "://" in name or "\0" in name or not name:
        return "one"
    # Unlike pathlib's, these take a name that is too long for a path as one that does not exist.
    if os.path.isdir(name):  # noqa: PTH112
        return "several"
    if os.path.exists(name):  # noqa: PTH110
        return "film" if is_video(Path(name)) else "one"
    return "several" if glob.has_magic(name) else "one"


def _check_path(name: str) -> None:
    """Raise ImageError for a path that cannot be an image file."""
    path = Path(name)
    if "\0" in name or os.path.islink(name):  # noqa: PTH114
        return
    if not os.path.exists(name):  # noqa: PTH110
        raise ImageError("there is no such image file; check the path", file=path)
    if is_video(path):
        raise ImageError("is a video, where one image is needed; name an image", file=path)


def _is_open_file(value: Any) -> bool:
    return callable(getattr(value, "read", None))


def _from_file(file: io.IOBase) -> Image:
    """The image in the rest of an open file."""
    name = str(getattr(file, "name", type(file).__name__))
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be read ({error}); open it for reading in binary mode") from error
    if not isinstance(data, bytes):
        kind = "text" if isinstance(data, str) else f"something that gives {type(data).__name__}"
        raise ImageError(f"{name}: is open as {kind}; open it in binary mode, open(path, 'rb')")
    if not data and _is_read(file):
        raise ImageError(f"{name}: has been read to its end; call seek(0) first")
    return decode_image(data, name)


def _is_read(file: io.IOBase) -> bool:
    """Whether an open file stands behind its start; what has `read` alone does not tell."""
    try:
        return file.seekable() and file.tell() > 0
    except (AttributeError, OSError, ValueError):
        return False


def _from_address(url: str, allow_url: bool) -> Image:
    if not url.lower().startswith(("http://", "https://")):
        raise ImageError(f"{url}: is an address of another kind than http; download the image, give its path")
    if not allow_url:
        raise ImageError(
            f"{url}: is an address; download the image and give its path, or pass allow_url=True"
        )
    try:
        request = Request(url, headers={"User-Agent": "fssd"})
        with closing(urlopen(request, timeout=PATIENCE)) as answer:
            data = answer.read(LARGEST_DOWNLOAD + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise ImageError(f"{url}: cannot be fetched ({error}); check the address") from error
    if len(data) > LARGEST_DOWNLOAD:
        raise ImageError(f"{url}: is over {LARGEST_DOWNLOAD:,} bytes; download the file and give its path")
    try:
        return decode_image(data, "download")
    except ImageError as error:
        raise ImageError(f"{url}: {error.reason}") from error


def _is_closed(picture: PIL.Image.Image) -> bool:
    """Whether the pixels are gone, or cannot be read from its file any more."""
    if getattr(picture, "tile", None):
        return getattr(picture, "fp", None) is None
    try:
        _ = picture.im
    except ValueError:
        return True
    except AssertionError:  # not loaded yet
        return False
    return False


def _kind_name(value: Any) -> str:
    return "None" if value is None else f"{type(value).__name__} {value!r:.40}"


def _eight_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The picture; where 8 bits were converted to "I", which else holds 16, as 8 bits again."""
    if picture.mode != "I" or picture.format is not None:
        return picture
    least, most = picture.getextrema()
    return picture.convert("L") if least >= 0 and most <= 255 else picture  # type: ignore[operator]
