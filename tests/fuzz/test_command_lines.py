"""Command lines of any words: every verb gives a result or says in a sentence what is wrong with them."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from fssd.cli.main import COMMANDS, MODULES

LONG = {"demo", "scenes"}  # what they are asked for they make, however much it is
NUMBERS = ("0", "1", "-1", "0.5", "2", "nan", "inf", "-inf", "1e400", "1e-400", "9" * 40, "0x10", "1_0")
NAMES = (
    "none",
    "None",
    "auto",
    "true",
    "cpu",
    "cuda",
    "cuda:99",
    "abacus",
    "onnx",
    "voc",
    "coco",
    "voc12",
    "a,b",
)
ODD = (
    "",
    " ",
    "-",
    "--",
    "*",
    "[",
    "{",
    "%s",
    "$(id)",
    "é",
    "\u202e",
    "\udcff",
    "a\nb",
    "a" * 300,
    "a/" * 3000,
)
PATHS = ("/dev/null", "/proc/self/mem", "FILE", "FOLDER", "MODEL", "PICTURE", "MISSING")
VALUES = [*NUMBERS, *NAMES, *ODD, *PATHS]


def flags(verb: str) -> list[str]:
    """The flags of a verb, as the fields of its command and of the groups in it."""
    module = import_module(f"fssd.cli.{MODULES.get(verb, verb)}")
    name = f"{verb.capitalize()}"
    command = getattr(module, name, None)
    found = [] if command is None else [field.name for field in dataclasses.fields(command)]
    nested = ["score", "nms", "top_k", "keep", "batch_size", "workers", "split", "metric", "bad_share"]
    return [f"--{word.replace('_', '-')}" for word in [*found, *nested, "help", "no-such-flag"]]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    verb = draw(st.sampled_from(sorted(set(COMMANDS) - LONG)))
    words = draw(st.lists(st.sampled_from(VALUES), max_size=3))
    for flag in draw(st.lists(st.sampled_from(flags(verb)), max_size=4)):
        words += [flag, *draw(st.lists(st.sampled_from(VALUES), max_size=2))]
    return [verb, *words]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are there. None of them lets a verb begin with work that takes long."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "folder").mkdir()
    (folder / "file.txt").write_text("some words\n")
    (folder / "model.safetensors").write_bytes(bytes(100))
    Pillow.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "folder/picture.png")
    names = {"FILE": "file.txt", "FOLDER": "folder", "MODEL": "model.safetensors"}
    names |= {"PICTURE": "folder/picture.png", "MISSING": "nothing/there"}
    return {word: folder / name for word, name in names.items()}


@examples(70)
@given(words=command_lines())
def test_any_words(verbs: Any, places: dict[str, Path], words: list[str]) -> None:
    verbs(*(places.get(word, word) for word in words))


@pytest.mark.parametrize("verb", [*sorted(COMMANDS), "nothing", "", "-", "\udcff", "é"])
def test_no_words(verbs: Any, verb: str) -> None:
    for words in (["--help"], ["--nothing"], *([] if verb in LONG else [[], ["\udcff"]])):
        verbs(verb, *words)
