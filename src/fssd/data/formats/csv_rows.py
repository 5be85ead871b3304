"""Rows of csv files with their line numbers, and a quick look at the first of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from fssd.errors import DataError

_LOOKS_AT = 8192


def first_row(file: Path) -> list[str]:
    """The first row that is not blank; [] if the file is no text."""
    try:
        with file.open("rb") as stream:
            text = stream.read(_LOOKS_AT).decode("utf-8-sig", "replace")
        lines = [line for line in text.splitlines() if line.strip()]
        row = next(csv.reader(lines[:1], delimiter=_delimiter(lines[0])), []) if lines else []
    except (OSError, csv.Error):
        return []
    return [] if "\0" in text else [word.strip() for word in row]


def csv_header(file: Path) -> set[str]:
    """The column names of a file that has some. VIA writes a # before the first."""
    return {word.removeprefix("#") for word in first_row(file)}


def read_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, column -> word) of each row below the header. Raises DataError."""
    rows = read_words(file)
    _, words = next(rows, (0, []))
    header = [word.removeprefix("#") for word in words]
    for line, row in rows:
        if len(row) != len(header):
            reason = f"has {len(row)} words where the header has {len(header)}; correct or remove it"
            raise DataError(reason, file=file, place=f"line {line}")
        yield line, dict(zip(header, row, strict=True))


def read_words(file: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, words) of each row that is not blank. Raises DataError."""
    line = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            start = next(filter(str.strip, stream), "")
            stream.seek(0)
            rows = csv.reader(stream, delimiter=_delimiter(start), strict=True)
            for row in rows:
                line = rows.line_num
                if any(word.strip() for word in row):
                    yield line, [word.strip() for word in row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        place = f"after line {line}"
        raise DataError(f"cannot be read as csv ({error}); correct it", file=file, place=place) from error


def _delimiter(line: str) -> str:
    """Spreadsheets of some languages write semicolons."""
    return ";" if line.count(";") > line.count(",") else ","
