"""A folder is there whole or not at all, and nothing of the user's is replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from fssd.data.decode import read_header, read_image
from fssd.data.writers.new_folder import new_folder, place_picture, require_new
from fssd.errors import ConfigError


def test_written_whole(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "deep" / "er"):
        with new_folder(out) as root:
            (root / "file").write_text("x")
        assert (out / "file").read_text() == "x"
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "deep"}


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out") as root:
        (root / "file").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"), new_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_a_file_and_a_broken_link_are_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match=f"{name}: exists already"):
            require_new(tmp_path / name)


def test_a_symbolic_link_where_no_hard_link_can_be(
    tmp_path: Path, make_picture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.chdir(tmp_path)
    make_picture(Path("in/a.png"))
    place_picture(Path("in/a.png"), Path("out/a.png"), link=True)
    assert Path("out/a.png").is_symlink()
    assert Path("out/a.png").read_bytes() == Path("in/a.png").read_bytes()


def test_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigError, match="exists already"), new_folder(tmp_path):
        pytest.fail("went on")


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        ("jpg", "L"),
        ("jpg", "RGB"),
        ("jpg", "CMYK"),
        ("png", "I;16"),
        ("png", "RGBA"),
        ("png", "P"),
        ("webp", "RGB"),
    ],
)
@pytest.mark.parametrize("orientation", range(2, 9))
def test_upright_pictures_keep_their_mode_and_profile(
    tmp_path: Path, suffix: str, mode: str, orientation: int
) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    source, target = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    ramp = np.arange(32 * 16, dtype=np.uint16).reshape(16, 32)
    grey = Pillow.fromarray(ramp * 100 if mode == "I;16" else (ramp // 2).astype(np.uint8))
    picture = grey if grey.mode == mode else grey.convert(mode)
    picture.save(source, exif=exif, icc_profile=b"profile", lossless=True)
    place_picture(source, target, upright=True)
    header = read_header(target)
    assert (header.orientation, header.mode) == (1, mode)
    assert Pillow.open(target).info["icc_profile"] == b"profile"
    np.testing.assert_allclose(read_image(target), read_image(source), atol=8 if suffix == "jpg" else 0)
    if mode == "I;16":
        assert sorted(np.asarray(Pillow.open(target)).ravel()) == sorted(100 * ramp.ravel())
