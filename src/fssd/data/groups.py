"""Which images belong together: near-duplicates, frames of one film, augmented copies of one picture.

If some of them are trained on and the others measured, the measured accuracy is too high.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from fssd.data.duplicates import LEAST_CORRELATION, Ints, alike, read_thumbnail
from fssd.data.picture_identity import own_names, plain_path
from fssd.data.sample import Record

MOST_COMPARED = 30_000  # images; comparing each with each takes minutes above
STRICTER = (LEAST_CORRELATION, 0.98, 0.99)  # correlations that are tried until a group is no larger than half
BLOCK = 25  # frames that stay together in a film that is most of the data set

_COPY = re.compile(r"(.+)\.rf\.[0-9A-Za-z]+")  # Roboflow: picture_jpg.rf.HASH, one for each augmented copy
_FRAME = re.compile(
    r"(.*?)[-_. ]*(?:frame|frm|mp4|mov|avi|mkv|webm)[-_. ]*(\d+)(?:_(?:jpe?g|png|bmp))?", re.I
)


class Groups(NamedTuple):
    """keys: a name of its group for each image. notes: what could not be told apart, in words."""

    keys: tuple[str, ...]
    notes: tuple[str, ...]


def group_images(records: Sequence[Record]) -> Groups:
    """The group of each image, by the names and by the looks of the pictures, which are read for that."""
    keys = _by_name(records)
    if len(records) > MOST_COMPARED:
        note = f"near-duplicates are not looked for among more than {MOST_COMPARED:,} images"
        return Groups(tuple(keys), (note,))
    with ThreadPoolExecutor() as pool:
        thumbnails = list(pool.map(read_thumbnail, (record.picture for record in records)))
    named = tuple(keys)
    for least in STRICTER:
        joined = _joined(keys, alike(thumbnails, least))
        if _largest(joined) <= max(len(records) / 2, _largest(named)):
            return Groups(joined, ())
    note = "most images look alike, so near-duplicates cannot be told from other images"
    return Groups(named, (note,))


def _by_name(records: Sequence[Record]) -> list[str]:
    """The film or picture of each image, or its part of a film that is most of them.

    Frames of one film may have ids of two kinds, longer ones where another film has their names; so those
    that lie together count as one film too.
    """
    names, ids, places = (
        [_film(name) for name in kind]
        for kind in (
            own_names(records),
            [record.image_id for record in records],
            [plain_path(record) for record in records],
        )
    )
    links = (linked for kind in (ids, places) for linked in _same([film for film, _ in kind]))
    films = _joined([film for film, _ in names], links)
    counts = Counter(films)
    numbers = [own if own is not None else other for (_, own), (_, other) in zip(names, ids, strict=True)]
    return [
        f"{film}/{number // BLOCK}" if number is not None and counts[film] > len(records) / 2 else film
        for film, number in zip(films, numbers, strict=True)
    ]


def _film(name: str) -> tuple[str, int | None]:
    """The film or picture that an image comes from, and its number among the frames."""
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.rpartition(".")
    stem = stem if stem and suffix.lower() in {"jpg", "jpeg", "png", "bmp", "webp"} else last
    copy = _COPY.fullmatch(stem)
    stem = copy[1] if copy else stem
    frame = _FRAME.fullmatch(stem)
    if frame is None:
        return f"{folder}{slash}{stem}", None
    return f"{folder}{slash}{frame[1]}*", int(frame[2])


def _same(keys: Sequence[str]) -> Iterable[Ints]:
    """The indices of each key's images, where it has several."""
    members: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    return [np.array(own) for own in members.values() if len(own) > 1]


def _joined(keys: Sequence[str], links: Iterable[Ints]) -> tuple[str, ...]:
    """The smallest key of all images that links or equal keys connect, for each image."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    group = np.array([numbers[key] for key in keys], np.int64)
    for linked in links:
        ends = np.unique(group[linked])
        if len(ends) > 1:
            group[np.isin(group, ends)] = ends[0]
    smallest: dict[int, str] = {}
    for number, key in zip(group.tolist(), keys, strict=True):
        smallest[number] = min(key, smallest.get(number, key))
    return tuple(smallest[number] for number in group.tolist())


def _largest(keys: Sequence[str]) -> int:
    return max(Counter(keys).values(), default=0)
