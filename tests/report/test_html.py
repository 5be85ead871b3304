"""Elements: content is always text, never markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from fssd.errors import ConfigError
from fssd.report.html import Html, escape, file_link, require_own_page, tag, write_page
from fssd.report.layout import document

HOSTILE = "</td><script>alert('x')</script>&amp;\" onload=\"y"


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_and_attributes_come_back_as_they_were() -> None:
    read = Reader(tag("p", HOSTILE, title=HOSTILE))
    assert read.tags == [("p", [("title", HOSTILE)])]
    assert read.text == HOSTILE


def test_elements_nest() -> None:
    assert tag("p", "a", tag("b", 1), None, Html("<i>2</i>")) == "<p>a<b>1</b><i>2</i></p>"
    assert tag("img", src="x", alt="", width=3, loading=None) == '<img src="x" alt="" width="3">'
    assert tag("td", class_="n", aria_label="x", name="y") == '<td class="n" aria-label="x" name="y"></td>'


def test_names_that_are_no_unicode() -> None:
    assert escape("a\udcff.jpg") == "a?.jpg"


@pytest.mark.parametrize(
    ("file", "link"),
    [
        ("a b.jpg", "../a%20b.jpg"),
        ('"><img src=x>#50%.png', "../%22%3E%3Cimg%20src%3Dx%3E%2350%25.png"),
        ("javascript:alert(1).png", "../javascript%3Aalert%281%29.png"),
        ("a\udcff.jpg", "../a%FF.jpg"),
        ("page/b.jpg", "b.jpg"),
    ],
)
def test_links_are_relative_to_the_page(tmp_path: Path, file: str, link: str) -> None:
    assert file_link(tmp_path / file, tmp_path / "page") == link


def test_page(tmp_path: Path) -> None:
    file = write_page(tmp_path / "new" / "folder", HOSTILE, tag("p", "text"))
    assert file == tmp_path / "new" / "folder" / "index.html"
    text = file.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    read = Reader(text)
    assert [name for name, _ in read.tags if name in ("title", "script", "p")] == ["title", "p"]


def test_a_page_replaces_pages_of_fssd_alone(tmp_path: Path) -> None:
    require_own_page(tmp_path)
    write_page(tmp_path, "title", document("check", "data", [], [], []))
    require_own_page(tmp_path)
    (tmp_path / "index.html").write_text("<p>My notes on what was made by fssd</p>")
    with pytest.raises(ConfigError, match=r"index\.html: exists already and is no page of fssd"):
        require_own_page(tmp_path)
