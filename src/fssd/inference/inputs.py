"""The argument IMAGES... of the commands: image and film files, folders and glob patterns."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fssd.data.decode import IMAGE_EXTENSIONS, read_image
from fssd.data.sample import Image
from fssd.data.tiles import one_window
from fssd.errors import DataError, ImageError
from fssd.inference.live import public_name

if TYPE_CHECKING:
    from fssd.data.loader import Windows

VIDEO_EXTENSIONS = frozenset({
    ".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".vob", ".flv",
    ".f4v", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".mxf", ".mjpeg", ".divx",
})  # fmt: skip
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_IS_NEITHER = {
    ".heic": "needs fssd[heic]; install that, or convert it to JPEG",
    ".heif": "needs fssd[heic]; install that, or convert it to JPEG",
    ".avif": "needs pillow 11.3 or newer; update that, or convert it to JPEG",
}


def find_inputs(arguments: Sequence[str], out: Path | None = None) -> list[Path]:
    """Image and film files without duplicates, in the order given; folders are searched deeply and sorted.

    Links to folders are followed once. Hidden files and folders, and macOS's, are not looked at. Prints a
    line that counts what else is passed over in folders and patterns. A broken link with the name of an image
    or film is among the files: reading it will fail. Raises DataError for an argument that names nothing, for
    a file that is neither image nor film, and for a URL.

    out: where results go. What lies there is passed over in folders and patterns that begin outside of it.
    """
    passed_over: Counter[str] = Counter()
    found = (file for argument in arguments for file in _expand(argument, passed_over, out))
    files = list(dict.fromkeys(found))
    if passed_over:
        print(f"passed over: {counts_by_suffix(passed_over)}", file=sys.stderr)
    return files


def is_video(path: Path | str) -> bool:
    """Whether a file is a film, by its suffix."""
    return _suffix(path) in VIDEO_EXTENSIONS


def find_stills(arguments: Sequence[str]) -> tuple[list[Path], int]:
    """The images of `find_inputs` and the number of films, which are printed as errors. Raises DataError."""
    files = find_inputs(arguments)
    videos = [file for file in files if is_video(file)]
    for file in videos:
        print(f"error: {file}: is a video, where images are needed; extract its frames", file=sys.stderr)
    stills = [file for file in files if not is_video(file)]
    if not stills:
        raise DataError("there are no images; name images or folders of them")
    return stills, len(videos)


def find_only_stills(arguments: Sequence[str]) -> list[Path]:
    """The images of `find_inputs`. Raises DataError for a film, and where there is no image."""
    files = find_inputs(arguments)
    for file in filter(is_video, files):
        raise DataError("is a video, where images are needed; extract its frames", file=file)
    if not files:
        raise DataError("there are no images; name images or folders of them")
    return files


def read_images(
    files: Iterable[Path], readable: list[int], sizes: list[tuple[int, int]], windows: Windows = one_window
) -> Iterator[Image]:
    """The decoded images; prints an error for each other. Appends indices to `readable`, (width, height) to
    `sizes`. windows: those of the detector, which refuses an image that makes too many tiles.
    """
    for index, file in enumerate(files):
        try:
            require_target(file)
            image = read_image(file)
            size = image.shape[1], image.shape[0]
            windows(size)
        except DataError as error:
            print(f"error: {error if error.file else f'{file}: {error}'}", file=sys.stderr)
            continue
        readable.append(index)
        sizes.append(size)
        yield image


def require_target(file: Path) -> None:
    """Raise ImageError for a link to a file that is not there, and for a name that no file can have."""
    try:
        is_broken = file.is_symlink() and not file.exists()
    except (OSError, ValueError) as error:
        reason = f"cannot be looked up ({getattr(error, 'strerror', None) or error}); correct its name"
        raise ImageError(reason, file=file) from error
    if is_broken:
        raise ImageError(f"is a broken link to {file.readlink()}; restore that file or remove it", file=file)


def output_names(files: Iterable[Path], suffix: str, kept: Mapping[str, str] | None = None) -> list[str]:
    """A file name for the result of each input: its stem, numbered if several inputs share it.

    kept: names that inputs have already, by their paths.
    """
    own = kept or {}
    taken = {name.lower() for name in own.values()}
    return [own.get(str(file)) or _free_name(file.stem, suffix, taken) for file in files]


def _free_name(stem: str, suffix: str, taken: set[str]) -> str:
    """A name that is not taken, which it is then."""
    name, number = f"{stem}{suffix}", 2
    while name.lower() in taken:
        name, number = f"{stem}-{number}{suffix}", number + 1
    taken.add(name.lower())
    return name


def _expand(argument: str, passed_over: Counter[str], out: Path | None) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        others: Counter[str] = Counter()
        files = _sift(_outside(files_below(path), path, out, others), others)
        missing = f"this folder holds no image or video{', but ' * bool(others)}{counts_by_suffix(others)}"
        passed_over.update(others)
    elif path.exists() or path.is_symlink():
        files = [path] if is_input(path) else []
        missing = f"is neither an image ({', '.join(sorted(IMAGE_EXTENSIONS))}) nor a video"
        missing = _IS_NEITHER.get(path.suffix.lower(), missing)
    elif _URL.match(argument):
        raise DataError(f"{public_name(argument)}: URLs are not read; download the file and name that")
    else:
        matches = (Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 (absolute too)
        matching = (file for file in matches if not file.is_dir())
        files = _sift(_outside(matching, _base(path), out, passed_over), passed_over)
        missing = "no such file, folder or pattern; check the path"
    if not files:
        raise DataError(missing, file=path)
    return files


def _base(pattern: Path) -> Path:
    """The folder that a pattern begins in."""
    return next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))


def _outside(
    files: Iterable[Path], root: Path, out: Path | None, passed_over: Counter[str]
) -> Iterator[Path]:
    """The files but for those of a folder of results below `root`, which are counted by its name."""
    if out is None or root.resolve() not in out.resolve().parents:
        yield from files
        return
    results = out.resolve()
    parents: dict[Path, bool] = {}  # of each folder, whether it lies among the results
    for file in files:
        if file.parent not in parents:
            parents[file.parent] = file.parent.resolve().is_relative_to(results)
        if parents[file.parent]:
            passed_over[f"in {out}"] += 1
        else:
            yield file


def files_below(root: Path) -> Iterator[Path]:
    """The visible files in a folder and below, broken links included; each folder once, links to it last."""
    folders, linked = [root], list[Path]()
    seen: set[tuple[int, int]] = set()
    while folders or linked:
        folder = folders.pop() if folders else linked.pop()
        facts = folder.stat()
        if (facts.st_dev, facts.st_ino) in seen:
            continue
        seen.add((facts.st_dev, facts.st_ino))
        for entry in os.scandir(folder):
            path = folder / entry.name
            if entry.name[0] == "." or entry.name == "__MACOSX":
                continue
            if not path.is_dir():
                yield path
            elif path.is_symlink():
                linked.append(path)
            else:
                folders.append(path)


def _sift(paths: Iterable[Path], passed_over: Counter[str]) -> list[Path]:
    """The images and films among files, sorted; counts the others by their suffix, broken links as ""."""
    files = []
    for path in paths:
        if is_input(path):
            files.append(path)
        else:
            count_other(path, passed_over)
    return sorted(files)


def count_other(path: Path, passed_over: Counter[str]) -> None:
    """Count a file that is neither image nor film by its suffix, a broken link as ""."""
    is_broken = path.is_symlink() and not path.exists()
    passed_over["" if is_broken else path.suffix.lower() or "without a suffix"] += 1


def counts_by_suffix(passed_over: Counter[str]) -> str:
    """Such as `2 .heic, 1 .txt, 1 broken link`; "" is the suffix of those."""
    ranked = sorted(passed_over.items(), key=lambda row: (-row[1], row[0]))
    suffixes = [f"{count} {suffix}" for suffix, count in ranked if suffix]
    links = passed_over[""]
    return ", ".join(suffixes + [f"{links} broken link{'s' * (links > 1)}"] * (links > 0))


def is_input(path: Path | str) -> bool:
    """Whether a file is an image or a film, by its suffix."""
    return _suffix(path) in IMAGE_EXTENSIONS or is_video(path)


def _suffix(path: Path | str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (Path keeps the parts of each name it is given)
