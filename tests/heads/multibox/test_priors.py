"""Prior boxes against the published sizes of SSD and FSSD, laid out by a plain loop after Caffe."""

from __future__ import annotations

import math

import pytest
import torch

from fssd.errors import ConfigError
from fssd.heads.multibox.priors import Level, cell_shapes, make_levels, make_priors
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
        assert [level.size for level in levels] == maps
        assert [level.min_size for level in levels] == pytest.approx(sizes[:-1], abs=1e-9)
        assert [level.max_size for level in levels] == pytest.approx(sizes[1:], abs=1e-9)
        assert [level.step for level in levels] == pytest.approx(steps, abs=1e-9)
        assert [list(level.ratios) for level in levels] == ratios


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_counts_are_those_of_the_paper(key: tuple[str, int, str]) -> None:
    levels = make_levels(*key)
    counts = [level.size**2 * level.anchors for level in levels]
    if key[1] == 300:
        assert counts == [5776, 2166, 600, 150, 36, 4]
        assert len(make_priors(levels)) == 8732
    else:
        assert counts == [16384, 6144, 1536, 384, 96, 16, 4]
        assert len(make_priors(levels)) == 24564


def test_second_square_of_512_comes_from_whole_sizes() -> None:
    # sqrt(35 * 76) = 51.575, sqrt(76 * 153) = 107.83, ...
    sides = [cell_shapes(level)[1] for level in make_levels("fssd", 512)]
    wanted = [51.575, 107.83, 187.59, 265.73, 343.35, 420.29, 497.01]
    assert [w for w, _ in sides] == pytest.approx(wanted, abs=6e-3)
    assert [h for _, h in sides] == pytest.approx(wanted, abs=6e-3)


def test_fssd_divides_the_image_where_ssd_rounds() -> None:
    assert make_levels("ssd", 300)[0].step == 8
    assert make_levels("fssd", 300)[0].step == pytest.approx(7.8947, abs=1e-4)
    assert make_levels("fssd", 300)[1].step == pytest.approx(15.789, abs=1e-3)
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
    level = Level(size=3, step=10.0, min_size=4.0, max_size=9.0, ratios=())
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
    assert_boxes(model.priors, plain_priors(MAPS300, FLOAT_STEPS300, COCO300, RATIOS300))
    other = build_model(name, 3, priors="voc")
    assert_boxes(other.priors, plain_priors(MAPS300, FLOAT_STEPS300, VOC300, RATIOS300))


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
        levels = build_model(name, 20).levels
    assert [level.min_size for level in levels] == whole[:-1]
    assert [level.max_size for level in levels] == whole[1:]
    assert [level.step for level in levels] == pytest.approx(steps, abs=1e-9)


def sides(level: Level) -> list[tuple[float, float]]:
    return [(round(width, 2), round(height, 2)) for width, height in cell_shapes(level)]


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
