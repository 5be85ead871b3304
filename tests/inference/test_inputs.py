"""What IMAGES... on a command line stands for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fssd.errors import DataError
from fssd.inference.inputs import find_inputs, is_video, output_names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hidden = (".b.jpg", ".ipynb_checkpoints/b.jpg", "__MACOSX/b.jpg")
    for name in (*hidden, "b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "deep/film.mp4", "x[1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def found(folder: Path, *arguments: str) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_inputs([str(folder / a) for a in arguments])]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["b.jpg", "a.PNG"], ["b.jpg", "a.PNG"]),
        ([""], ["a.PNG", "b.jpg", "deep/c.webp", "deep/film.mp4", "x[1].jpg"]),
        (["deep", "b.jpg", "deep/c.webp"], ["deep/c.webp", "deep/film.mp4", "b.jpg"]),
        (["*.jpg"], ["b.jpg", "x[1].jpg"]),
        (["**/*.webp"], ["deep/c.webp"]),
        (["*"], ["a.PNG", "b.jpg", "x[1].jpg"]),
        (["x[1].jpg"], ["x[1].jpg"]),
    ],
)
def test_files_folders_and_patterns(folder: Path, arguments: list[str], expected: list[str]) -> None:
    assert found(folder, *arguments) == expected


def test_nothing_asked_nothing_found() -> None:
    assert find_inputs([]) == []


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("none.jpg", "no such file"),
        ("*.gif", "no such file"),
        ("notes.txt", "neither an image"),
        ("empty", "holds no image"),
        ("*.txt", "no such file"),
    ],
)
def test_what_names_nothing(folder: Path, argument: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        find_inputs([str(folder / "b.jpg"), str(folder / argument)])
    assert re.search(re.escape(argument), str(caught.value))


def test_videos_are_told_by_their_name() -> None:
    assert is_video(Path("a/b.MP4"))
    assert not is_video(Path("mp4"))
    assert not is_video(Path("a.jpg"))


def test_results_do_not_share_a_name() -> None:
    files = [Path("a/x.jpg"), Path("b/x.png"), Path("c/X.jpg"), Path("x-2.jpg"), Path("y.tar.gif")]
    assert output_names(files, ".jpg") == ["x.jpg", "x-2.jpg", "X-3.jpg", "x-2-2.jpg", "y.tar.jpg"]
