"""The argument IMAGES... of the commands: image and video files, folders and glob patterns."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fssd.data.decode import IMAGE_EXTENSIONS, read_image
from fssd.data.formats.lookup import is_hidden
from fssd.data.sample import Image
from fssd.errors import DataError

VIDEO_EXTENSIONS = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


def find_inputs(arguments: Sequence[str]) -> list[Path]:
    """Image and video files without duplicates, in the order given; folders are searched deeply and sorted.

    Raises DataError for an argument that names nothing, or a file that is neither image nor video.
    """
    return list(dict.fromkeys(file for argument in arguments for file in _expand(argument)))


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_EXTENSIONS


def find_stills(arguments: Sequence[str]) -> tuple[list[Path], int]:
    """The images of `find_inputs` and the number of videos, which are printed as errors. Raises DataError."""
    files = find_inputs(arguments)
    videos = [file for file in files if is_video(file)]
    for file in videos:
        print(f"error: {file}: is a video, where images are needed; extract its frames", file=sys.stderr)
    stills = [file for file in files if not is_video(file)]
    if not stills:
        raise DataError("there are no images; name images or folders of them")
    return stills, len(videos)


def read_images(files: Iterable[Path], readable: list[int], sizes: list[tuple[int, int]]) -> Iterator[Image]:
    """The decoded images; prints an error for each other. Appends indices to `readable`, (width, height) to
    `sizes`.
    """
    for index, file in enumerate(files):
        try:
            image = read_image(file)
        except DataError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        readable.append(index)
        sizes.append((image.shape[1], image.shape[0]))
        yield image


def output_names(files: Iterable[Path], suffix: str) -> list[str]:
    """A file name for the result of each input: its stem, numbered if several inputs share it."""
    taken: set[str] = set()
    names = []
    for file in files:
        name, number = f"{file.stem}{suffix}", 2
        while name.lower() in taken:
            name, number = f"{file.stem}-{number}{suffix}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        known = (file for file in path.rglob("*") if file.is_file() and _is_known(file))
        files = sorted(file for file in known if not is_hidden(file, path))
        missing = "this folder holds no image or video"
    elif path.exists():
        files = [path] if _is_known(path) else []
        missing = f"is neither an image ({', '.join(sorted(IMAGE_EXTENSIONS))}) nor a video"
    else:
        matches = (Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 (absolute too)
        files = sorted(file for file in matches if file.is_file() and _is_known(file))
        missing = "no such file, folder or pattern; check the path"
    if not files:
        raise DataError(missing, file=path)
    return files


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS or is_video(path)
