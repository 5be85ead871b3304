"""The benchmark of shards runs, and its made-up index holds the records it was made of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fssd.data.source import open_data

pytest.importorskip("pyarrow", reason='needs pyarrow: pip install "fssd[s3]"')


def test_the_made_up_index_is_sound(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    shards = script("shards")
    records = shards.made_up(50)
    size = shards.write_made_up(shards.compact(records), tmp_path)
    assert size == (tmp_path / "index.arrow").stat().st_size
    found = open_data(tmp_path).records
    assert [record.image_id for record in found] == [record.image_id for record in records]
    for one, other in zip(found, records, strict=True):
        assert np.array_equal(one.boxes, other.boxes) and np.array_equal(one.labels, other.labels)
        assert one.stored is not None and one.stored.size == 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_columns_are_shared_with_a_forked_process(script: Callable[[str], ModuleType]) -> None:
    """Python objects are copied, since looking at one writes to its reference count; arrays are not."""
    shards = script("shards")
    records = shards.made_up(20_000)
    table = shards.compact(records)
    alone = shards.private_memory(records)
    del records
    assert shards.private_memory(table) < 0.5 * alone
