"""Parses xml in any encoding that Python knows: expat knows few, and only some spellings of their names."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from fssd.errors import LabelError

_DECLARATION = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[\"'][^>]*\?>")
_BY_EXPAT = {"utf-8", "us-ascii", "iso-8859-1"}
_LARGER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}  # what tools write under that name
_BOM = b"\xef\xbb\xbf"
_LOOKS_AT = 4096  # bytes


def read_xml(file: Path) -> ElementTree.Element:
    """The root of a file. Raises LabelError."""
    with _named_errors(file):
        return ElementTree.fromstring(_as_utf8(file.read_bytes()))


def xml_elements(file: Path) -> Iterator[ElementTree.Element]:
    """The elements of a large file, each once it is complete, the root last. Raises LabelError."""
    with _named_errors(file):
        events = ElementTree.iterparse(io.BytesIO(_as_utf8(file.read_bytes())))
        while (event := next(events, None)) is not None:
            yield event[1]


def first_bytes(file: Path) -> bytes:
    """The start of a file without zero bytes, so that tags are found in UTF-16 too. Raises OSError."""
    with file.open("rb") as stream:
        return stream.read(_LOOKS_AT).replace(b"\0", b"")


@contextmanager
def _named_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        reason = (
            f"is not in the encoding that it declares, {error.encoding} ({error.reason}); save it as UTF-8"
        )
        raise LabelError(reason, file=file) from error
    except LookupError as error:
        raise LabelError(
            f"declares an encoding that is not known ({error}); save it as UTF-8", file=file
        ) from error
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise LabelError(f"is not well-formed XML ({error}); correct or remove it", file=file) from error


def _as_utf8(data: bytes) -> bytes:
    """The file in an encoding that expat knows."""
    plain = data.removeprefix(_BOM)
    declared = _DECLARATION.match(plain)
    name = declared[1].decode("ascii").lower() if declared else "utf-8"
    if declared is None or name in _BY_EXPAT:
        return data
    if name.startswith(("utf-16", "utf-32")):  # what can be read as ASCII is neither
        name = "utf-8"
    return plain[declared.end() :].decode(_LARGER.get(name, name)).encode()
