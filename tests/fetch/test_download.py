"""Downloads from a server that breaks off, cannot resume, changes its file, or refuses."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from fssd.errors import FetchError
from fssd.fetch import download as module
from fssd.fetch.download import download

CONTENT = random.Random(3).randbytes(300_000)
QUICK = (0.0, 0.0)


@pytest.fixture
def file(tmp_path: Path, server: Any) -> Path:
    server.files["a.tar"] = CONTENT
    return tmp_path / "a.tar"


def test_whole(server: Any, file: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    download(server.url("a.tar"), file, size=300_000, report=lambda *now: reports.append(now))
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file]
    assert reports[-1] == (300_000, 300_000)
    assert server.gets == [("/a.tar", None)]


def test_goes_on_where_the_connection_broke(server: Any, file: Path) -> None:
    server.break_after = [150_000, 50_000]
    download(server.url("a.tar"), file, pauses=QUICK)
    assert file.read_bytes() == CONTENT
    assert [asked for _, asked in server.gets] == [None, "bytes=150000-", "bytes=200000-"]


def test_a_later_call_goes_on(server: Any, file: Path) -> None:
    server.break_after = [100_000]
    with pytest.raises(
        FetchError, match="ended after 100000 of 300000 bytes, 1 times in a row; run the command"
    ):
        download(server.url("a.tar"), file, pauses=())
    assert not file.exists()
    download(server.url("a.tar"), file, pauses=())
    assert file.read_bytes() == CONTENT
    assert server.gets[1:] == [("/a.tar", "bytes=100000-")]


def test_bytes_that_arrive_end_a_row_of_failures(server: Any, file: Path) -> None:
    server.break_after = [50_000] * 5
    download(server.url("a.tar"), file, pauses=(0.0,))
    assert file.read_bytes() == CONTENT


def test_server_that_ignores_ranges_starts_over(server: Any, file: Path) -> None:
    server.ranges = False
    server.break_after = [200_000]
    download(server.url("a.tar"), file, pauses=QUICK)
    assert file.read_bytes() == CONTENT
    assert len(server.gets) == 2


def test_two_versions_are_not_joined(server: Any, file: Path) -> None:
    server.break_after = [100_000]
    with pytest.raises(FetchError):
        download(server.url("a.tar"), file, pauses=())
    server.files["a.tar"] = CONTENT[::-1]
    download(server.url("a.tar"), file, pauses=())
    assert file.read_bytes() == CONTENT[::-1]


def test_length_tells_versions_apart_where_the_server_does_not(server: Any, file: Path) -> None:
    server.etags = False
    server.break_after = [100_000]
    with pytest.raises(FetchError):
        download(server.url("a.tar"), file, pauses=())
    server.files["a.tar"] = CONTENT[::-1] + b"x"
    download(server.url("a.tar"), file, pauses=QUICK)
    assert file.read_bytes() == CONTENT[::-1] + b"x"
    assert [asked for _, asked in server.gets] == [None, "bytes=100000-", None]


def test_part_of_another_url_is_not_continued(server: Any, file: Path) -> None:
    server.break_after = [100_000]
    with pytest.raises(FetchError):
        download(server.url("a.tar"), file, pauses=())
    server.files["b.tar"] = CONTENT
    download(server.url("b.tar"), file, pauses=())
    assert server.gets[-1] == ("/b.tar", None)
    assert file.read_bytes() == CONTENT


def test_complete_part_of_a_killed_process(server: Any, file: Path) -> None:
    server.break_after = [299_999]
    with pytest.raises(FetchError):
        download(server.url("a.tar"), file, pauses=())
    with file.with_name("a.tar.part").open("ab") as part:
        part.write(CONTENT[-1:])
    download(server.url("a.tar"), file, pauses=())  # size unknown: the server answers 416
    assert file.read_bytes() == CONTENT


def test_not_there(server: Any, file: Path) -> None:
    with pytest.raises(FetchError, match=r"/none.tar: the server answers 404 .*; check the URL"):
        download(server.url("none.tar"), file, pauses=QUICK)
    assert len(server.gets) == 1, "not tried again"
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("my photos.tar", "/my%20photos.tar"),
        ("gr\u00fcn.tar?v=\u00e4 1", "/gr%C3%BCn.tar?v=%C3%A4%201"),
        ("a%20b.tar?x=1&y=%2F", "/a%20b.tar?x=1&y=%2F"),
    ],
)
def test_a_url_as_people_write_it(server: Any, file: Path, name: str, asked: str) -> None:
    server.files[asked.removeprefix("/")] = CONTENT
    download(server.url(name), file, pauses=())
    assert file.read_bytes() == CONTENT
    assert server.gets == [(asked, None)]


@pytest.mark.parametrize("url", ["http://127.0.0.1:80a/a.tar", "http://127.0.0.1 /a.tar", "no address"])
def test_what_is_no_url_is_not_tried_again(file: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "sleep", None)
    with pytest.raises(FetchError, match=r"is not a URL to fetch from .*; correct it"):
        download(url, file)


def test_server_that_is_busy_is_asked_again(server: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    server.refuse = [503, 429]
    download(server.url("a.tar"), file)
    assert file.read_bytes() == CONTENT
    assert slept == [1.0, 2.0]
    server.refuse = [500] * 9
    with pytest.raises(FetchError, match=r"500 .*, 3 times in a row"):
        download(server.url("a.tar"), file, pauses=QUICK)


def test_nobody_answers(server: Any, file: Path) -> None:
    with pytest.raises(FetchError, match="the server does not answer"):
        download("http://127.0.0.1:9/a.tar", file, pauses=())


def test_wrong_size(server: Any, file: Path) -> None:
    with pytest.raises(FetchError, match="has 300000 bytes, not 7"):
        download(server.url("a.tar"), file, size=7, pauses=QUICK)
    assert not list(file.parent.iterdir())


def test_more_than_the_disk_holds(server: Any, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(299_999))
    with pytest.raises(FetchError, match=r"needs 300000 bytes, .* has 299999 free"):
        download(server.url("a.tar"), file, pauses=QUICK)
