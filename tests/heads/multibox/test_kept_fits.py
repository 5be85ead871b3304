"""Fitted levels come back as they were; the key holds what they depend on, and a broken file is no error."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.heads.multibox.kept_fits import Levels, kept_fit
from fssd.heads.multibox.priors import Level

GIVEN = (Level(10, 10, (30.0, 30.0), ((50.0, 50.0),)),)
FITTED = (
    Level(10, 10, (30.0, 30.0), ((12.34, 50.0), (60.1, 7.0)), ((0.123, 1.0), (0.5, 0.5))),
    Level(1, 2, (300.0, 150.0), ((280.0, 280.0),), None, (299.0, 299.0)),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the fits are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fssd" / "priors"


def refuse() -> Levels:
    raise AssertionError("it was fitted again")


def test_levels_come_back_as_they_were(folder: Path) -> None:
    assert kept_fit(b"boxes", "<f4", GIVEN, 0.95, lambda: FITTED) == FITTED
    again = kept_fit(b"boxes", "<f4", GIVEN, 0.95, refuse)
    assert again == FITTED and hash(again) == hash(FITTED), "tuples, not lists"
    assert isinstance(again[0], Level)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "asked",
    [
        (b"other", "<f4", GIVEN, 0.95),
        (b"boxes", "<f8", GIVEN, 0.95),
        (b"boxes", "<f4", (*GIVEN, *GIVEN), 0.95),
        (b"boxes", "<f4", GIVEN, 0.9),
    ],
)
def test_anything_else_is_fitted(asked: tuple[bytes, str, Levels, float]) -> None:
    kept_fit(b"boxes", "<f4", GIVEN, 0.95, lambda: FITTED)
    with pytest.raises(AssertionError, match="fitted again"):
        kept_fit(*asked, refuse)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"levels": [{"rows": 1}]}', "null"])
def test_a_damaged_file_is_replaced(folder: Path, content: str) -> None:
    kept_fit(b"boxes", "<f4", GIVEN, 0.95, lambda: FITTED)
    (file,) = folder.iterdir()
    file.write_text(content)
    assert kept_fit(b"boxes", "<f4", GIVEN, 0.95, lambda: FITTED) == FITTED
    assert kept_fit(b"boxes", "<f4", GIVEN, 0.95, refuse) == FITTED


def test_without_a_folder_it_is_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert kept_fit(b"boxes", "<f4", GIVEN, 0.95, lambda: FITTED) == FITTED
