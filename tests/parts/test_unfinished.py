"""What plain `fssd detect` leaves to go on with, and the other files of that name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fssd.errors import ConfigError
from fssd.parts.unfinished import Unfinished


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    return file


def state(model: Path, score: float = 0.5) -> Unfinished:
    return Unfinished(model.parent, model, [str(model.parent / "shots")], {"score": score})


@pytest.mark.parametrize("content", [b'{"plan": "0a1b"}', b"[]", b"{", b"\xff", b""])
def test_a_file_of_something_else_is_not_written_over(model: Path, content: bytes) -> None:
    """The first one is of shards that are being written."""
    file = model.parent / "unfinished.json"
    file.write_bytes(content)
    reason = r"unfinished\.json: is not of `fssd detect` and would be overwritten; move it or choose another"
    with pytest.raises(ConfigError, match=reason):
        state(model)
    assert file.read_bytes() == content


def test_a_changed_input_stays_so_until_its_results_are_taken_out(model: Path) -> None:
    """Two kills: the second one before the results of the first call are pruned."""
    picture = model.parent / "a.jpg"

    def call(content: bytes) -> Unfinished:
        if not picture.exists() or picture.read_bytes() != content:
            picture.write_bytes(content)
        made = state(model)
        made.output_names([picture], ".jpg")
        made.begin()
        return made

    call(b"one")
    assert not call(b"other").is_kept(picture)
    again = call(b"other")
    assert (again.changed, again.is_kept(picture)) == (1, False)
    again.begin(is_pruned=True)
    assert call(b"other").is_kept(picture)


def test_a_state_without_names_starts_from_the_beginning(model: Path) -> None:
    """That of an earlier version: nobody knows which inputs its films are of."""
    state(model).begin()
    assert state(model).goes_on
    file = model.parent / "unfinished.json"
    content = json.loads(file.read_bytes())
    del content["names"]
    file.write_text(json.dumps({**content, "films": ["clip.mp4"]}))
    before = state(model)
    assert (before.goes_on, before.films, before.others) == (False, set(), [])
    assert before.output_names([Path("a/clip.mp4")], ".mp4") == ["clip.mp4"]
