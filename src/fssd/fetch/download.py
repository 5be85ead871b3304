"""Download of one file over HTTP: resumed after an interruption, retried after a pause, its size checked.

The bytes are written to NAME.part. NAME.part.json beside it holds the version of the file on the server
(RFC 9110: ETag or Last-Modified), so that parts of two versions are never joined.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from fssd.atomic import atomic_write
from fssd.data.unpack import CHUNK, Progress, silent
from fssd.errors import FetchError

TIMEOUT = 60.0  # seconds without a byte
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each retry after failures in a row
TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that are worth a retry
CANNOT_RESUME = 416
PARTIAL = 206


class _BrokenError(Exception):
    """The transfer stopped for a reason that may be temporary."""


@dataclass(frozen=True)
class _Version:
    """The version of a file: its URL, ETag or Last-Modified ("" if the server sends neither), and size."""

    url: str
    validator: str
    total: int | None


class _PartialFile:
    """The partial file, and the note beside it that holds its version."""

    def __init__(self, file: Path) -> None:
        self.path = file.with_name(f"{file.name}.part")
        self.note = file.with_name(f"{file.name}.part.json")

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> _Version | None:
        try:
            return _Version(**json.loads(self.note.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, version: _Version) -> None:
        self.path.write_bytes(b"")
        atomic_write(self.note, json.dumps(asdict(version)))

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def download(
    url: str,
    file: Path,
    *,
    size: int | None = None,
    report: Progress = silent,
    pauses: Sequence[float] = PAUSES,
) -> None:
    """Fetch `url` into `file`; the bytes that an earlier call left in `file`.part are not fetched again.

    size: bytes, if known. report: called with the progress. pauses: seconds to wait after each failure in a
    row; when bytes arrive, a new row begins. Raises FetchError; the .part is kept unless it is wrong.
    """
    part = _PartialFile(file)
    best, failures = part.length, 0
    while True:
        try:
            _continue(url, part, size, report)
            break
        except _BrokenError as error:
            failures = 1 if part.length > best else failures + 1
            best = max(best, part.length)
            if failures > len(pauses):
                advice = "run the command again to continue"
                raise FetchError(f"{url}: {error}, {failures} times in a row; {advice}") from error
            time.sleep(pauses[failures - 1])
    part.path.replace(file)
    part.note.unlink(missing_ok=True)


def _continue(url: str, part: _PartialFile, size: int | None, report: Progress) -> None:
    """Request the missing bytes and append them. Raises _BrokenError if fewer bytes arrive."""
    version = part.version()
    if version is None or version.url != url:
        part.forget()
        version = None
    if part.length and part.length == size:
        return
    response = _request(url, part, version)
    if response is None:
        return
    with response:
        total = _prepare(response, part, version, url, size)
        _require_space(part, total, url)
        with part.path.open("ab") as handle:
            report(handle.tell(), total)
            for chunk in _chunks(response):
                handle.write(chunk)
                report(handle.tell(), total)
    if total is not None and part.length < total:
        raise _BrokenError(f"the connection ended after {part.length} of {total} bytes")
    if size is not None and part.length != size:
        raise _wrong_size(url, part, part.length, size)


def _request(url: str, part: _PartialFile, version: _Version | None) -> HTTPResponse | None:
    """The server's answer; None if all bytes are already there."""
    headers = {"User-Agent": "fssd"}
    if part.length and version is not None:
        headers["Range"] = f"bytes={part.length}-"
        if version.validator:
            headers["If-Range"] = version.validator
    try:
        response: HTTPResponse = urlopen(Request(_encoded(url), headers=headers), timeout=TIMEOUT)
        return response
    except HTTPError as error:
        with error:
            if error.code == CANNOT_RESUME and part.length:
                if error.headers.get("Content-Range") == f"bytes */{part.length}":
                    return None
                part.forget()
                raise _BrokenError("the file on the server has changed") from error
            if error.code in TEMPORARY:
                raise _BrokenError(f"the server answers {error.code} {error.reason}") from error
            advice = "check the URL, or give another one in a --table"
            raise FetchError(f"{url}: the server answers {error.code} {error.reason}; {advice}") from error
    except (InvalidURL, ValueError) as error:  # which no second try changes
        raise FetchError(f"{url}: is not a URL to fetch from ({error}); correct it") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _BrokenError(f"the server does not answer ({str(reason) or type(reason).__name__})") from error


def _encoded(url: str) -> str:
    """A URL with the spaces and letters that people write escaped, and escapes as they are (RFC 3986)."""
    parts = urlsplit(url)
    path, query = (quote(part, safe="/%:@!$&'()*+,;=~?") for part in (parts.path, parts.query))
    return urlunsplit(parts._replace(path=path, query=query))


def _prepare(
    response: HTTPResponse, part: _PartialFile, version: _Version | None, url: str, size: int | None
) -> int | None:
    """Prepare the partial file for the bytes of this answer; returns the total number of bytes if known."""
    if response.status == PARTIAL:
        total: int | None = _partial_total(response, part, version)
    else:
        length, etag = response.headers.get("Content-Length", ""), response.headers.get("ETag", "")
        total = int(length) if length.isdecimal() else None
        # For If-Range: a strong ETag, else the date.
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        part.begin(_Version(url, validator, total))
    if size is not None and total is not None and total != size:
        raise _wrong_size(url, part, total, size)
    return total


def _partial_total(response: HTTPResponse, part: _PartialFile, version: _Version | None) -> int:
    stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    known = None if version is None else version.total
    if stated is None or int(stated[1]) != part.length or known not in (None, int(stated[2])):
        part.forget()
        raise _BrokenError("the server sends another range than the requested one")
    return int(stated[2])


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, HTTPException) as error:
            raise _BrokenError(f"the connection broke ({str(error) or type(error).__name__})") from error
        if not chunk:
            return
        yield chunk


def _wrong_size(url: str, part: _PartialFile, found: int, size: int) -> FetchError:
    part.forget()
    return FetchError(f"{url}: the file has {found} bytes, not {size}; check the URL, or correct the table")


def _require_space(part: _PartialFile, total: int | None, url: str) -> None:
    free = shutil.disk_usage(part.path.parent).free
    needed = 0 if total is None else total - part.length
    if needed > free:
        reason = f"needs {needed} bytes, {part.path.parent} has {free} free"
        raise FetchError(f"{url}: {reason}; make room or choose another --to")
