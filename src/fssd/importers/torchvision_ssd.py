"""torchvision's ssd300_vgg16: backbone.features.N, backbone.extra.N, head.*_head.module_list.N."""

from typing import Any

from torch import Tensor

from fssd.backbones.vgg_weights import VGG_PLACES
from fssd.data.class_names import COCO_IDS
from fssd.heads.multibox.priors import standard_ratios
from fssd.importers.foreign import Foreign, Imported, ratio_option

ORIGIN = "torchvision's ssd300_vgg16"
OFFSETS = "head.regression_head.module_list"
SCORES = "head.classification_head.module_list"
OUTPUTS = 91  # background and COCO's ids 1..90, ten of which no category has
MEAN = [122.99925, 116.9991, 103.9992]  # 255 * (0.48235, 0.45882, 0.40784)


def import_torchvision_ssd(foreign: Foreign) -> Imported:
    """Its weights read RGB by default. Of 91 outputs, those of COCO's 80 categories and background are taken.

    Raises CheckpointError for missing tensors, odd heads, or another model than the one asked for.
    """
    size, ratios, classes, heads = foreign.predicted(OFFSETS, SCORES)
    if size != 300:
        raise foreign.error(f"{ORIGIN} has 6 levels, not {len(ratios)}")
    foreign.must_hold("ssd300-vgg16")
    layers = {f"backbone.{layer}": f"backbone.{_vgg(index)}" for index, layer in VGG_PLACES.items()}
    for block in range(1, 5):  # conv6_1 and conv6_2 to conv9_1 and conv9_2, ReLUs between
        for n in (1, 2):
            layers[f"neck.extras.conv{block + 5}_{n}.0"] = f"backbone.extra.{block}.{2 * n - 2}"
    tensors = foreign.take_detector(layers | heads, {"neck.scale.weight": "backbone.scale_weight"}, "rgb")
    if 1 + classes == OUTPUTS:
        classes = len(COCO_IDS)
        tensors |= {key: _published(tensors[key]) for key in tensors if key.startswith("heads.conf.")}
    options: dict[str, Any] = {"priors": foreign.wanted.priors or "coco", "clip": "sides", "mean": MEAN}
    options |= ratio_option(ratios, standard_ratios(len(ratios)))
    return foreign.imported(options, classes, tensors)


def _published(rows: Tensor) -> Tensor:
    """(A * 91, ...) to (A * 81, ...): background and the ids that are categories, prior by prior."""
    by_prior = rows.reshape(-1, OUTPUTS, *rows.shape[1:])
    return by_prior[:, [0, *COCO_IDS]].flatten(0, 1)


def _vgg(index: int) -> str:
    """Name of a layer of VGG16: up to conv4_3 in features, from pool4 on in the first block of extra."""
    if index < 23:
        return f"features.{index}"
    if index < 30:
        return f"extra.0.{index - 23}"
    return f"extra.0.7.{index - 30}"  # from pool5
