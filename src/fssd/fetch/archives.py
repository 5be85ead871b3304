"""The archives of each data set: the official ones, and those of a user's table.

A table is a YAML file with a list of archives for each data set; only `url` is required:

    mine:
      - {url: "https://example.org/photos.zip", sha256: 9f86d0..., size: 123456}
      - {url: "https://example.org/extra.tar.gz", md5: 098f6b..., part: extra, optional: true}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from fssd.data.unpack import TAR, ZIP
from fssd.errors import ConfigError, nearest

HEX_DIGITS = {"md5": 32, "sha256": 64}
_KEYS = ("url", "part", "size", "optional", *HEX_DIGITS)


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack.

    url: http or https. part: the name by which a user chooses it. checksum: (md5 or sha256, hex digits), None
    if no checksum is published. size: bytes, None if not known. optional: fetched only if the user names it.
    """

    url: str
    part: str
    checksum: tuple[str, str] | None = None
    size: int | None = None
    optional: bool = False

    @property
    def file_name(self) -> str:
        return _file_name(self.url)


Table = dict[str, tuple[Archive, ...]]


def _voc(year: int, name: str, part: str, md5: str, size: int) -> Archive:
    url = f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/VOC{name}.tar"
    return Archive(url, part, ("md5", md5), size)


def _coco(name: str, part: str, md5: str, size: int | None, optional: bool = False) -> Archive:
    # http, because the https certificate is for another name.
    return Archive(f"http://images.cocodataset.org/{name}.zip", part, ("md5", md5), size, optional)


OFFICIAL: Table = {
    "voc2007": (
        _voc(2007, "trainval_06-Nov-2007", "trainval", "c52e279531787c972589f7e41ab4ae64", 460_032_000),
        _voc(2007, "test_06-Nov-2007", "test", "b6e924de25625d8de591ea690078ad9f", 451_020_800),
    ),
    "voc2012": (
        _voc(2012, "trainval_11-May-2012", "trainval", "6cd6e144f989b92b3379bac3b3de84fd", 1_999_639_040),
    ),
    "coco2017": (
        _coco(
            "annotations/annotations_trainval2017",
            "annotations",
            "f4bbac642086de4f52a3fdda2de5fa2c",
            252_907_541,
        ),
        _coco("zips/val2017", "val", "442b8da7639aecaf257c1dceb8ba8c80", 815_585_330),
        _coco("zips/train2017", "train", "cced6f7f71b7629ddf16f17bbcfab6b2", 19_336_861_798),
        _coco("annotations/image_info_test2017", "test-info", "85da7065e5e600ebfee8af1edb634eb5", None, True),
        _coco("zips/test2017", "test", "77ad2c53ac5d0aea611d422c0938fb35", 6_646_970_404, True),
    ),
}


def choose(table: Table, name: str, parts: Sequence[str] = ()) -> tuple[Archive, ...]:
    """The given parts of a data set, or all that are not optional. Raises ConfigError for an unknown name."""
    if name not in table:
        raise ConfigError(f"there is no data set {name!r} to fetch{nearest(name, table)}")
    archives = {archive.part: archive for archive in table[name]}
    for part in parts:
        if part not in archives:
            raise ConfigError(f"{name} has no part {part!r}{nearest(part, archives)}")
    chosen = parts or [part for part, archive in archives.items() if not archive.optional]
    return tuple(archive for part, archive in archives.items() if part in chosen)


def read_table(file: Path) -> Table:
    """The data sets of a YAML table. Raises DataError for invalid YAML, ConfigError for an invalid entry."""
    from fssd.data.formats.yolo_yaml import read_yaml

    return {name: _read_set(rows, f"{file} ({name})") for name, rows in read_yaml(file).items()}


def _file_name(url: str) -> str:
    """The last part of a URL, without its query; "" if there is none."""
    return PurePosixPath(unquote(urlsplit(url).path)).name


def _read_set(rows: Any, where: str) -> tuple[Archive, ...]:
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{where}: must be a list of archives, each with a `url:`")
    archives = tuple(_read_archive(row, f"{where}, archive {number}") for number, row in enumerate(rows, 1))
    for values in ([a.part for a in archives], [a.file_name for a in archives]):
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            advice = "give each `part:` and file a name of its own"
            raise ConfigError(f"{where}: two archives are called {twice!r}; {advice}")
    return archives


def _read_archive(row: Any, where: str) -> Archive:
    if not isinstance(row, dict) or not isinstance(row.get("url"), str):
        raise ConfigError(f"{where}: needs `url:`, the URL of an archive")
    for key in row:
        if key not in _KEYS:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), _KEYS)}")
    name = _require_archive(row["url"], where)
    stem = next(name[: -len(end)] for end in ZIP + TAR if name.lower().endswith(end))
    size, part, optional = row.get("size"), row.get("part", stem), row.get("optional", False)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ConfigError(f"{where}: size is {size!r}; it is a number of bytes")
    if not isinstance(part, str) or not part:
        raise ConfigError(f"{where}: part is {part!r}; it is a name")
    if not isinstance(optional, bool):
        raise ConfigError(f"{where}: optional is {optional!r}; it is true or false")
    return Archive(row["url"], part, _read_checksum(row, where), size, optional)


def _require_archive(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is read, and may be none, only now
    except ValueError as error:
        raise ConfigError(f"{where}: {url!r} is not a URL ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{where}: {url!r} is not a URL; it must begin with http:// or https://")
    name = _file_name(url)
    unsafe = name.startswith(".") or re.search(r"[\x00-\x1f\x7f-\x9f\\]", name)
    if unsafe or not name.lower().endswith(ZIP + TAR):
        raise ConfigError(f"{where}: {url!r} must end in the name of an archive ({', '.join(ZIP + TAR)})")
    return name


def _read_checksum(row: dict[str, Any], where: str) -> tuple[str, str] | None:
    stated = {kind: row[kind] for kind in HEX_DIGITS if row.get(kind) is not None}
    if len(stated) > 1:
        raise ConfigError(f"{where}: has md5 and sha256; give only one of them")
    for kind, digits in stated.items():
        text, count = str(digits).lower(), HEX_DIGITS[kind]
        if not re.fullmatch(f"[0-9a-f]{{{count}}}", text):
            raise ConfigError(f"{where}: {kind} is {digits!r}; it has {count} hex digits (in quotes)")
        return kind, text
    return None
