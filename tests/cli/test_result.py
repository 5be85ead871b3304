"""`--json` and exit codes of every verb, as docs/command-line.md promises them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from fssd.cli.main import BAD_INPUT, COMMANDS, INTERRUPTED, MODULES, READER_GONE, main
from fssd.cli.result import TO_FILE, add_result, result_on_stdout, take_json
from fssd.zoo.models import MODELS

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
SOURCES = Path(str(sys.modules["fssd.cli.main"].__file__)).parent


def documented(verb: str) -> set[str]:
    """The words in code in the row of a verb."""
    row = re.search(rf"^\| `{verb}` \|(.*)\|$", PAGE, flags=re.MULTILINE)
    assert row is not None, f"{verb} has no row"
    return set(re.findall(r"`([\w-]+)`", row[1]))


@pytest.mark.parametrize(
    ("verb", "given", "left", "wanted"),
    [
        ("detect", "m a --json", "m a", True),
        ("detect", "m --json a", "m a", True),
        ("detect", "m a", "m a", False),
        ("detect", "m --json - a", "m a", True),
        ("eval", "m --json - --data d", "m --data d", True),
        ("eval", "m --json=- --data d", "m --data d", True),
        ("eval", "m --json --data d", "m --data d", True),
        ("eval", "m --data d --json", "m --data d", True),
        ("eval", "m --json f.json --data d", "m --json f.json --data d", False),
        ("eval", "m --json=f.json", "m --json=f.json", False),
        ("eval", "m --json f.json --json", "m --json f.json", True),
        ("detect", "--json --help", "--json --help", False),
    ],
)
def test_where_the_result_goes(verb: str, given: str, left: str, wanted: bool) -> None:
    assert take_json(verb, given.split()) == (left.split(), wanted)


def test_verbs_that_write_it_to_a_file_too() -> None:
    flags = {verb: import_module(f"fssd.cli.{MODULES.get(verb, verb)}") for verb in COMMANDS}
    with_file = {
        verb
        for verb, module in flags.items()
        if "json" in {field.name for field in fields(getattr(module, verb.title()))}
    }
    assert with_file == TO_FILE


def test_every_member_is_documented() -> None:
    for verb in COMMANDS:
        tree = ast.parse((SOURCES / f"{MODULES.get(verb, verb)}.py").read_text(encoding="utf-8"))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        named = [(getattr(call.func, "id", ""), call) for call in calls]
        own = [call for name, call in named if name in ("add_result", "add_document")]
        assert own, f"{verb} has no result"
        members = {word.arg for call in own for word in call.keywords if word.arg}
        assert members <= documented(verb), verb


def test_what_others_print_goes_to_stderr() -> None:
    script = """
import os
from fssd.cli.result import *
with result_on_stdout():
    print("for people")
    os.write(1, b"from C")
    add_result(share=float("nan"), names=("a", "\\u00e4"))
print("after")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == '{"share": null, "names": ["a", "\\u00e4"]}\nafter\n'
    assert "from C" in done.stderr and "for people" in done.stderr


def test_nothing_to_say_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    add_result(lost=1)
    with result_on_stdout():
        pass
    assert capsys.readouterr().out == ""


def result(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    try:
        ended = main([*arguments, "--json"])
    except SystemExit as stopped:
        ended = int(stopped.code or 0)
    out, err = capsys.readouterr()
    assert ended == code, (arguments, err)
    (line,) = out.splitlines()
    made = json.loads(line)
    assert isinstance(made, dict) and out.isascii()
    return made


@pytest.mark.parametrize("verb", COMMANDS)
def test_usage(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(result([verb, "--no-such-flag", "1"], capsys, BAD_INPUT)) == {"error"}


@pytest.mark.parametrize("verb", [["evla"], []])
def test_no_verb(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (error,) = result(verb, capsys, BAD_INPUT).values()
    assert error.startswith("there is no command ") and ("did you mean 'eval'" in error) == bool(verb)


NOT_THERE = {
    "ablate": "nothing.yaml",
    "bench": "nothing.safetensors",
    "check": "nothing",
    "compare": "animals nothing.safetensors nothing.jpg",
    "convert": "nothing --to coco --out OUT/never",
    "curves": "nothing --out OUT/never.png",
    "detect": "nothing.safetensors DATA/JPEGImages --out OUT/never",
    "eval": "nothing.safetensors --data DATA",
    "export": "nothing.safetensors --to safetensors --out OUT/never.safetensors",
    "fetch": "nothing",
    "import": "nothing.pth --model fssd300-lite --out OUT/never",
    "label": "nothing.safetensors DATA/JPEGImages --to voc --out OUT/never",
    "pick": "nothing.safetensors DATA/JPEGImages --count 1",
    "push": "nothing.safetensors hf://user/name",
    "scatter": "nothing.safetensors --out OUT/never.png",
    "serve": "nothing.safetensors --port 0",
    "shard": "nothing OUT/never",
    "submit": "nothing.safetensors --data DATA --to voc2007 --out OUT/never",
    "subset": "nothing.safetensors --classes cat --out OUT/never",
    "train": "--data nothing --out OUT/never",
    "tune": "nothing.yaml --data DATA --out OUT/never",
    "why": "nothing.safetensors nothing.jpg",
}
DONE = {
    "check": "DATA",
    "completion": "bash",
    "convert": "DATA --to coco --out OUT/coco",
    "detect": "animals DATA/JPEGImages --out OUT/found",
    "eval": "DIGITS --data DATA --split val --workers 0",
    "fetch": "--list",
    "label": "animals DATA/JPEGImages --to voc --out OUT/drafts",
    "pick": "animals DATA/JPEGImages --count 1",
    "subset": "animals --classes cat --out OUT/cat",
    "compare": "animals OTHER DATA/JPEGImages --out OUT/compare.png",
    "why": "animals PHOTO --out OUT/why.jpg",
}


def test_results_and_errors(model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What takes seconds is done once; every verb that can fail before its work does so once."""
    other = tmp_path / "other.safetensors"
    other.write_bytes(MODELS["animals"].read_bytes())
    pytest.importorskip("skimage", reason='the scenes need scikit-image: pip install "fssd[demo]"')
    small = tmp_path / "data"
    assert set(result(["scenes", str(small), "--train", "2", "--val", "1"], capsys)) == {"folder"}
    photo = next((small / "JPEGImages").iterdir())
    places = {"DATA": small, "OUT": tmp_path, "OTHER": other, "PHOTO": photo, "DIGITS": model_file}

    def words(text: str) -> list[str]:
        for name, path in places.items():
            text = text.replace(name, str(path))
        return text.split()

    for verb, line in DONE.items():
        made = result([verb, *words(line)], capsys)
        if verb in ("why", "eval"):
            assert {"levels", "detections"} <= set(made) or made["map"] is None or 0 <= made["map"] <= 1
        else:
            assert set(made) <= documented(verb), verb
    for verb, line in NOT_THERE.items():
        made = result([verb, *words(line)], capsys, BAD_INPUT)
        assert set(made) == {"error"} and "\n" not in made["error"], verb
    assert not list(tmp_path.glob("never*"))
    assert set(COMMANDS) - set(NOT_THERE) == {"completion", "demo", "scenes"}


def test_done_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"no image")
    made = result(["detect", "animals", str(photos), "--out", str(tmp_path / "found")], capsys, 1)
    assert (made["inputs"], made["done"]) == (1, 0)


def test_codes_are_those_of_the_page() -> None:
    codes = re.findall(r"^\| (\d+|128 \+ N) \|", PAGE, flags=re.MULTILINE)
    assert codes == ["0", "1", str(BAD_INPUT), "128 + N", str(READER_GONE)]
    assert INTERRUPTED == 130 and "130 Ctrl-C" in PAGE
