"""YAML in which no key can stand twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fssd.config.yaml_files import load_yaml, read_mapping
from fssd.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("lr: 0.1\nseed: 1\nlr: 0.2", 3, "'lr'"),
        ("options:\n  merge: sum\n  'merge': concat", 3, "'merge'"),
        ("1: a\n01: b", 2, "1"),
        ("yes: a\non: b", 2, "True"),
        ("a: [{b: 1,\n b: 2}]", 2, "'b'"),
    ],
)
def test_a_key_that_is_there_twice(tmp_path: Path, text: str, line: int, key: str) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(text, encoding="utf-8")
    reason = f"{file} (line {line}): is not valid YAML (the key {key} is there twice; keep one of them)"
    with pytest.raises(ConfigError, match=re.escape(reason)):
        read_mapping(file)


def test_a_merge_overrides_as_before() -> None:
    """What stands beside << may have a key of what is merged, also in one that is merged in its turn."""
    text = """
    a: &a {x: 1, y: 1}
    b: {inner: &b {<<: *a, x: 2}}
    c: {<<: *b, y: 3}
    d: {<<: [*a, *b], <<: *b, z: 4}
    =: 5
    """
    assert load_yaml(text) == yaml.safe_load(text)
    assert load_yaml(text)["b"] == {"inner": {"x": 2, "y": 1}}
