"""The pictures of docs/systems.md: what is traced is the network; pictures and numbers are up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from draw_systems import SYSTEMS, build, draw, shown_structure
from fssd.model.build import build_model
from fssd.model.cost import multiply_adds, parameters
from trace_maps import Arrow, Map, trace

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "systems.md").read_text(encoding="utf-8")


def arrows(model: str, **options: object) -> list[str]:
    with torch.device("meta"):
        return trace(build_model(model, 20, **options)).text().splitlines()


def test_ssd_is_its_papers_figure() -> None:
    """SSD 300, Fig. 2 of Liu et al.: conv4_3 and fc7 of VGG16, then 1x1 and 3x3 down to one cell."""
    assert arrows("ssd300-vgg16") == [
        "fc7 1024x19x19 -> conv6_2 512x10x10: 1x1, 3x3 s2",
        "conv6_2 512x10x10 -> conv7_2 256x5x5: 1x1, 3x3 s2",
        "conv7_2 256x5x5 -> conv8_2 256x3x3: 1x1, 3x3",
        "conv8_2 256x3x3 -> conv9_2 256x1x1: 1x1, 3x3",
        "conv4_3 512x38x38 -> level 1 512x38x38: L2 norm",
        "fc7 1024x19x19 -> level 2 1024x19x19: ",
        "conv6_2 512x10x10 -> level 3 512x10x10: ",
        "conv7_2 256x5x5 -> level 4 256x5x5: ",
        "conv8_2 256x3x3 -> level 5 256x3x3: ",
        "conv9_2 256x1x1 -> level 6 256x1x1: ",
    ]


def test_fssd_merges_three_maps_at_once() -> None:
    """FSSD's paper, 4.2: conv4_3, fc7 and conv7_2 at 38 x 38, concatenated, then one chain of blocks."""
    lines = arrows("fssd300-vgg16")
    assert [line for line in lines if "-> concat" in line] == [
        "conv4_3 512x38x38 -> concat + BN 768x38x38: 1x1",
        "fc7 1024x19x19 -> concat + BN 768x38x38: 1x1, resize",
        "conv7_2 256x10x10 -> concat + BN 768x38x38: resize",
    ]
    summed = arrows("fssd300-vgg16", merge="sum", norm="none")
    assert sum("-> sum 256x38x38" in line for line in summed) == 3
    assert "concat + BN 768x38x38 -> ds_1 512x38x38: 3x3" in lines
    assert "ds_1 512x38x38 -> ds_2 512x19x19: 3x3 s2" in lines


def test_fpn_and_dssd_merge_level_by_level_from_the_top() -> None:
    fpn, dssd = arrows("fpn300-vgg16"), arrows("dssd321-resnet101")
    assert "sum 256x19x19 -> sum 256x38x38: resize" in fpn
    assert "fc7 1024x19x19 -> sum 256x19x19: 1x1" in fpn
    assert sum("-> sum" in line for line in fpn) == 2 * 5
    assert "product 512x20x20 -> product 512x40x40: 3x3, deconvolution" in dssd
    assert sum("-> product" in line for line in dssd) == 2 * 5


def test_every_level_of_r_ssd_is_made_of_all_six() -> None:
    lines = arrows("rssd300-vgg16")
    for cells in (38, 19, 10, 5, 3, 1):
        assert sum(f"-> concat + BN 2816x{cells}x{cells}: " in line for line in lines) == 6
    assert sum(line.endswith("deconvolution") for line in lines) == 15  # each of 5 maps up to the finest
    assert sum(line.endswith("pool") for line in lines) == 15


class Toy(nn.Module):
    """A residual block, a map's own mean beside it, and a map rearranged to half of its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Residual()
        self.last1 = nn.Conv2d(8, 4, 1)

    def forward(self, features: dict[str, Tensor]) -> list[Tensor]:
        x = self.block(features["a"])
        rows, columns = x.shape[-2:]
        mean = x.mean((2, 3), keepdim=True).expand(-1, -1, rows, columns)
        both = self.last1(torch.cat((x, mean), dim=1))
        small = both.reshape(1, 4, rows // 2, 2, columns // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return [both, small.reshape(1, 16, rows // 2, columns // 2)]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.two(self.one(x).relu())).relu()


class ToyNetwork(nn.Module):
    image_size = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.neck = Toy()

    def backbone(self, images: Tensor) -> dict[str, Tensor]:
        return {"a": images.new_zeros(1, 4, 8, 8), "unused": images.new_zeros(1, 4, 4, 4)}


def test_blocks_means_and_rearrangements() -> None:
    with torch.device("meta"):
        found = trace(ToyNetwork())  # type: ignore[arg-type]
    names = [shown.name for shown in found.maps]
    assert names == ["a", "two", "concat", "last1", "level 1", "level 2"]
    assert found.maps[0] == Map("a", 4, 8, 8, "source")
    assert found.arrows == [
        Arrow(0, 1, "", "3x3, 3x3"),
        Arrow(1, 2, "", ""),
        Arrow(1, 2, "global pool", ""),
        Arrow(2, 3, "", "1x1"),
        Arrow(3, 4, "", ""),
        Arrow(3, 5, "reorg", ""),
    ]


@pytest.mark.parametrize("name", SYSTEMS)
def test_pictures_are_up_to_date(name: str) -> None:
    """Otherwise: python tools/draw_systems.py"""
    structure = build(name)
    assert shown_structure(DOCS / "images" / "systems" / f"{name}.png") == structure.text()
    model, options = SYSTEMS[name]
    with torch.device("meta"):
        neck = build_model(model, 20, **options).neck
    levels = [shown for shown in structure.maps if shown.kind == "level"]
    assert [(m.channels, (m.rows, m.columns)) for m in levels] == list(
        zip(neck.channels, map(tuple, neck.cells), strict=True)
    )


def test_a_picture_holds_its_structure(tmp_path: Path) -> None:
    structure = build("ssd")
    draw(tmp_path / "ssd.png", structure)
    assert shown_structure(tmp_path / "ssd.png") == structure.text()
    assert (tmp_path / "ssd.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", SYSTEMS)
def test_numbers_of_the_page_are_those_of_the_networks(name: str) -> None:
    model, options = SYSTEMS[name]
    section = PAGE.split(f"(images/systems/{name}.png)")[1].partition("## ")[0]
    with torch.device("meta"):
        network = build_model(model, 20, **options)
    cost = f"{parameters(network):,} parameters, {multiply_adds(network) / 1e9:.1f} G multiply-adds"
    text = re.sub(r"\s+", " ", section)
    assert f"`{model}`" in text and cost in text


def test_every_picture_is_on_the_page() -> None:
    pictures = re.findall(r"\(images/systems/([\w-]+)\.png\)", PAGE)
    assert pictures == list(SYSTEMS)
    assert {file.stem for file in (DOCS / "images" / "systems").glob("*")} == set(SYSTEMS)
