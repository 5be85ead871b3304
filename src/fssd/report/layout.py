"""The parts of every page: header, cards, sections, tables, charts, galleries."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import NamedTuple, SupportsFloat

import fssd
from fssd.report.html import MAKER, Html, join, tag

LONG = 30  # rows; a longer table scrolls in a box of fixed height
DASH, MINUS, TIMES = "\u2013", "\u2212", "\u00d7"
FIRST_STRONG, END = "\u2068", "\u2069"  # around text that has a direction of its own


class Section(NamedTuple):
    """anchor: its id. title: the heading, also in the list of sections."""

    anchor: str
    title: str
    body: Html


class Cell(NamedTuple):
    """One cell of a table. bar: share (0..1) of the cell to fill. kind: its CSS classes."""

    content: object
    bar: float | None = None
    kind: str = "n"


class Card(NamedTuple):
    """One number of the header, with a short note."""

    name: str
    value: str
    note: str = ""


def document(
    verb: str, title: str, facts: Sequence[str], cards: Sequence[Card], sections: Sequence[Section]
) -> Html:
    """The body of a page."""
    head = tag(
        "header",
        tag("p", f"fssd {verb}", class_="verb"),
        tag("h1", title),
        *(tag("p", fact) for fact in facts),
        tag("dl", *map(_card, cards), class_="cards"),
    )
    links = (tag("li", tag("a", section.title, href=f"#{section.anchor}")) for section in sections)
    contents = tag("nav", tag("ul", *links), aria_label="Sections")
    parts = [tag("section", tag("h2", one.title), one.body, id=one.anchor) for one in sections]
    foot = tag("footer", f"{MAKER} {fssd.__version__}. This file needs no other file.")
    return join([head, contents, tag("main", *parts), foot])


def lead(*content: object) -> Html:
    """The paragraph that explains a section."""
    return tag("p", *content, class_="lead")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, label: str, last_is_sum: bool = False
) -> Html:
    """A table that scrolls if it is too wide. The first column holds the headings of the rows.

    rows: `Cell`s or values, see `cell`. Headings above numbers are aligned right.
    """
    body = [list(map(cell, row)) for row in rows]
    numeric = ["n" if "n" in one.kind.split() else None for one in body[0]] if body else [None] * len(columns)
    pairs = zip(columns, numeric, strict=True)
    head = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in pairs))
    lines = [_row(row, last_is_sum and index == len(body) - 1) for index, row in enumerate(body)]
    content = tag("table", tag("thead", head), tag("tbody", *lines))
    return scroller(content, label, "scroll long" if len(lines) > LONG else "scroll")


def scroller(content: Html, label: str, kind: str = "scroll") -> Html:
    """A box that scrolls, also by keyboard. kind: "scroll long" limits its height as well."""
    return tag("div", content, class_=kind, tabindex=0, role="region", aria_label=label)


def grid(figures: Sequence[Html]) -> Html:
    """Plots side by side if there is room."""
    return tag("div", *figures, class_="charts")


def caption(plot: Html, *text: object) -> Html:
    """A plot with a caption."""
    return tag("figure", plot, tag("figcaption", *text))


def gallery(figures: Sequence[Html], kind: str = "", nothing: str = "None.") -> Html:
    """Pictures in a grid. kind: "small", "pairs" or "" for large ones."""
    if not figures:
        return tag("p", nothing, class_="empty")
    return tag("div", *figures, class_=f"gallery {kind}".strip())


def key(entries: Iterable[tuple[str, tuple[int, int, int]]]) -> Html:
    """The legend of the colours of boxes. entries: name and RGB."""
    items = (
        tag("li", tag("i", style=f"border-color:rgb({red},{green},{blue})", aria_hidden="true"), name)
        for name, (red, green, blue) in entries
    )
    return tag("ul", *items, class_="key")


def details(summary: str, *content: object) -> Html:
    """Collapsed content that opens on a click."""
    return tag("details", tag("summary", summary), *content)


def percent(value: float, digits: int = 1) -> str:
    """A share as percent, without the sign; a dash for nan."""
    return DASH if math.isnan(value) else f"{100 * value:.{digits}f}"


def cell(value: object) -> Cell:
    """A value in a table: 1,234 for a whole number, percent for another number (a share), else text."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, Integral):
        return Cell(f"{int(value):,}")
    return Cell(percent(float(value))) if isinstance(value, Real) else Cell(value, kind="")


def share(value: SupportsFloat) -> str:
    """`12.3 %`, for a card; a dash for nan."""
    number = float(value)
    return DASH if math.isnan(number) else f"{percent(number)} %"


def percent_cell(value: float, most: float = 1.0) -> Cell:
    """A share with a bar behind it, which is full at `most`."""
    return Cell(percent(value), bar=None if math.isnan(value) else value / most, kind="n bar")


def signed(value: float) -> str:
    """A difference of shares in points, with its sign; a dash for nan."""
    if math.isnan(value):
        return DASH
    shown = f"{100 * value:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", MINUS)


def signed_cell(value: float) -> Cell:
    """A difference, coloured by its sign unless it is zero."""
    text = signed(value)
    return Cell(text, kind={"+": "n good", MINUS: "n bad"}.get(text[0], "n"))


def isolated(name: str) -> str:
    """A name for use inside a text: if it runs from right to left, the text around it keeps its order."""
    turns = any(unicodedata.bidirectional(character) in {"R", "AL"} for character in name)
    return f"{FIRST_STRONG}{name}{END}" if turns else name


def _card(card: Card) -> Html:
    note = tag("small", card.note) if card.note else None
    return tag("div", tag("dt", card.name), tag("dd", card.value, note))


def _row(row: Sequence[Cell], is_sum: bool) -> Html:
    head = tag("th", row[0].content, scope="row")
    return tag("tr", head, *map(_data_cell, row[1:]), class_="sum" if is_sum else None)


def _data_cell(data: Cell) -> Html:
    fill = None if data.bar is None else f"--v:{100 * min(max(data.bar, 0.0), 1.0):.1f}%"
    return tag("td", data.content, class_=data.kind or None, style=fill)
