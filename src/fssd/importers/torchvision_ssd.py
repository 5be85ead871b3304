"""torchvision's ssd300_vgg16: backbone.features.N, backbone.extra.N, head.*_head.module_list.N."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fssd.backbones.vgg_weights import VGG_PLACES
from fssd.data.class_names import COCO_IDS
from fssd.errors import CheckpointError
from fssd.heads.multibox.priors import standard_ratios
from fssd.importers.foreign import Foreign, Wanted, check_name, convolutions, read_rgb
from fssd.importers.imported import Imported

ORIGIN = "torchvision's ssd300_vgg16"
OFFSETS = "head.regression_head.module_list"
SCORES = "head.classification_head.module_list"
OUTPUTS = 91  # background and COCO's ids 1..90, ten of which no category has
MEAN = [122.99925, 116.9991, 103.9992]  # 255 * (0.48235, 0.45882, 0.40784)


def import_torchvision_ssd(foreign: Foreign, wanted: Wanted) -> Imported:
    """Its weights read RGB. Of 91 outputs, those of COCO's 80 categories and the background are taken.

    Raises CheckpointError for missing tensors, odd heads, or another model than the one asked for.
    """
    size, ratios, outputs = foreign.predicted(OFFSETS, SCORES)
    if size != 300:
        raise CheckpointError(f"{foreign.file}: {ORIGIN} has 6 levels, not {len(ratios)}")
    check_name(foreign, wanted, "ssd300-vgg16")
    names = convolutions(_places(len(ratios))) | {"neck.scale.weight": "backbone.scale_weight"}
    tensors = foreign.take(names)
    read_rgb(tensors, wanted.colours or "rgb")
    if outputs == OUTPUTS:
        for key in [key for key in tensors if key.startswith("heads.conf.")]:
            tensors[key] = _published(tensors[key])
        outputs = 1 + len(COCO_IDS)
    options: dict[str, Any] = {"priors": wanted.priors or "coco", "clip": "sides", "mean": MEAN}
    if ratios != standard_ratios(len(ratios)):
        options["ratios"] = [list(row) for row in ratios]
    return foreign.imported(options, outputs - 1, tensors, names.values())


def _published(rows: Tensor) -> Tensor:
    """(A * 91, ...) to (A * 81, ...): background and the ids that are categories, prior by prior."""
    by_prior = rows.reshape(-1, OUTPUTS, *rows.shape[1:])
    return by_prior[:, [0, *COCO_IDS]].flatten(0, 1)


def _places(levels: int) -> dict[str, str]:
    """Their name of each convolution, by ours."""
    places = {f"backbone.{layer}": f"backbone.{_vgg(place)}" for place, layer in VGG_PLACES.items()}
    for block in range(1, levels - 1):  # conv6_1 and conv6_2 to conv9_1 and conv9_2, ReLUs between
        places |= {
            f"neck.extras.conv{block + 5}_{n}.0": f"backbone.extra.{block}.{2 * n - 2}" for n in (1, 2)
        }
    for level in range(levels):
        places |= {f"heads.loc.{level}": f"{OFFSETS}.{level}", f"heads.conf.{level}": f"{SCORES}.{level}"}
    return places


def _vgg(place: int) -> str:
    """Where a layer of VGG16 stands: up to conv4_3 in features, from pool4 in the first block of extra."""
    if place < 23:
        return f"features.{place}"
    if place < 30:
        return f"extra.0.{place - 23}"
    return f"extra.0.7.{place - 30}"  # from pool5
