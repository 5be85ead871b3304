"""SSD as amdegroot/ssd.pytorch saves it: vgg.N, L2Norm, extras.N, loc.N, conf.N."""

from typing import Any

from fssd.backbones.vgg_weights import VGG_PLACES
from fssd.heads.multibox.priors import standard_ratios
from fssd.importers.foreign import Foreign, Imported, ratio_option
from fssd.necks.extras import ssd_extras

ORIGIN = "amdegroot/ssd.pytorch"


def import_ssd_pytorch(foreign: Foreign) -> Imported:
    """Its weights read RGB by default; its priors are clipped.

    Raises CheckpointError for missing tensors, odd heads, or another model than the one asked for.
    """
    size, ratios, classes, heads = foreign.predicted("loc", "conf")
    foreign.must_hold(f"ssd{size}-vgg16")
    layers = {f"backbone.{layer}": f"vgg.{index}" for index, layer in VGG_PLACES.items()}
    cells = -(-size // 16)  # of fc7, on a side
    extras = ssd_extras((cells, cells))
    layers |= {f"neck.extras.{row.name}.0": f"extras.{index}" for index, row in enumerate(extras)}
    tensors = foreign.take_detector(layers | heads, {"neck.scale.weight": "L2Norm.weight"}, "rgb")
    options: dict[str, Any] = {"priors": foreign.wanted.prior_table(classes), "clip": "all"}
    if size == 512:
        options["truncate"] = False  # only Caffe keeps prior sizes in an int
    options |= ratio_option(ratios, standard_ratios(len(ratios)))
    return foreign.imported(options, classes, tensors)
