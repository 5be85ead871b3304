"""A reader of pages."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

VOID = {"img", "meta", "br", "hr", "col", "use", "path", "rect", "line", "circle"}


class Page(HTMLParser):
    """A parsed page: text, links, pictures. Raises AssertionError for tags that do not nest."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.source = file.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute occurs twice: {attrs}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [value for name, attrs in self.tags if name == tag and (value := attrs.get(attribute))]

    def linked_files(self) -> list[Path]:
        """The files that links lead to, resolved from the page's folder."""
        links = [link for link in self.values("a", "href") if not link.startswith("#")]
        return [(self.file.parent / unquote(link)).resolve() for link in links]

    def pictures(self) -> list[np.ndarray]:
        """Every picture of the page, decoded."""
        found = []
        for source in self.values("img", "src"):
            assert source.startswith("data:image/jpeg;base64,")
            data = np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8)
            found.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
        return found

    def check(self) -> None:
        """What holds for every page: it loads nothing, runs nothing and has no dead anchor."""
        assert "http:" not in self.source
        assert "https:" not in self.source
        assert "url(" not in self.source.replace("url(#", "")
        names = {tag for tag, _ in self.tags}
        assert not names & {"script", "iframe", "object", "embed", "link", "form", "base"}
        assert not [key for _, attrs in self.tags for key in attrs if key.startswith("on")]
        (policy,) = (attrs["content"] for _, attrs in self.tags if "http-equiv" in attrs)
        assert policy and policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline';")
        anchors = {attrs["id"] for _, attrs in self.tags if attrs.get("id")}
        assert {link[1:] for link in self.values("a", "href") if link.startswith("#")} <= anchors
        assert all(attrs.get("alt") for tag, attrs in self.tags if tag == "img")


@pytest.fixture(scope="session")
def read_page() -> Callable[[Path], Page]:
    """Reads a page and checks what holds for every page."""

    def read(file: Path) -> Page:
        page = Page(file)
        page.check()
        return page

    return read


@pytest.fixture
def look(browser: object) -> Callable[[Path, Path], None]:
    """Opens a page as a desktop and as a phone would, light and dark, and takes screenshots.

    Raises AssertionError for a message on the console, or a page wider than its window.
    """

    def open_page(file: Path, folder: Path) -> None:
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
            messages: list[str] = []
            page = browser.new_page(  # type: ignore[attr-defined]
                viewport={"width": width, "height": 844}, color_scheme=scheme
            )
            page.on("console", lambda message, to=messages: to.append(message.text))
            page.on("pageerror", lambda error, to=messages: to.append(str(error)))
            page.on("request", lambda request, to=messages: to.append(_foreign(request.url)))
            page.goto(file.as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            shot = folder / f"{width}-{scheme}.png"
            page.screenshot(path=str(shot), full_page=True)
            assert cv2.imread(str(shot)).std() > 5, "the page is blank"
            assert not [message for message in messages if message]
            page.close()

    return open_page


def _foreign(url: str) -> str:
    return "" if url.startswith(("file:", "data:")) else f"asks for {url}"
