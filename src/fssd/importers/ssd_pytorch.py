"""SSD as amdegroot/ssd.pytorch saves it: vgg.N, L2Norm, extras.N, loc.N, conf.N."""

from __future__ import annotations

from typing import Any

from fssd.backbones.vgg_weights import VGG_PLACES
from fssd.heads.multibox.priors import standard_ratios
from fssd.importers.foreign import Foreign, Wanted, check_name, convolutions, read_rgb
from fssd.importers.imported import Imported, prior_table
from fssd.necks.extras import ssd_extras

ORIGIN = "amdegroot/ssd.pytorch"


def import_ssd_pytorch(foreign: Foreign, wanted: Wanted) -> Imported:
    """Its weights read RGB, as trained there, unless `wanted` says otherwise; its priors are clipped.

    Raises CheckpointError for missing tensors, odd heads, or another model than the one asked for.
    """
    size, ratios, outputs = foreign.predicted("loc", "conf")
    check_name(foreign, wanted, f"ssd{size}-vgg16")
    places = {f"backbone.{layer}": f"vgg.{place}" for place, layer in VGG_PLACES.items()}
    fc7 = -(-size // 16)  # cells a side
    places |= {f"neck.extras.{row.name}.0": f"extras.{i}" for i, row in enumerate(ssd_extras((fc7, fc7)))}
    for level in range(len(ratios)):
        places |= {f"heads.{kind}.{level}": f"{kind}.{level}" for kind in ("loc", "conf")}
    names = convolutions(places) | {"neck.scale.weight": "L2Norm.weight"}
    tensors = foreign.take(names)
    read_rgb(tensors, wanted.colours or "rgb")
    classes = outputs - 1
    options: dict[str, Any] = {"priors": prior_table(classes, wanted.priors), "clip": "all"}
    if size == 512:
        options["truncate"] = False  # only Caffe keeps prior sizes in an int
    if ratios != standard_ratios(len(ratios)):
        options["ratios"] = [list(row) for row in ratios]
    return foreign.imported(options, classes, tensors, names.values())
