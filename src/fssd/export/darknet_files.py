"""A YOLOv2 for darknet: the `.weights` file, and the `.cfg` that darknet needs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from fssd.atomic import atomic_path, atomic_write
from fssd.backbones.darknet import STAGES, Darknet19
from fssd.backbones.darknet_weights import SUFFIX, count, cut, darknet_bytes, read_darknet
from fssd.errors import ConfigError, ExportError
from fssd.export.companions import CFG_SUFFIX, place_of, require_own_beside
from fssd.export.write import check_suffix
from fssd.inference.detector import Detector
from fssd.model.network import Network
from fssd.necks.yolov2 import PASSTHROUGH
from fssd.weights.yolov2_layers import yolov2_order, yolov2_parts

Section = tuple[str, dict[str, object]]


def export_darknet(detector: Detector, out: Path) -> int:
    """Write `out`, a .weights file, and its .cfg, if what is read back from it is what was written.

    Returns how many numbers it holds. Raises ConfigError for another network or suffix, for a mean or std
    other than darknet's, and for a .cfg that is not of an earlier export; ExportError if the file fails.
    """
    check_suffix(out, SUFFIX)
    network = detector.network
    backbone, _, heads = yolov2_parts(network)
    _require_pixels(network, backbone)
    require_own_beside(out, (CFG_SUFFIX,))
    shapes, tensors = yolov2_order(network), network.state_dict()
    with atomic_path(out) as temporary:
        temporary.write_bytes(darknet_bytes(int(heads.seen), (tensors[name] for name in shapes)))
        again = cut(read_darknet(temporary).floats, shapes)
        if not all(torch.equal(again[name], tensors[name].cpu()) for name in shapes):
            raise ExportError(f"{out}: other numbers were read than written; check the disk and export again")
        atomic_write(place_of(out).with_suffix(CFG_SUFFIX), darknet_cfg(network))
    return count(shapes)


def _require_pixels(network: Network, backbone: Darknet19) -> None:
    """Raise ConfigError unless the network sees pixels as darknet does, whose files hold neither of these."""
    for name, own in (("mean", backbone.mean), ("std", backbone.std)):
        found = tuple(network.get_buffer(name).flatten().tolist())
        if found != own:
            reason = f"has a {name} of {found}, and darknet's is always {own}"
            raise ConfigError(f"the model {reason}; export it to another runtime, such as --to onnx")


def darknet_cfg(network: Network) -> str:
    """The layers of a YOLOv2 in darknet's form, to detect with: one image at a time, no training settings."""
    width, height = network.image_size
    sections: list[Section] = [("net", {"batch": 1, "subdivisions": 1, "width": width, "height": height})]
    sections[0][1]["channels"] = 3
    sections += _layers(network)
    return "\n".join(
        "\n".join([f"[{kind}]", *(f"{key}={value}" for key, value in values.items()), ""])
        for kind, values in sections
    )


def _layers(network: Network) -> Iterator[Section]:
    _, neck, heads = yolov2_parts(network)
    width, grid = neck.channels[0], heads.grid
    layers: list[Section] = []
    for stage in STAGES:
        if layers:
            layers.append(("maxpool", {"size": 2, "stride": 2}))
        layers += [_conv(*conv) for conv in stage]
        if stage is STAGES[-2]:
            source = len(layers) - 1
    layers += [_conv(width, 3), _conv(width, 3)]
    deep = len(layers) - 1
    layers.append(("route", {"layers": source}))
    if "passthrough" in neck.layers():
        layers.append(_conv(PASSTHROUGH, 1))
    layers.append(("reorg", {"stride": 2}))
    layers.append(("route", {"layers": f"-1,{deep}"}))
    layers.append(_conv(width, 3))
    plain: dict[str, object] = {"filters": grid.channels, "size": 1, "stride": 1, "pad": 1}
    layers.append(("convolutional", {**plain, "activation": "linear"}))
    anchors = ",".join(f"{side:g}" for shape in grid.anchors for side in shape)
    region: dict[str, object] = {"anchors": anchors, "bias_match": 1, "classes": grid.classes, "coords": 4}
    layers.append(("region", {**region, "num": len(grid.anchors), "softmax": 1}))
    yield from layers


def _conv(outputs: int, kernel: int) -> Section:
    values: dict[str, object] = {
        "batch_normalize": 1,
        "filters": outputs,
        "size": kernel,
        "stride": 1,
        "pad": 1,
    }
    return "convolutional", {**values, "activation": "leaky"}
