"""Names what lies in a data set's folder and is not used: a warning a kind, with count and first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fssd.counted import counted
from fssd.data.formats.lookup import UNREADABLE, PictureFinder, suffix_of
from fssd.data.sample import Problem


def unlisted(
    root: Path, finders: Sequence[PictureFinder], listed: Iterable[Path | str], *, by_name: bool = True
) -> list[Problem]:
    """The pictures that are not listed, have an ending that cannot be read, or are links to nothing.

    And folders that a link shows twice, of which one name is used. by_name: whether labels belong to a
    picture by its name; where a file lists all pictures, each is found under any name of its folder.
    """
    known = {os.path.normpath(path) for path in listed}
    readable = {path for finder in finders for path in finder.files}
    entries = dict.fromkeys(path for finder in finders for path in finder.entries)
    left = [path for path in entries if os.path.normpath(path) not in known]
    plain = [path for path in left if path in readable]
    broken = [path for path in left if path.is_symlink() and not path.exists()]
    odd = [path for path in left if suffix_of(path.name) in UNREADABLE and path not in broken]
    endings = Counter(suffix_of(path.name) for path in odd)
    counted = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
    parents = {f"{os.path.split(path)[0]}{os.sep}" for path in known}
    again = [
        folder
        for folder in dict.fromkeys(folder for finder in finders if by_name for folder in finder.again)
        if not any(parent.startswith(f"{os.path.normpath(folder)}{os.sep}") for parent in parents)
    ]
    reasons = (
        (plain, f"{len(plain)} of {len(readable)} pictures have no labels and are left out"),
        (odd, f"pictures of formats that cannot be read are left out, convert them to JPEG: {counted}"),
        (again, f"{len(again)} folders of pictures are linked to others that are read, and are passed over"),
        (broken, f"{len(broken)} links to pictures that are not there are left out"),
    )
    return [note for paths, reason in reasons for note in first_named(root, paths, reason)]


def first_named(root: Path, paths: Sequence[Path], reason: str) -> list[Problem]:
    """One warning for all paths; none if there are none."""
    return [Problem("warning", root, "", f"{reason}, the first is {paths[0]}")] if paths else []


def shapes_taken(file: Path, count: Counter[str]) -> list[Problem]:
    """A warning that counts the shapes that became boxes, by kind: `1 rotated box, 2 polygons were ...`."""
    words = [counted(number, kind) for kind, number in sorted(count.items())]
    verb = "was" if count.total() == 1 else "were"
    reason = f"{', '.join(words)} {verb} taken as their bounding boxes"
    return [Problem("warning", file, "", reason)] if words else []
