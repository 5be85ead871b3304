"""Writes .caffemodel files with Google's protobuf, from a description of caffe.proto made at run time.

Fields and numbers are those of weiliu89/caffe's caffe.proto. Beside the weights each file has what real ones
have and a reader must step over: names, types, bottoms, tops, gradients, layers without weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import Tensor

INT32, INT64, FLOAT, DOUBLE, STRING, BYTES, MESSAGE = 5, 3, 2, 1, 9, 12, 11
ONE, MANY = 1, 3

Layers = dict[str, list[Tensor]]


def _make_net_class(data: str) -> Any:
    """data: "packed" as Caffe writes, "unpacked", or "bytes": packed floats given as their bytes."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")

    def message(name: str, fields: Iterable[tuple[str, int, int, int, str]]) -> None:
        made = file.message_type.add(name=name)
        for label, number, repeated, kind, of in fields:
            field = made.field.add(name=label, number=number, label=repeated, type=kind)
            if of:
                field.type_name = f".caffe.{of}"
            if repeated == MANY and kind in (INT64, FLOAT, DOUBLE):
                field.options.packed = data != "unpacked"

    numbers = [("data", 5, ONE, BYTES, ""), ("diff", 6, ONE, BYTES, "")]
    if data != "bytes":
        numbers = [("data", 5, MANY, FLOAT, ""), ("diff", 6, MANY, FLOAT, "")]
    message("BlobShape", [("dim", 1, MANY, INT64, "")])
    legacy = [(name, place, ONE, INT32, "") for place, name in enumerate(AXES, start=1)]
    message("BlobProto", [
        *legacy, *numbers, ("shape", 7, ONE, MESSAGE, "BlobShape"), ("double_data", 8, MANY, DOUBLE, ""),
    ])  # fmt: skip
    message("LayerParameter", [
        ("name", 1, ONE, STRING, ""), ("type", 2, ONE, STRING, ""), ("bottom", 3, MANY, STRING, ""),
        ("top", 4, MANY, STRING, ""), ("blobs", 7, MANY, MESSAGE, "BlobProto"), ("phase", 10, ONE, INT32, ""),
    ])  # fmt: skip
    message("V1LayerParameter", [
        ("bottom", 2, MANY, STRING, ""), ("top", 3, MANY, STRING, ""), ("name", 4, ONE, STRING, ""),
        ("type", 5, ONE, INT32, ""), ("blobs", 6, MANY, MESSAGE, "BlobProto"),
    ])  # fmt: skip
    message("NetParameter", [
        ("name", 1, ONE, STRING, ""), ("layers", 2, MANY, MESSAGE, "V1LayerParameter"),
        ("layer", 100, MANY, MESSAGE, "LayerParameter"),
    ])  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


AXES = ("num", "channels", "height", "width")


def caffemodel(
    layers: Layers | list[tuple[str, list[Tensor]]],
    *,
    version: int = 2,
    data: str = "packed",
    shapes: str = "shape",
    double: bool = False,
    gradients: bool = False,
) -> bytes:
    """The bytes of a .caffemodel.

    version: 1 or 2 (layer format). data: see `_make_net_class`. shapes: "shape" (BlobShape), "legacy" (num,
    channels, height, width) or "legacy-in-shape" (the four as a BlobShape, as upgraded files have them).
    """
    net = _make_net_class(data)()
    net.name = "VGG_test"
    listed = list(layers.items()) if isinstance(layers, dict) else layers
    for name, blobs in [("data", []), *listed, ("detection_out", [])]:
        layer = (net.layer if version == 2 else net.layers).add(name=name)
        layer.bottom.append("below")
        layer.top.append(name)
        if version == 2:
            layer.type, layer.phase = "Convolution", 1
        else:
            layer.type = 4
        for tensor in blobs:
            _fill_blob(layer.blobs.add(), tensor, data, shapes, double, gradients)
    return bytes(net.SerializeToString())


def _fill_blob(blob: Any, tensor: Tensor, data: str, shapes: str, double: bool, gradients: bool) -> None:
    four = [1] * (4 - tensor.ndim) + list(tensor.shape)
    if shapes == "legacy":
        for axis, size in zip(AXES, four, strict=True):
            setattr(blob, axis, size)
    else:
        blob.shape.dim.extend(four if shapes == "legacy-in-shape" else list(tensor.shape))
    if data == "bytes":
        blob.data = tensor.contiguous().numpy().astype("<f4").tobytes()
    elif double:
        blob.double_data.extend(tensor.flatten().tolist())
    else:
        blob.data.extend(tensor.flatten().tolist())
    if gradients and data != "bytes":
        blob.diff.extend([7.0] * tensor.numel())


# ---- networks of the right shapes with random weights; outputs of order 1 on images of 0..255

VGG = {
    "conv1_1": (64, 3), "conv1_2": (64, 64), "conv2_1": (128, 64), "conv2_2": (128, 128),
    "conv3_1": (256, 128), "conv3_2": (256, 256), "conv3_3": (256, 256),
    "conv4_1": (512, 256), "conv4_2": (512, 512), "conv4_3": (512, 512),
    "conv5_1": (512, 512), "conv5_2": (512, 512), "conv5_3": (512, 512), "fc6": (1024, 512),
}  # fmt: skip
EXTRAS = {
    "conv6_1": (256, 1024, 1), "conv6_2": (512, 256, 3), "conv7_1": (128, 512, 1), "conv7_2": (256, 128, 3),
    "conv8_1": (128, 256, 1), "conv8_2": (256, 128, 3), "conv9_1": (128, 256, 1), "conv9_2": (256, 128, 3),
    "conv10_1": (128, 256, 1), "conv10_2": (256, 128, 4),
}  # fmt: skip
STRIDES = (1, 2, 4, 8, 16, 32, 64)
ANCHORS = {300: (4, 6, 6, 6, 4, 4), 512: (4, 6, 6, 6, 6, 4, 4)}
SSD_WIDTHS = {
    "conv4_3_norm": 512, "fc7": 1024, "conv6_2": 512, "conv7_2": 256, "conv8_2": 256, "conv9_2": 256,
    "conv10_2": 256,
}  # fmt: skip


class Maker:
    """Makes random layers, or (real=False) layers of the right shapes that take no memory."""

    def __init__(self, real: bool = True) -> None:
        self.random = torch.Generator().manual_seed(3) if real else None

    def tensor(self, *shape: int, scale: float = 1.0) -> Tensor:
        if self.random is None:
            return torch.zeros(1).expand(shape)
        return torch.randn(shape, generator=self.random) * scale

    def conv(self, outputs: int, inputs: int, kernel: int, gain: float = 2.0) -> list[Tensor]:
        scale = math.sqrt(gain / (inputs * kernel**2))
        return [self.tensor(outputs, inputs, kernel, kernel, scale=scale), self.tensor(outputs, scale=0.1)]

    def vgg(self) -> Layers:
        layers = {name: self.conv(*widths, 3) for name, widths in VGG.items()}
        layers["conv1_1"][0] = layers["conv1_1"][0] / 70  # pixels less their mean have about this size
        layers["fc7"] = self.conv(1024, 1024, 1)
        return layers

    def heads(self, widths: dict[str, int], anchors: tuple[int, ...], classes: int) -> Layers:
        layers: Layers = {}
        for (source, width), number in zip(widths.items(), anchors, strict=True):
            layers[f"{source}_mbox_loc"] = self.conv(number * 4, width, 3, 1.0)
            layers[f"{source}_mbox_conf"] = self.conv(number * classes, width, 3, 1.0)
        return layers

    def ssd(self, vgg: Layers, size: int = 300, classes: int = 21) -> Layers:
        count = len(ANCHORS[size])
        names = list(EXTRAS) if size == 512 else list(EXTRAS)[:8]
        layers = vgg | {name: self.conv(*EXTRAS[name]) for name in names}
        scale = self.tensor(512)
        layers["conv4_3_norm"] = [20 + scale]
        return layers | self.heads(dict(list(SSD_WIDTHS.items())[:count]), ANCHORS[size], classes)

    def fssd(
        self, vgg: Layers, size: int = 300, classes: int = 21, fused: int = 768,
        anchors: tuple[int, ...] = (), counter: float = 999.5,
    ) -> Layers:  # fmt: skip
        anchors = anchors or ANCHORS[size]
        layers = dict(vgg)
        if fused > 512:
            layers |= {name: self.conv(*EXTRAS[name]) for name in list(EXTRAS)[:4]}
        layers["conv4_3_reduce"] = self.conv(256, 512, 1)
        layers["fc7_reduce"] = self.conv(256, 1024, 1)
        variance = 0.5 + self.tensor(fused).square()
        layers["fea_concat_bn"] = [
            self.tensor(fused) * counter, variance * counter, torch.tensor([counter]),
        ]  # fmt: skip
        widths: dict[str, int] = {}
        for stride in STRIDES[: len(anchors)]:
            outputs = 512 if stride < 4 else 256
            name = f"fea_concat_bn_ds_{stride}"
            layers[name] = self.conv(outputs, fused, 4 if stride == 64 else 3)
            widths[name] = fused = outputs
        return layers | self.heads(widths, anchors, classes)
