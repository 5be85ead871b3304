"""A folder that is written whole or not at all, and the pictures in it."""

from __future__ import annotations

import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image as Pillow

from fssd.atomic import make_folder, temporary_prefix
from fssd.data.decode import ImageHeader, read_bytes, read_header, read_image
from fssd.data.stored import PictureSource, StoredPicture
from fssd.errors import ConfigError

_TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


def require_new(folder: Path) -> None:
    """Raise ConfigError if there is a file or a folder with something in it."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder}: exists already and is kept; choose another --out or remove it")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, beside `folder`, renamed to it on success and removed if the block raises.

    A killed process can leave one called `.tmp-*` behind. Raises ConfigError as `require_new`.
    """
    require_new(folder)
    make_folder(folder.absolute().parent)
    temporary = folder.absolute().parent / f"{temporary_prefix()}{secrets.token_hex(6)}"
    temporary.mkdir()
    try:
        yield temporary
        require_new(folder)
        if folder.exists():
            folder.rmdir()
        temporary.replace(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def place_picture(source: PictureSource, target: Path, link: bool = False, upright: bool = False) -> None:
    """Copy a picture, or link it: a hard link where the file system can, else a symbolic one.

    upright: write a picture that EXIF turns as turned pixels, without EXIF. Raises ImageError for it.
    A picture of a shard is copied, since there is no file to link to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if upright and (header := read_header(source)).orientation != 1:
        _write_upright(source, header, target)
    elif isinstance(source, StoredPicture):
        target.write_bytes(read_bytes(source))
    elif link:
        _link(Path(source).resolve(), target)
    else:
        shutil.copyfile(source, target)


def _write_upright(source: PictureSource, header: ImageHeader, target: Path) -> None:
    """In the pixel mode of the picture: grey, 16 bits, transparency, CMYK and a colour profile stay."""
    read_image(source)  # which tells what is damaged
    kind = "JPEG" if header.format == "MPO" else header.format
    settings = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True}
    with Pillow.open(
        io.BytesIO(read_bytes(source)), formats=[header.format.replace("MPO", "JPEG")]
    ) as picture:
        profile = picture.info.get("icc_profile")
        picture.transpose(_TURNS[header.orientation]).save(target, kind, icc_profile=profile, **settings)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)
