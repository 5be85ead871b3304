"""Building HTML: every text is escaped, so no content can break a page."""

from __future__ import annotations

import html
import os
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from fssd.atomic import atomic_write, make_folder
from fssd.errors import ConfigError

PAGE_FILE = "index.html"
MAKER = "Made by fssd"  # in the footer of every page
# A page loads nothing and runs nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"

_VOID = {"img", "meta", "br", "hr", "col"}


class Html(str):
    """Text that is HTML already and is not escaped."""

    __slots__ = ()


def escape(content: object) -> Html:
    """A value as HTML: `Html` unchanged, None as "", anything else as escaped text."""
    if isinstance(content, Html):
        return content
    if content is None:
        return Html("")
    # File names may hold bytes that are not UTF-8, which Python keeps as lone surrogates.
    text = str(content).encode("utf-8", "replace").decode("utf-8")
    return Html(html.escape(text, quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. In attribute names a trailing _ is dropped, any other _ becomes -; None omits one."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: object) -> Html:
    """The children, concatenated."""
    assert isinstance(children, (list, tuple))
    return Html("".join(map(escape, children)))


def file_link(path: Path, folder: Path) -> str:
    """The URL of a file, relative to a page in `folder` if possible."""
    try:
        relative = os.path.relpath(path.absolute(), folder.absolute())
    except ValueError:  # another drive
        return path.absolute().as_uri()
    # A colon is quoted too, so that no file name can be read as a URL scheme.
    return quote(Path(relative).as_posix().encode("utf-8", "surrogateescape"), safe="/")


def require_own_page(folder: Path) -> None:
    """Raise ConfigError if the page would replace an `index.html` that is no page of fssd."""
    file = folder / PAGE_FILE
    if file.is_file() and f"<footer>{MAKER} ".encode() not in file.read_bytes():
        raise ConfigError(f"{file}: exists already and is no page of fssd; choose another folder")


def write_page(folder: Path, title: str, *body: object) -> Path:
    """Write `index.html` into a folder and return the file; the folder is made if needed."""
    make_folder(folder)
    style = files("fssd.report").joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
    page = tag("html", head, tag("body", *body), lang="en")
    atomic_write(folder / PAGE_FILE, f"<!doctype html>\n{page}\n")
    return folder / PAGE_FILE
