"""Damage to files and requests, as strategies of hypothesis."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EFFORT = int(os.environ.get("FSSD_FUZZ", "1"))  # above 1: that much longer, and random

Fault = tuple[float, str, int, bytes]


def examples(count: int) -> settings:
    """Settings of hypothesis for so many examples."""
    return settings(
        max_examples=count * EFFORT,
        deadline=None,
        derandomize=EFFORT == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def damage(content: bytes, where: float, kind: str, length: int, filling: bytes) -> bytes:
    """Content with one fault. where: 0 to 1, from the begin to the end."""
    start = int(where * len(content))
    if kind == "cut":
        return content[:start]
    if kind == "flip":
        flipped = bytes(byte ^ (1 << length % 8) for byte in content[start : start + 1])
        return content[:start] + flipped + content[start + 1 :]
    end = {"replace": start + len(filling), "insert": start, "remove": start + length}[kind]
    return content[:start] + (b"" if kind == "remove" else filling) + content[end:]


TOKENS = [
    *(b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xd8\xff", b"\xff\xda"),
    *(b"\xef\xbb\xbf", b"PK\x03\x04", b"\x89PNG"),
    *(b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"null", b"true", b"[]", b"{}", b"9" * 20, b"9" * 5000),
    *(b"<", b">", b"&", b"&x;", b"<!DOCTYPE x [", b"]]>", b"<!--", b"\\u0000", b"\\ud800", b"'", b'"', b","),
    *(b"[" * 3000, b"{" * 3000, b'{"a":' * 3000, b"<a>" * 3000, b"a" * 5000, b"../../../x", b"/dev/zero"),
    *(b"&a [*a]", b"*a", b"!!python/object:os.system", b"- ", b": ", b"#", b"\t", b"\n", b"\xe2\x80\xae"),
]

FAULTS = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["cut", "flip", "replace", "insert", "remove"]),
    st.integers(1, 64),
    st.sampled_from(TOKENS) | st.binary(min_size=1, max_size=8),
)


def damages(most: int = 3) -> st.SearchStrategy[list[Fault]]:
    """One fault or a few, for `damaged`."""
    return st.lists(FAULTS, min_size=1, max_size=most)


def damaged(content: bytes, faults: list[Fault], head: float = 1.0) -> bytes:
    """Content with faults in its first part, of which `head` is the share."""
    for where, kind, length, filling in faults:
        content = damage(content, where * head, kind, length, filling)
    return content
