"""Sentences beside the numbers of an evaluation: they say what the numbers show."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason='plots need matplotlib: pip install "fssd[plot]"')

from fssd.evaluation.scores import calibrate
from fssd.report.eval_tables import _low_scores, _matrix


@pytest.mark.parametrize(
    ("scores", "is_low"),
    [
        ([0.05] * 20 + [0.9], True),  # wrong all of them: gaps of 20 x 0.05 and 0.9
        ([0.05] * 10 + [0.9], False),
        ([], False),
    ],
)
def test_low_scores_are_blamed_if_most_of_the_error_is_theirs(scores: list[float], is_low: bool) -> None:
    result = calibrate(np.array(scores), np.zeros(len(scores), bool))
    assert bool(_low_scores(result)) == is_low


def test_columns_of_the_matrix_have_their_name_as_a_title() -> None:
    name = "a" * 200
    head = _matrix(np.eye(2, dtype=np.int64), (name, "nothing"), [0, 1]).split("</thead>")[0]
    assert f'title="{name}"' in head
