"""The package onnxruntime-web, for pages and examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssd.errors import FetchError
from fssd.export.onnxruntime_web import PACKAGE, runtime_files
from fssd.storage.cache_folder import cache_folder


@pytest.fixture(scope="session")
def onnxruntime_web() -> Path:
    """The package's file in the cache of fssd, downloaded if it is missing; or a skip that says why."""
    try:
        runtime_files(None)
    except FetchError as error:
        pytest.skip(f"needs onnxruntime-web: {error}")
    return cache_folder() / PACKAGE
