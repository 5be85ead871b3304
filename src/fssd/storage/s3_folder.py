"""A folder in S3, or in another store that speaks its protocol, through pyarrow.

Region, endpoint and credentials come from where other programs find them too: AWS_REGION or
AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the
files in ~/.aws, or the role of the machine. Without credentials requests are not signed, which public buckets
allow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from shutil import copyfileobj
from typing import Any
from urllib.parse import urlsplit

from fssd.errors import ConfigError, DataError, FssdError, lacking
from fssd.storage.fetch_once import fetch_once
from fssd.storage.folders import Entry, Folder
from fssd.storage.local_folder import LocalFolder, cut_short

_DENIED = ("ACCESS_DENIED", "AccessDenied", "HTTP status 403", "INVALID_ACCESS_KEY")
_CHUNK = 8 << 20  # bytes
_OPEN_FILES = 256  # handles that a process keeps: opening one costs a request


def require_arrow() -> Any:
    """The module pyarrow. Raises ConfigError if it is not installed."""
    try:
        import pyarrow as arrow
    except ImportError as error:
        raise ConfigError(
            f'this needs the package pyarrow{lacking("pyarrow", error)}; pip install "fssd[s3]"'
        ) from error
    return arrow


@dataclass(frozen=True)
class S3Folder(Folder):
    """`s3://bucket/key`. An object appears with its last byte: a killed process leaves none behind.

    kept: a local folder where a file of which a range is read is kept whole, "" for none.
    """

    kept: str = ""

    def __post_init__(self) -> None:
        require_arrow()
        if not self.location.removeprefix("s3:").strip("/"):
            raise ConfigError(f"{self.location}: names no bucket; write s3://bucket/folder")

    def exists(self, name: str) -> bool:
        from pyarrow.fs import FileType

        with self._told(name):
            return bool(self._client().get_file_info(self._key(name)).type == FileType.File)

    def stamp(self, name: str) -> str:
        from pyarrow.fs import FileType

        with self._told(name):
            facts = self._client().get_file_info(self._key(name))
            if facts.type != FileType.File:
                raise FileNotFoundError
        return f"{facts.size}-{facts.mtime_ns}"

    def size(self, name: str) -> int:
        from pyarrow.fs import FileType

        with self._told(name):
            info = self._client().get_file_info(self._key(name))
        if info.type != FileType.File:
            raise DataError("there is no such object; check its name", file=self.path(name))
        return int(info.size)

    def list(self, below: str = "") -> Iterator[Entry]:
        from pyarrow.fs import FileSelector, FileType

        start = len(self._key("").rstrip("/")) + 1
        with self._told(below):
            selector = FileSelector(self._key(below), allow_not_found=True)
            found = self._client().get_file_info(selector)
            if not found and not self._has_bucket():
                raise FileNotFoundError
        found.reverse()
        while found:  # an entry is given up once it is reported, to make room for those of the folders
            entry = found.pop()
            name = entry.path[start:]
            if entry.base_name.startswith(".") or not entry.base_name:
                continue
            if entry.type == FileType.Directory:
                yield from self.list(name)
            else:
                yield Entry(name, entry.size)

    def read(self, name: str) -> bytes:
        with self._told(name), self._client().open_input_stream(self._key(name)) as stream:
            return bytes(stream.read())

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        if self.kept:
            fetch_once(self._kept_file(name), partial(self._download, name))
            return LocalFolder(self.kept).read_range(name, offset, size)
        with self._told(name):
            data = bytes(_handle(self._key(name), *_settings()).read_at(size, offset))
        if len(data) != size:
            raise cut_short(self.path(name), offset, size)
        return data

    def write(self, name: str, data: bytes) -> None:
        # In one call: closing a stream completes the object, also when an interrupt ends the block early.
        with self._told(name), self._client().open_output_stream(self._key(name)) as stream:
            stream.write(data)

    def upload(self, file: Path, name: str) -> None:
        with require_arrow().memory_map(str(file)) as content:
            self.write(name, content.read_buffer())
        file.unlink()

    def remove(self, name: str) -> None:
        if self.exists(name):
            with self._told(name):
                self._client().delete_file(self._key(name))

    def require_writable(self) -> None:
        self.write(".fssd-check", b"")
        self.remove(".fssd-check")

    def _download(self, name: str, file: Path) -> None:
        with file.open("wb") as target, self._told(name):
            stream = self._client().open_input_stream(self._key(name))
            with stream:
                copyfileobj(stream, target, _CHUNK)

    def _kept_file(self, name: str) -> Path:
        """Where a file is kept whole. Raises DataError for a name that would lead out of the folder."""
        folder = Path(self.kept).absolute()
        file = Path(os.path.normpath(folder / name))
        if folder not in file.parents:
            raise DataError(f"its name leads out of {self.kept}; rename it", file=self.path(name))
        return file

    def _key(self, name: str) -> str:
        return self.path(name).removeprefix("s3://")

    def _client(self) -> Any:
        return _client(*_settings())

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turns the errors of pyarrow into those of this package."""
        try:
            yield
        except FssdError:
            raise
        except (OSError, ValueError) as error:
            is_bucket_missing = isinstance(error, FileNotFoundError) and not self._has_bucket()
            raise _refused(self.path(name), error, is_bucket_missing) from error

    def _has_bucket(self) -> bool:
        from pyarrow.fs import FileType

        bucket = self._key("").partition("/")[0]
        return bool(self._client().get_file_info(bucket).type != FileType.NotFound)


def _settings() -> tuple[int, str, str]:
    """What a client is opened for: this process, as two must not share a connection; endpoint and region.

    The last two are "" where they are not set.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return os.getpid(), endpoint, os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""


@cache  # those of a parent process are never closed here
def _client(_process: int, endpoint: str, region: str) -> Any:
    from pyarrow.fs import S3FileSystem

    options: dict[str, Any] = {"region": region or None, "connect_timeout": 10}
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"AWS_ENDPOINT_URL is {endpoint!r}; write a URL such as http://127.0.0.1:9000")
        options |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
        options["region"] = region or "us-east-1"  # other stores ignore it, but a signature needs one
    return S3FileSystem(**options)


@lru_cache(maxsize=_OPEN_FILES)
def _handle(key: str, process: int, endpoint: str, region: str) -> Any:
    return _client(process, endpoint, region).open_input_file(key)


def _refused(path: str, error: Exception, is_bucket_missing: bool) -> FssdError:
    text = " ".join(str(error).split())
    if "NO_SUCH_BUCKET" in text or is_bucket_missing:
        advice = "check its name, AWS_REGION and AWS_ENDPOINT_URL"
        return ConfigError(f"{path}: there is no such bucket; {advice}")
    if isinstance(error, FileNotFoundError):
        return DataError("there is no such object; check its name", file=path)
    if any(word in text for word in _DENIED):
        return ConfigError(f"{path}: access is denied; check AWS_ACCESS_KEY_ID and what it may do")
    return ConfigError(
        f"{path}: the store does not answer as it should ({text[:200]}); check the network, AWS_REGION and"
        " AWS_ENDPOINT_URL"
    )
