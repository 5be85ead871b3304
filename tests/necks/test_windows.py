"""From one level to the next: the released networks, other sizes, and maps that are not square."""

from __future__ import annotations

import pytest

from fssd.necks.extras import fssd_extras, ssd_extras
from fssd.necks.pyramid import pyramid_rows
from fssd.necks.windows import levels_from, nominal_steps


@pytest.mark.parametrize(
    ("finest", "sides"),
    [
        (38, [38, 19, 10, 5, 3, 1]),  # 300 px, released
        (64, [64, 32, 16, 8, 4, 2, 1]),  # 512 px, released
        (41, [41, 21, 11, 6, 3, 1]),  # 321 px
        (65, [65, 33, 17, 9, 5, 3, 1]),  # 513 px, as DSSD513 has it
        (52, [52, 26, 13, 7, 4, 2, 1]),  # 416 px
        (16, [16, 8, 4, 2, 1]),  # 128 px
        (128, [128, 64, 32, 16, 8, 4, 2, 1]),  # 1,024 px
    ],
)
def test_levels_of_a_square(finest: int, sides: list[int]) -> None:
    assert levels_from((finest, finest)) == [(n, n) for n in sides]


@pytest.mark.parametrize(
    ("finest", "levels"),
    [
        ((20, 40), [(20, 40), (10, 20), (5, 10), (3, 5), (1, 3)]),
        ((16, 128), [(16, 128), (8, 64), (4, 32), (2, 16), (1, 8)]),
        ((38, 19), [(38, 19), (19, 10), (10, 5), (5, 3), (3, 1)]),
    ],
)
def test_a_rectangle_ends_where_one_side_is_a_single_cell(
    finest: tuple[int, int], levels: list[tuple[int, int]]
) -> None:
    assert levels_from(finest) == levels


def test_layers_of_the_released_networks() -> None:
    assert [(row.name, row.outputs, *row.window) for row in pyramid_rows((38, 38))] == [
        ("ds_1", 512, 3, 1, 1),
        ("ds_2", 512, 3, 2, 1),
        ("ds_4", 256, 3, 2, 1),
        ("ds_8", 256, 3, 2, 1),
        ("ds_16", 256, 3, 1, 0),
        ("ds_32", 256, 3, 1, 0),
    ]
    assert [tuple(row.window) for row in pyramid_rows((64, 64))][-3:] == [(3, 2, 1), (3, 2, 1), (4, 1, 1)]
    assert [(row.name, row.inputs, row.outputs, *row.window) for row in fssd_extras()] == [
        ("conv6_1", 1024, 256, 1, 1, 0),
        ("conv6_2", 256, 512, 3, 1, 1),
        ("conv7_1", 512, 128, 1, 1, 0),
        ("conv7_2", 128, 256, 3, 2, 1),
    ]
    names = [row.name for row in ssd_extras((32, 32)) if row.name.endswith("_2")]
    assert names == ["conv6_2", "conv7_2", "conv8_2", "conv9_2", "conv10_2"]
    assert [tuple(row.window) for row in ssd_extras((19, 19))][1::2] == [
        (3, 2, 1),
        (3, 2, 1),
        (3, 1, 0),
        (3, 1, 0),
    ]


def test_steps_of_ssd_are_those_released_or_even() -> None:
    def steps(side: int, finest: int) -> list[float]:
        pairs = nominal_steps((side, side), levels_from((finest, finest)))
        assert all(x == y for x, y in pairs)
        return [x for x, _ in pairs]

    assert steps(300, 38) == [8, 16, 32, 64, 100, 300]
    assert steps(512, 64) == [8, 16, 32, 64, 128, 256, 512]
    assert steps(416, 52) == pytest.approx([8, 16, 32, 416 / 7, 104, 208, 416])
