"""HTML that cannot be broken by what is put into it: every text is escaped on its way in."""

from __future__ import annotations

import html
import os
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from fssd.atomic import atomic_write, make_folder

PAGE_FILE = "index.html"
# A page asks for nothing but what is in it, and runs nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"

_VOID = {"img", "meta", "br", "hr", "col"}


class Html(str):
    """Text that is HTML already and goes in as it is."""

    __slots__ = ()


def escape(content: object) -> Html:
    """A value as HTML: `Html` as it is, anything else as text; None is nothing."""
    if isinstance(content, Html):
        return content
    if content is None:
        return Html("")
    # File names may hold bytes that are no UTF-8, which Python keeps as lone surrogates.
    text = str(content).encode("utf-8", "replace").decode("utf-8")
    return Html(html.escape(text, quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. A trailing _ of an attribute's name is dropped and another _ is a -; None leaves it out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: object) -> Html:
    """Children one after the other."""
    assert isinstance(children, (list, tuple))
    return Html("".join(map(escape, children)))


def file_link(path: Path, folder: Path) -> str:
    """The address of a file, relative to a page in `folder` where it can be."""
    try:
        relative = os.path.relpath(path.absolute(), folder.absolute())
    except ValueError:  # another drive
        return path.absolute().as_uri()
    # A colon is quoted too, so that no file name can be taken for a scheme.
    return quote(Path(relative).as_posix().encode("utf-8", "surrogateescape"), safe="/")


def write_page(folder: Path, title: str, *body: object) -> Path:
    """Write `index.html` into a folder, which is made. Returns the file."""
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
