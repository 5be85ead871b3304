"""The box that a filter expects."""

from __future__ import annotations

import numpy as np
import pytest

from fssd.tracking.box_motion import BoxMotion


def test_a_box_that_grows_is_expected_to_grow_only_while_it_is_seen() -> None:
    motion = BoxMotion(np.array([0.0, 0.0, 40.0, 40.0]))
    for number in range(1, 20):
        motion.predict()
        motion.update(np.array([0.0, 0.0, 40.0 + 2 * number, 40.0 + 2 * number]))
    height = motion.mean[3]
    assert motion.mean[7] == pytest.approx(2, abs=0.3)
    motion.predict(moving=False)
    assert motion.mean[3] == height
    motion.predict()
    assert motion.box[3] - motion.box[1] == pytest.approx(height), "it has stopped to grow"
