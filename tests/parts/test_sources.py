"""What SOURCE stands for with an engine, and that a million names take no memory."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fssd.errors import ConfigError, DataError, ImageError
from fssd.evaluation.part_reader import read_parts
from fssd.inference.detections import Detections
from fssd.parts import part_detector
from fssd.parts import sources as sources_module
from fssd.parts.film_reader import FilmReader
from fssd.parts.fingerprint import Fingerprint
from fssd.parts.image_reader import read_ahead
from fssd.parts.local_engine import run_here
from fssd.parts.part_detector import PartJob
from fssd.parts.part_plan import PartPlan, read_plan_of, write_plan
from fssd.parts.part_rows import Counts, read_success, write_success
from fssd.parts.plan_rows import PlanRow
from fssd.parts.sources import Sources
from fssd.parts.unique_names import unique_rows
from fssd.storage.folders import Folder
from fssd.storage.open_folder import open_folder


def names_of(*sources: object) -> Iterator[str]:
    return (row.image for row in unique_rows([str(source) for source in sources], Sources()))


def names(*sources: object) -> list[str]:
    return list(names_of(*sources))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.md", "deep/c.webp", "deep/film.mp4", ".hidden/d.jpg", "x[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_files_folders_and_patterns(folder: Path) -> None:
    everything = [
        str(folder / name) for name in ("a.PNG", "b.jpg", "deep/c.webp", "deep/film.mp4", "x[1].jpg")
    ]
    assert names(folder) == everything
    assert names(folder / "x[1].jpg", folder) == [everything[4], *everything[:4]], (
        "each once, at its first place"
    )
    assert names(folder / "**" / "*.webp") == [everything[2]]


def test_a_list_keeps_its_order(folder: Path) -> None:
    lines = [str(folder / "b.jpg"), "s3://bucket/far.jpg", str(folder / "gone.jpg"), str(folder / "a.PNG")]
    (folder / "list.txt").write_text("\n".join([*lines, "", lines[0]]) + "\n")
    assert names(folder / "list.txt") == lines
    assert names(f"@{folder / 'list.txt'}") == lines


def test_a_list_with_a_byte_order_mark(folder: Path) -> None:
    lines = [str(folder / "b.jpg"), str(folder / "a.PNG")]
    (folder / "list.txt").write_text("\n".join(lines), encoding="utf-8-sig")
    assert names(folder / "list.txt") == lines
    (folder / "list.txt").write_text("\n".join(lines), encoding="utf-16")
    with pytest.raises(DataError, match=r"list\.txt \(line 1\): .*zero byte; write the list as UTF-8"):
        names(folder / "list.txt")
    (folder / "list.txt").write_text("a.jpg\nb\0.jpg")
    with pytest.raises(DataError, match=r"list\.txt \(line 2\)"):
        names(folder / "list.txt")


@pytest.mark.parametrize(
    ("source", "file"),
    [("/names.parquet", "/names.parquet"), ("names.parquet", "./names.parquet"), ("/a/n.parquet",) * 2],
)
def test_the_folder_of_a_parquet_file(source: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(folder: Folder, name: str) -> None:
        raise DataError("opened", file=folder.path(name))

    monkeypatch.setattr(sources_module, "open_parquet", opened)
    with pytest.raises(DataError) as caught:
        names(source)
    assert str(caught.value) == f"{file}: opened"


@pytest.mark.parametrize("column", ["image", "path", "only"])
def test_a_parquet_file_of_names(folder: Path, column: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs pyarrow: pip install "fssd[s3]"')
    import pyarrow as pa

    values = ["z.jpg", "a.jpg", "m.jpg"]
    more = {} if column == "only" else {"size": [1, 2, 3]}
    parquet.write_table(pa.table({**more, column: values}), folder / "names.parquet")
    assert names(folder / "names.parquet") == values
    parquet.write_table(pa.table({"one": values, "two": values}), folder / "names.parquet")
    with pytest.raises(ConfigError, match=r"has the columns one, two; name the one with the names image or"):
        names(folder / "names.parquet")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, 2], "1 is no name; give the names of files as text"),
        ([{"bytes": b"x", "path": "a.jpg"}], r"\{'bytes': b'x', 'path': 'a.jpg'\} is no name"),
        (["a.jpg", ""], "a name is empty; remove that row"),
        ([b"a.jpg", b""], "a name is empty; remove that row"),
        (["a.jpg", None], "a name is empty; remove that row"),
        (["a\0b.mp4"], r"'a\\x00b.mp4' has a zero byte and is no name of a file"),
    ],
)
def test_a_parquet_file_of_what_is_no_name(folder: Path, values: list[Any], told: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs pyarrow: pip install "fssd[s3]"')
    import pyarrow as pa

    parquet.write_table(pa.table({"image": values}), folder / "names.parquet")
    with pytest.raises(DataError, match=rf"names\.parquet \(column image\): {told}"):
        names(folder / "names.parquet")


@pytest.mark.parametrize("at", [4, 200])
@pytest.mark.parametrize("compression", ["none", "snappy"])
def test_a_parquet_file_of_names_with_damaged_pages(folder: Path, at: int, compression: str) -> None:
    """Its beginning and its end, which are looked at when it is opened, are whole."""
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs pyarrow: pip install "fssd[s3]"')
    import pyarrow as pa

    file = folder / "names.parquet"
    values = [f"some/name/{number}.jpg" for number in range(5000)]
    parquet.write_table(pa.table({"image": values}), file, compression=compression, use_dictionary=False)
    content = file.read_bytes()
    file.write_bytes(content[:at] + b"\xff" * 30 + content[at + 30 :])
    with pytest.raises(DataError, match=r"names\.parquet: is no whole parquet file"):
        names(file)


def test_a_place_in_a_store(s3: str) -> None:
    store = open_folder(s3)
    for name in ("in/b.jpg", "in/deep/a.jpg", "in/notes.txt", "other/c.jpg"):
        store.write(name, b"")
    assert names(f"{s3}/in") == [f"{s3}/in/b.jpg", f"{s3}/in/deep/a.jpg"]
    assert names(f"{s3}/in/") == names(f"{s3}/in")
    assert names(f"{s3}/in/b.jpg") == [f"{s3}/in/b.jpg"]
    with pytest.raises(DataError, match="names no image or video"):
        names(f"{s3}/nothing")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("none.jpg", "names no image or video; check it"),
        ("notes.md", "is no image, video, list"),
        ("@none.txt", "this list cannot be read"),
        ("none.parquet", "there is no such file"),
        ("*.md", "names no image or video, but 1 .md; check it"),
    ],
)
def test_what_names_nothing(folder: Path, source: str, reason: str) -> None:
    pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')
    mark, name = ("@", source[1:]) if source.startswith("@") else ("", source)
    with pytest.raises(DataError, match=reason) as caught:
        names(f"{mark}{folder / name}")
    assert str(folder / name) in str(caught.value)


class Stub:
    """Finds one object in each image, at once."""

    def windows(self, _: Any) -> Callable[[tuple[int, int]], list[None]]:
        return lambda _: [None]

    def stream(self, images: Iterator[Any], **_: Any) -> Iterator[Detections]:
        one = Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64), ("cat",))
        for _image in images:
            yield one


def test_memory_does_not_grow_with_the_number_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning, and 20 parts by a stub, at 5,000 names and at 60,000: the most memory is nearly the same.

    Python keeps a path of this length in more than 100 bytes, so a list of these alone would be 5.5 MB more.
    """
    arrow = pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')
    pixels = np.zeros((2, 3, 3), np.uint8)
    monkeypatch.setattr(part_detector, "read_ahead", lambda rows, *_: (pixels for _row in rows))
    monkeypatch.setattr(part_detector.PartDetector, "_check_same", lambda _: None)

    def most(count: int) -> int:
        given = (PlanRow(f"photographs/of/a/long/journey/{number:012}.jpg") for number in range(count))
        out = open_folder(tmp_path / str(count))
        out.require_writable()
        before = arrow.total_allocated_bytes()
        tracemalloc.start()
        try:
            plan = write_plan(out, Fingerprint("0" * 64, {}, "0", (), 200), given, tmp_path)
            assert (plan.rows, plan.parts) == (count, count // 200)
            assert sum(plan.part_rows(index) for index in range(plan.parts)) == count
            run_here(PartJob(plan, Path("none")), range(20), lambda *_: None, Stub())  # type: ignore[arg-type]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert read_plan_of(out) == plan
        return peak + arrow.total_allocated_bytes() - before

    most(5_000)  # what is imported and opened once
    assert most(60_000) - most(5_000) < 1_000_000


def test_names_are_sorted_on_disk(tmp_path: Path) -> None:
    """20,000 names of a list, each twice: less than 1 MB of Python's memory."""
    count = 20_000
    lines = [f"photographs/of/a/long/journey/{number:012}.jpg" for number in range(count)]
    (tmp_path / "list.txt").write_text("\n".join(lines * 2))
    tracemalloc.start()
    try:
        unlike = sum(name != line for name, line in zip(names_of(tmp_path / "list.txt"), lines, strict=True))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not unlike
    assert peak < 1_000_000


def test_a_full_disk_for_the_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("fssd.parts.unique_names._sorted", full)
    with pytest.raises(ConfigError, match=r"cannot be sorted there .*disk is full.*set TMPDIR"):
        list(unique_rows([str(folder)], Sources()))


def test_a_name_that_no_file_can_have_is_an_error_of_its_row(tmp_path: Path) -> None:
    (found,) = read_ahead([PlanRow("a" * 300 + ".jpg")], tmp_path, 1)
    assert isinstance(found, ImageError) and "File name too long" in str(found)


def test_another_plan_in_the_same_place_is_read_anew(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')
    folder = open_folder(tmp_path)
    for name in ("one.jpg", "two.jpg"):
        plan = write_plan(folder, Fingerprint("0" * 64, {}, "0", (), 3), [PlanRow(name)], tmp_path)
        assert [row.image for row in plan.part(0)] == [name]


def test_a_film_of_a_store_is_told_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "film.mp4").write_bytes(b"no film")
    monkeypatch.setattr("fssd.parts.film_reader.open_folder", lambda _: open_folder(tmp_path))
    with pytest.raises(ImageError, match=r"^s3://bucket/film\.mp4: "):
        FilmReader(tmp_path).stretch(PlanRow("x", "film", "s3://bucket/film.mp4", 0, None))


def planned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> PartPlan:
    """A plan of five images in two parts that are computed."""
    pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')
    monkeypatch.setattr(part_detector, "read_ahead", lambda rows, *_: (DataError("gone") for _row in rows))
    monkeypatch.setattr(part_detector.PartDetector, "_check_same", lambda _: None)
    rows = [PlanRow(f"{number}.jpg") for number in range(5)]
    plan = write_plan(open_folder(folder), Fingerprint("0" * 64, {}, "0", (), 3), rows, folder)
    run_here(PartJob(plan, Path("none")), range(2), lambda *_: None, Stub())  # type: ignore[arg-type]
    return plan


def test_the_count_is_checked_against_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, monkeypatch)
    assert write_success(plan) == Counts(5, 5)
    parts = tmp_path / "parts"
    (parts / "part-000001.parquet").replace(parts / "part-000000.parquet")
    (parts / "part-000001.parquet").write_bytes((parts / "part-000000.parquet").read_bytes())
    with pytest.raises(DataError, match="has 2 rows where the plan has 3"):
        write_success(plan)


def test_a_part_of_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, monkeypatch)
    import pyarrow as pa
    from pyarrow import parquet

    part = tmp_path / "parts/part-000001.parquet"
    parquet.write_table(pa.table({"image": ["3.jpg", "4.jpg"]}), part)
    with pytest.raises(DataError, match=r"part-000001\.parquet: is no whole parquet file \(.*error"):
        write_success(plan)
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(DataError, match=r"part-000001\.parquet: is no whole parquet file"):
        read_parts(tmp_path, ("cat",))


def test_a_plan_that_does_not_fit_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, monkeypatch)
    for ask in (plan.part, plan.part_rows):
        with pytest.raises(DataError, match=r"plan\.parquet: is no whole parquet file"):
            ask(2)
    content = (tmp_path / "plan.parquet").read_bytes()
    (tmp_path / "plan.parquet").write_bytes(content[:4] + b"\xff" * 30 + content[34:])
    again = replace(plan, rows=plan.rows + 1)  # else the file that is open would be read
    with pytest.raises(DataError, match=r"plan\.parquet: is no whole parquet file"):
        again.part(0)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"rows": "many", "errors": 0}', b"\xff"])
def test_a_success_file_of_another_program(tmp_path: Path, content: bytes) -> None:
    """Spark writes an empty one."""
    folder = open_folder(tmp_path)
    assert read_success(folder) is None
    (tmp_path / "_SUCCESS").write_bytes(content)
    with pytest.raises(DataError, match=r"_SUCCESS: holds no counts of `fssd detect`; remove it"):
        read_success(folder)
