"""A YOLOv2 on Darknet-19 as the list of layers that darknet's files and cfgs have."""

from __future__ import annotations

import torch

from fssd.backbones.darknet import Darknet19
from fssd.backbones.darknet_weights import darknet_order
from fssd.errors import ConfigError
from fssd.heads.yolov2.yolov2_head import YOLOv2Head
from fssd.model.network import Network
from fssd.necks.yolov2 import YOLOv2


def yolov2_parts(network: Network) -> tuple[Darknet19, YOLOv2, YOLOv2Head]:
    """The parts of a YOLOv2. Raises ConfigError for any other network."""
    backbone, neck, heads = network.backbone, network.neck, network.heads
    if isinstance(backbone, Darknet19) and isinstance(neck, YOLOv2) and isinstance(heads, YOLOv2Head):
        return backbone, neck, heads
    raise ConfigError(f"darknet's files are for YOLOv2 on Darknet-19, not for {network.spec.name}")


def yolov2_order(network: Network) -> dict[str, torch.Size]:
    """Names and shapes of a YOLOv2's tensors in the order of a `.weights` file. Raises ConfigError."""
    backbone, neck, heads = yolov2_parts(network)
    orders = {
        "backbone": darknet_order(backbone, (name for name, _ in backbone.named_children())),
        "neck": darknet_order(neck, neck.layers()),
        "heads": darknet_order(heads, ("last",)),
    }
    return {f"{part}.{name}": shape for part, order in orders.items() for name, shape in order.items()}
