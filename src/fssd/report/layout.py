"""The parts of every page: header, cards, sections, tables, charts, galleries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import fssd
from fssd.report.html import Html, join, tag

LONG = 30  # rows; a longer table scrolls in a box of fixed height
DASH, MINUS, TIMES = "\u2013", "\u2212", "\u00d7"


class Section(NamedTuple):
    """anchor: its id. title: the heading, also in the list of sections. body: the content."""

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
    parts = [
        tag("section", tag("h2", section.title), section.body, id=section.anchor) for section in sections
    ]
    foot = tag("footer", f"Made by fssd {fssd.__version__}. This file needs no other file.")
    return join([head, contents, tag("main", *parts), foot])


def lead(*content: object) -> Html:
    """The paragraph that explains a section."""
    return tag("p", *content, class_="lead")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, label: str, last_is_sum: bool = False
) -> Html:
    """A table that scrolls if it is too wide. The first column holds the headings of the rows.

    columns: headings; they are aligned right above numbers, that is where the first cell is a `Cell` of kind
    "n". rows: `Cell`s, or values that become text cells.
    """
    body = [list(row) for row in rows]
    numeric = [_is_number(body[0][column]) if body else False for column in range(len(columns))]
    head = tag(
        "tr",
        *(
            tag("th", name, scope="col", class_="n" if number else None)
            for name, number in zip(columns, numeric, strict=True)
        ),
    )
    lines = [_row(row, last_is_sum and index == len(body) - 1) for index, row in enumerate(body)]
    content = tag("table", tag("thead", head), tag("tbody", *lines))
    return scroller(content, label, "scroll long" if len(lines) > LONG else "scroll")


def scroller(content: Html, label: str, kind: str = "scroll") -> Html:
    """A box that scrolls, also by keyboard, if its content is too wide. kind: "scroll long" limits its height
    as well.
    """
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


def percent_cell(value: float) -> Cell:
    """A share with a bar behind it."""
    return Cell(percent(value), bar=None if math.isnan(value) else value, kind="n bar")


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


def plural(count: int, one: str, many: str = "") -> str:
    """`1 image`, `1,200 images`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _card(card: Card) -> Html:
    note = tag("small", card.note) if card.note else None
    return tag("div", tag("dt", card.name), tag("dd", card.value, note))


def _row(row: Sequence[object], is_sum: bool) -> Html:
    first, *rest = (value if isinstance(value, Cell) else Cell(value, kind="") for value in row)
    return tag(
        "tr", tag("th", first.content, scope="row"), *map(_data_cell, rest), class_="sum" if is_sum else None
    )


def _data_cell(cell: Cell) -> Html:
    fill = None if cell.bar is None else f"--v:{100 * min(max(cell.bar, 0.0), 1.0):.1f}%"
    return tag("td", cell.content, class_=cell.kind or None, style=fill)


def _is_number(value: object) -> bool:
    return isinstance(value, Cell) and "n" in value.kind.split()
