"""The choice between JSON and PNG, and the times."""

from __future__ import annotations

import pytest

from fssd.serve.routes import milliseconds, server_timing, wants_png


@pytest.mark.parametrize(
    ("accept", "png"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("image/png", True),
        ("IMAGE/PNG", True),
        ("image/*", True),
        ("image/png, application/json", False),
        ("image/png, application/json;q=0.9", True),
        ("application/json, image/png;q=0.9", False),
        ("image/png;q=0.5, */*;q=0.1", True),
        ("image/png;q=0, application/json;q=0", False),
        ("image/png;q=nonsense", False),
        ("text/html,application/xhtml+xml,image/avif,image/webp,image/png,*/*;q=0.8", True),
        ("text/html", False),
    ],
)
def test_accept(accept: str, png: bool) -> None:
    assert wants_png(accept) == png


def test_times() -> None:
    seconds = {"total": 0.5, "read": 0.0012345, "network": 0.25}
    assert list(milliseconds(seconds).items()) == [("read", 1.23), ("network", 250.0), ("total", 500.0)]
    assert server_timing(seconds) == "read;dur=1.23, network;dur=250.0, total;dur=500.0"
