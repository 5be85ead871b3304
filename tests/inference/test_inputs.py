"""What IMAGES... on a command line stands for."""

from __future__ import annotations

import re
from pathlib import Path

import PIL.Image
import pytest

from fssd.errors import DataError
from fssd.inference.inputs import find_inputs, find_stills, is_video, output_names, read_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hidden = (".b.jpg", "._b.jpg", ".git/b.jpg", ".ipynb_checkpoints/b.jpg", "__MACOSX/b.jpg")
    for name in (*hidden, "b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "deep/film.mp4", "x[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("texts/a.txt", "texts/deep/b.TXT", "texts/c.rm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "texts" / "lost.pdf").symlink_to("gone.pdf")
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
        ("empty", "holds no image or video$"),
        ("texts", "holds no image or video, but 2 .txt, 1 .rm, 1 broken link$"),
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
    kept = {"b/x.png": "x.jpg", "gone/y.jpg": "Y.tar.jpg"}
    assert output_names(files, ".jpg", kept) == ["x-2.jpg", "x.jpg", "X-3.jpg", "x-2-2.jpg", "y.tar-2.jpg"]


@pytest.mark.parametrize("argument", ["https://host/a.jpg", "HTTP://host/b.jpg", "rtsp://camera:554/live"])
def test_urls_are_not_read(argument: str) -> None:
    with pytest.raises(DataError, match=f"^{argument}: URLs are not read; download"):
        find_inputs([argument.replace("://", "://user:se@cret@")])


def test_what_is_passed_over_is_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("deep/a.svg", "deep/b.SVG", "README", "texts/c.svg"):
        (folder / name).touch()
    find_inputs([str(folder), str(folder / "b.jpg")])
    assert (
        capsys.readouterr().err == "passed over: 3 .svg, 3 .txt, 1 .rm, 1 without a suffix, 1 broken link\n"
    )
    find_inputs([str(folder / "*")])
    assert capsys.readouterr().err == "passed over: 1 .txt, 1 without a suffix\n"
    find_inputs([str(folder / "b.jpg"), str(folder / "deep" / "film.mp4")])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "expected", "told"),
    [
        ([""], ["a.PNG", "b.jpg", "x[1].jpg"], "3 .txt, 2 in {out}, 1 .rm, 1 broken link"),
        (["**/[acfx]*.*"], ["a.PNG", "x[1].jpg"], "2 in {out}, 1 .rm, 1 .txt"),
        (["deep/c.webp", "*.jpg"], ["deep/c.webp", "b.jpg", "x[1].jpg"], ""),
        (["deep"], ["deep/c.webp", "deep/film.mp4"], ""),
        (["deep/*.webp"], ["deep/c.webp"], ""),
    ],
)
def test_results_are_no_inputs(
    folder: Path, arguments: list[str], expected: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those in `deep`, unless its files are named, or it is itself what is searched."""
    out = folder / "deep"
    files = find_inputs([str(folder / argument) for argument in arguments], out)
    assert [path.relative_to(folder).as_posix() for path in files] == expected
    passed_over = capsys.readouterr().err
    assert passed_over == (f"passed over: {told}\n".format(out=out) if told else "")


def test_only_results(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "deep").rename(folder / "new" / "found")
    out = folder / "new" / "found"
    with pytest.raises(DataError, match=f"holds no image or video, but 2 in {out}$"):
        find_inputs([str(folder / "new")], out)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    for name in ("in/b.jpg", "in/real/c.jpg", "other/d.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name, target in (
        ("in/a", "real"),
        ("in/disk", "../other"),
        ("in/loop", "."),
        ("other/back", "../in"),
    ):
        (tmp_path / name).symlink_to(target)
    assert found(tmp_path, "in") == ["in/b.jpg", "in/disk/d.jpg", "in/real/c.jpg"]


def test_broken_links_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    (tmp_path / "lost.jpg").symlink_to("gone.jpg")
    files = find_inputs([str(tmp_path)])
    assert files == [tmp_path / "a.png", tmp_path / "lost.jpg"] == find_inputs([str(file) for file in files])
    readable: list[int] = []
    sizes: list[tuple[int, int]] = []
    assert [image.shape for image in read_images(files, readable, sizes)] == [(3, 4, 3)]
    assert (readable, sizes) == ([0], [(4, 3)])
    assert f"error: {tmp_path / 'lost.jpg'}: is a broken link to gone.jpg; " in capsys.readouterr().err


def test_films_where_images_are_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_stills([str(folder / "deep")]) == ([folder / "deep" / "c.webp"], 1)
    assert f"error: {folder / 'deep' / 'film.mp4'}: is a video" in capsys.readouterr().err
    with pytest.raises(DataError, match="there are no images"):
        find_stills([str(folder / "deep" / "film.mp4")])


@pytest.mark.parametrize("suffix", [".ts", ".flv", ".wmv", ".mts", ".vob", ".3gp"])
def test_what_opencv_reads_is_a_film(suffix: str) -> None:
    assert is_video(Path(f"clip{suffix}"))


def test_heic_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fssd.inference.inputs.IMAGE_EXTENSIONS", frozenset({".jpg"}))
    (tmp_path / "a.HEIC").touch()
    with pytest.raises(DataError, match=r"a\.HEIC: needs fssd\[heic\]; install that, or convert it to JPEG"):
        find_inputs([str(tmp_path / "a.HEIC")])
