"""Prior boxes against the published sizes of SSD and FSSD, laid out by a plain loop after Caffe."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from fssd.errors import ConfigError
from fssd.heads.multibox import priors as module
from fssd.heads.multibox.priors import Level, cell_shapes, make_priors, standard_ratios, table_scale
from fssd.model.build import build_model

# Borders of the prior sizes as the training scripts give them: level i spans entries i and i + 1.
VOC300 = [30, 60, 111, 162, 213, 264, 315]
COCO300 = [21, 45, 99, 153, 207, 261, 315]
VOC512 = [35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6]
COCO512 = [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72]
# Caffe keeps them in an int.
VOC512_WHOLE = [35, 76, 153, 230, 307, 384, 460, 537]
COCO512_WHOLE = [20, 51, 133, 215, 296, 378, 460, 542]

MAPS300 = [38, 19, 10, 5, 3, 1]
MAPS512 = [64, 32, 16, 8, 4, 2, 1]
STEPS300 = [8, 16, 32, 64, 100, 300]
STEPS512 = [8, 16, 32, 64, 128, 256, 512]
FLOAT_STEPS300 = [300 / 38, 300 / 19, 30, 60, 100, 300]
RATIOS300 = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
RATIOS512 = [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]]

TABLES = {
    ("ssd", 300, "voc"): (VOC300, VOC300, STEPS300),
    ("ssd", 300, "coco"): (COCO300, COCO300, STEPS300),
    ("ssd", 512, "voc"): (VOC512, VOC512_WHOLE, STEPS512),
    ("ssd", 512, "coco"): (COCO512, COCO512_WHOLE, STEPS512),
    ("fssd", 300, "voc"): (VOC300, VOC300, FLOAT_STEPS300),
    ("fssd", 300, "coco"): (COCO300, COCO300, FLOAT_STEPS300),
    ("fssd", 512, "voc"): (VOC512, VOC512_WHOLE, STEPS512),
    # The released FSSD512-COCO has VOC's sizes; only SSD512 has a COCO table of its own.
    ("fssd", 512, "coco"): (VOC512, VOC512_WHOLE, STEPS512),
}
KEYS = list(TABLES)


def make_levels(family: str, size: int, table: str = "voc", **settings: Any) -> tuple[Level, ...]:
    """The levels of a released network; FSSD512 has VOC's sizes on COCO too."""
    maps = MAPS300 if size == 300 else MAPS512
    steps = STEPS300 if size == 300 else STEPS512
    if family == "fssd":
        steps = FLOAT_STEPS300 if size == 300 else STEPS512
    if (family, size, table) == ("fssd", 512, "coco"):
        table = "voc"  # what the neck says of it, see tests/necks/test_fssd.py
    return module.make_levels(
        [(n, n) for n in maps], [(s, s) for s in steps], (size, size), table, **settings
    )


def plain_priors(
    maps: list[int], steps: list[float], sizes: list[float], ratios: list[list[float]]
) -> list[list[float]]:
    boxes = []
    for level, cells in enumerate(maps):
        low, high = sizes[level], sizes[level + 1]
        for row in range(cells):
            for column in range(cells):
                x, y = (column + 0.5) * steps[level], (row + 0.5) * steps[level]
                shapes = [(low, low), (math.sqrt(low * high), math.sqrt(low * high))]
                for ratio in ratios[level]:
                    for r in (ratio, 1 / ratio):
                        shapes.append((low * math.sqrt(r), low / math.sqrt(r)))
                boxes += [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for w, h in shapes]
    return boxes


def layout(image_size: int) -> tuple[list[int], list[list[float]]]:
    return (MAPS300, RATIOS300) if image_size == 300 else (MAPS512, RATIOS512)


def assert_boxes(found: torch.Tensor, wanted: list[list[float]]) -> None:
    assert found.dtype == torch.float32
    assert found.shape == (len(wanted), 4)
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=1e-4)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_all_priors_equal_plain_loop(key: tuple[str, int, str]) -> None:
    maps, ratios = layout(key[1])
    exact, whole, steps = TABLES[key]
    assert_boxes(make_priors(make_levels(*key)), plain_priors(maps, steps, whole, ratios))
    assert_boxes(make_priors(make_levels(*key, truncate=False)), plain_priors(maps, steps, exact, ratios))


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_levels_hold_the_published_numbers(key: tuple[str, int, str]) -> None:
    exact, whole, steps = TABLES[key]
    maps, ratios = layout(key[1])
    for truncate, sizes in ((True, whole), (False, exact)):
        levels = make_levels(*key, truncate=truncate)
        assert [(level.rows, level.columns) for level in levels] == [(n, n) for n in maps]
        assert [level.shapes[0] for level in levels] == [pytest.approx((s, s), rel=1e-6) for s in sizes[:-1]]
        middles = [math.sqrt(low * high) for low, high in pairwise(sizes)]
        assert [level.shapes[1] for level in levels] == [pytest.approx((s, s), rel=1e-6) for s in middles]
        assert [level.step for level in levels] == [pytest.approx((s, s), abs=1e-9) for s in steps]
        assert [level.anchors for level in levels] == [2 + 2 * len(row) for row in ratios]
    assert [list(row) for row in standard_ratios(len(maps))] == ratios


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_counts_are_those_of_the_paper(key: tuple[str, int, str]) -> None:
    levels = make_levels(*key)
    counts = [level.rows * level.columns * level.anchors for level in levels]
    if key[1] == 300:
        assert counts == [5776, 2166, 600, 150, 36, 4]
        assert len(make_priors(levels)) == 8732
    else:
        assert counts == [16384, 6144, 1536, 384, 96, 16, 4]
        assert len(make_priors(levels)) == 24564


def test_second_square_of_512_comes_from_whole_sizes() -> None:
    # sqrt(35 * 76) = 51.575, sqrt(76 * 153) = 107.83, ...
    sides = [level.shapes[1] for level in make_levels("fssd", 512)]
    wanted = [51.575, 107.83, 187.59, 265.73, 343.35, 420.29, 497.01]
    assert [w for w, _ in sides] == pytest.approx(wanted, abs=6e-3)
    assert [h for _, h in sides] == pytest.approx(wanted, abs=6e-3)


def test_fssd_divides_the_image_where_ssd_rounds() -> None:
    assert make_levels("ssd", 300)[0].step == (8, 8)
    assert make_levels("fssd", 300)[0].step[0] == pytest.approx(7.8947, abs=1e-4)
    assert make_levels("fssd", 300)[1].step[1] == pytest.approx(15.789, abs=1e-3)
    # Centre of the last cell of the finest map: 37.5 * 8 = 300 in SSD, 37.5 * 300/38 = 296.05 in FSSD.
    for family, center in (("ssd", 300.0), ("fssd", 296.0526)):
        box = make_priors(make_levels(family, 300))[5775]
        assert ((box[0] + box[2]) / 2).item() == pytest.approx(center, abs=1e-3)


def test_order_in_a_cell_by_hand() -> None:
    # Cell 0 of FSSD300's level 1 (19 x 19, step 300/19, 60..111 px), centre 7.8947.
    box = make_priors(make_levels("fssd", 300))[5776:5782]
    assert ((box[:, 0] + box[:, 2]) / 2).tolist() == pytest.approx([7.8947] * 6, abs=1e-3)
    width, height = (box[:, 2] - box[:, 0]).tolist(), (box[:, 3] - box[:, 1]).tolist()
    # 60; sqrt(60 * 111) = 81.609; 60 sqrt 2 = 84.853, 60 / sqrt 2 = 42.426; sqrt 3: 103.923, 34.641
    assert width == pytest.approx([60, 81.609, 84.853, 42.426, 103.923, 34.641], abs=1e-3)
    assert height == pytest.approx([60, 81.609, 42.426, 84.853, 34.641, 103.923], abs=1e-3)


def test_cells_go_row_by_row() -> None:
    level = Level(3, 3, (10.0, 10.0), cell_shapes(4, 9, ()))
    priors = make_priors((level,))
    centers = ((priors[::2, :2] + priors[::2, 2:]) / 2).tolist()  # two squares a cell
    assert centers == [[x, y] for y in (5, 15, 25) for x in (5, 15, 25)]
    assert (priors[1::2, 2] - priors[1::2, 0]).tolist() == [6.0] * 9  # sqrt(4 * 9)


def test_priors_reach_beyond_the_image() -> None:
    priors = make_priors(make_levels("fssd", 300))
    assert priors[0].tolist() == pytest.approx([3.9474 - 15, 3.9474 - 15, 3.9474 + 15, 3.9474 + 15], abs=1e-3)
    # Furthest out: the corner cells of level 3 (5 x 5, step 60), 162 sqrt 3 = 280.592 wide around 30 and 270.
    assert priors.max().item() == pytest.approx(270 + 280.592 / 2, abs=1e-2)
    assert priors.min().item() == pytest.approx(30 - 280.592 / 2, abs=1e-2)


@pytest.mark.parametrize(
    ("anchors", "image_size", "count"),
    [
        ([4, 6, 6, 4, 4, 4], 300, 8682),  # the committed VOC script
        ([6, 6, 6, 4, 4, 4], 300, 11570),  # the script of the 60k-iteration training
        ([6, 6, 6, 6, 4, 4], 300, 11620),  # the PyTorch port
        ([6, 6, 6, 6, 6, 4, 4], 512, 32756),
    ],
)
def test_other_ratios(anchors: list[int], image_size: int, count: int) -> None:
    ratios = tuple((2.0,) if a == 4 else (2.0, 3.0) for a in anchors)
    levels = make_levels("fssd", image_size, ratios=ratios)
    assert [level.anchors for level in levels] == anchors
    sizes = VOC300 if image_size == 300 else VOC512_WHOLE
    steps = FLOAT_STEPS300 if image_size == 300 else STEPS512
    wanted = plain_priors(layout(image_size)[0], steps, sizes, [list(row) for row in ratios])
    assert len(wanted) == count
    assert_boxes(make_priors(levels), wanted)


@pytest.mark.parametrize("levels", [5, 7])
def test_ratios_of_the_wrong_length(levels: int) -> None:
    with pytest.raises(ConfigError, match="ratios"):
        make_levels("fssd", 300, ratios=((2.0,),) * levels)


def test_unknown_table_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'cocco'.*'coco'"):
        make_levels("fssd", 300, "cocco")


@pytest.mark.parametrize("name", ["fssd300-lite", "ssd300-lite"])
def test_lite_twins_share_the_coco_sizes_and_fssd_steps(name: str) -> None:
    model = build_model(name, 3)
    assert_boxes(model.heads.priors, plain_priors(MAPS300, FLOAT_STEPS300, COCO300, RATIOS300))
    other = build_model(name, 3, priors="voc")
    assert_boxes(other.heads.priors, plain_priors(MAPS300, FLOAT_STEPS300, VOC300, RATIOS300))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("ssd300-vgg16", ("ssd", 300, "voc")),
        ("fssd300-vgg16", ("fssd", 300, "voc")),
        ("ssd512-vgg16", ("ssd", 512, "voc")),
        ("fssd512-vgg16", ("fssd", 512, "voc")),
    ],
)
def test_vgg_models_take_the_table_of_their_family(name: str, key: tuple[str, int, str]) -> None:
    _, whole, steps = TABLES[key]
    with torch.device("meta"):  # shapes alone: nothing of a hundred megabytes is computed
        levels = build_model(name, 20).heads.levels
    assert [level.shapes[0][0] for level in levels] == whole[:-1]
    assert [level.step[0] for level in levels] == pytest.approx(steps, abs=1e-9)


def sides(level: Level) -> list[tuple[float, float]]:
    return [(round(width, 2), round(height, 2)) for width, height in level.shapes]


@pytest.mark.parametrize("clip", ["sides", "all"])
def test_clipped_sides_by_hand(clip: str) -> None:
    levels = make_levels("ssd", 300, clip=clip)
    # 213 sqrt 2 = 301.23 and 264 sqrt 2 = 373.35 exceed the image; sqrt(264 * 315) = 288.37 does not.
    assert sides(levels[4]) == [(213, 213), (237.13, 237.13), (300, 150.61), (150.61, 300)]
    assert sides(levels[5]) == [(264, 264), (288.37, 288.37), (300, 186.68), (186.68, 300)]
    assert [sides(level) for level in levels[:4]] == [sides(level) for level in make_levels("ssd", 300)[:4]]
    only = make_priors(levels)[-2].tolist()  # the wide one of the last level, about the middle
    assert only == pytest.approx([0, 150 - 93.34, 300, 150 + 93.34], abs=1e-2)


@pytest.mark.parametrize(("clip", "center"), [("none", 304), ("sides", 304), ("all", 300)])
def test_centres_beyond_the_image_by_hand(clip: str, center: float) -> None:
    # Level 2 of SSD300: 10 cells at step 32, the last at 9.5 * 32 = 304. Priors 5776 + 2166 to + 600.
    last = make_priors(make_levels("ssd", 300, clip=clip))[5776 + 2166 + 600 - 6]
    assert last.tolist() == pytest.approx([center - 55.5, center - 55.5, center + 55.5, center + 55.5])


@pytest.mark.parametrize("image_size", [300, 512])
def test_clipping_as_the_ports_do_is_a_clamp_of_normalised_numbers(image_size: int) -> None:
    maps, ratios = layout(image_size)
    sizes, steps = (VOC300, STEPS300) if image_size == 300 else (VOC512, STEPS512)
    boxes = torch.tensor(plain_priors(maps, steps, sizes, ratios), dtype=torch.float64) / image_size
    low, high = boxes[:, :2], boxes[:, 2:]
    clamped = torch.cat(((low + high) / 2, high - low), dim=1).clamp(0, 1)
    center, half = clamped[:, :2], clamped[:, 2:] / 2
    wanted = torch.cat((center - half, center + half), dim=1) * image_size
    found = make_priors(make_levels("ssd", image_size, truncate=False, clip="all"))
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)


def test_unknown_clip_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'side'.*'sides'"):
        make_levels("ssd", 300, clip="side")


def test_other_sizes_keep_the_finest_pixels_and_spread_the_rest() -> None:
    # 416 px, 6 levels: 21 and 45 px are 5 and 11 %; (90 - 11) / 4 = 19.75, cut to 19 as Caffe's scripts do.
    assert table_scale(416, 6, "coco") == ((5, 11), 11, 19)
    levels = module.make_levels(
        [(52, 52), (26, 26), (13, 13), (7, 7), (4, 4), (2, 2)], [(8, 8)] * 6, (416, 416), "coco"
    )
    # 5, 11, 30, 49, 68, 87 % of 416 px, whole pixels.
    assert [level.shapes[0][0] for level in levels] == [20, 45, 124, 203, 282, 361]


def test_a_rectangle_takes_the_table_of_the_square_of_its_area() -> None:
    wide = module.make_levels(
        [(16, 36)], [(16, 16)], (400, 225), "voc", ratios=((2.0,),)
    )  # 400 * 225 = 300^2
    square = module.make_levels([(16, 36)], [(16, 16)], (300, 300), "voc", ratios=((2.0,),))
    assert wide[0].shapes == square[0].shapes
    clipped = module.make_levels([(1, 1)], [(400, 225)], (400, 225), "voc", ratios=((9.0,),), clip="sides")
    # 30 * 3 = 90 and 10: nothing is longer than the image; of a 264 px square only its height is.
    assert clipped[0].shapes[2] == pytest.approx((90, 10))
    assert cell_shapes(264, 264, (), (400, 225))[0] == (264, 225)


def test_priors_of_a_rectangular_map_row_by_row() -> None:
    level = Level(2, 3, (10.0, 20.0), ((4.0, 6.0),))
    centres = ((make_priors((level,))[:, :2] + make_priors((level,))[:, 2:]) / 2).tolist()
    assert centres == [[x, y] for y in (10, 30) for x in (5, 15, 25)]


def test_priors_with_centres_of_their_own() -> None:
    level = Level(1, 2, (10.0, 10.0), ((4.0, 4.0), (2.0, 6.0)), ((0.25, 0.5), (0.75, 1.0)))
    # Cells begin at 0 and 10: centres (2.5, 5) and (7.5, 10), then 10 px further right.
    assert make_priors((level,)).tolist() == [
        [0.5, 3, 4.5, 7],
        [6.5, 7, 8.5, 13],
        [10.5, 3, 14.5, 7],
        [16.5, 7, 18.5, 13],
    ]


def test_levels_of_files_of_version_0_1() -> None:
    row = {"size": 3, "step": 100.0, "min_size": 213.0, "max_size": 264.0, "ratios": [2.0]}
    level = module.read_level({**row, "longest": 300.0, "furthest": None})
    assert (level.rows, level.columns, level.step) == (3, 3, (100, 100))
    # 213 sqrt 2 = 301.23 is longer than the image.
    assert sides(level) == [(213, 213), (237.13, 237.13), (300, 150.61), (150.61, 300)]
    assert level.furthest is None


def test_levels_come_back_from_json() -> None:
    for levels in (
        make_levels("ssd", 300, clip="all"),
        (Level(1, 2, (3.0, 4.0), ((5.0, 6.0),), ((0.2, 0.3),)),),
    ):
        rows = json.loads(json.dumps([level._asdict() for level in levels]))
        assert tuple(module.read_level(row) for row in rows) == levels
