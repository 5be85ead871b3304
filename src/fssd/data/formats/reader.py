"""The contract of a label format. A new format is one file that makes a Reader and one row in `READERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fssd.data.sample import DataSet


@dataclass(frozen=True)
class Reader:
    """One label format.

    name: of the format, also its `DataSet.facts["format"]`.
    looked_for: what `recognise` looks for, for the message that nothing was found.
    recognise: a path the user gave to the root of the data set (a file or folder, often the path itself), or
    None if it is of another format. Quick: it opens no image.
    splits: the names of the splits of a root; () where the format has none.
    classes: the class names of a root, over all its splits.
    read: the records and problems of one split of a root. The split is as the user asked (`+` joins several,
    None takes all). The classes are names in order, with which an object of another class is an error; None
    takes the root's own. The folder, if given, is where the pictures are looked for, instead of beside the
    labels. See `Record` for what a reader reports of an image. What lies in the root and is not used is a
    warning, one for each kind, with the count and the first name.
    All of them raise DataError for what is missing or not usable.
    """

    name: str
    looked_for: str
    recognise: Callable[[Path], Path | None]
    splits: Callable[[Path], tuple[str, ...]]
    classes: Callable[[Path], tuple[str, ...]]
    read: Callable[[Path, str | None, Sequence[str] | None, Path | None], DataSet]
