"""What a model's name stands for: a neck, an input size, a backbone, a table of priors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from torch import nn

from fssd.backbones import BACKBONES
from fssd.backbones.backbone import Backbone
from fssd.errors import ConfigError, nearest
from fssd.heads import HEADS
from fssd.heads.head import Head
from fssd.necks import NECKS
from fssd.necks.neck import Neck

LEAST_SIDE, LARGEST_SIDE = 128, 1024  # pixels


class Design(NamedTuple):
    """neck, backbone, head: names of the tables, or "package.module:Class". size: (width, height), pixels.

    light: whether neck and head are separable. priors: table of prior sizes, for heads that have one.
    options: those of the parts that make this network; a part that another replaces takes its own with it.
    """

    neck: str
    size: tuple[int, int]
    backbone: str
    head: str
    light: bool
    priors: str
    options: Mapping[str, Any] = {}


DILATED = "resnet101-dilated"
# SSD as DSSD's authors build it on ResNet-101: residual extras, prediction modules (c), larger predictors on
# the two finest levels, eight priors a cell.
RESIDUAL = {"extras": "residual", "prediction": "c", "kernels": (5, 5), "prior_rule": "dssd"}

OF_BACKBONE = ("mean", "std")  # options of a design that belong to its own backbone
BLITZNET_MEAN = (123.15, 115.9, 103.06)  # RGB

DESIGNS = {
    "ssd300-vgg16": Design("ssd", (300, 300), "vgg16", "multibox", False, "voc"),
    "ssd512-vgg16": Design("ssd", (512, 512), "vgg16", "multibox", False, "voc"),
    "fssd300-vgg16": Design("fssd", (300, 300), "vgg16", "multibox", False, "voc"),
    "fssd512-vgg16": Design("fssd", (512, 512), "vgg16", "multibox", False, "voc"),
    "fpn300-vgg16": Design("fpn", (300, 300), "vgg16", "multibox", False, "voc"),
    "rssd300-vgg16": Design("rssd", (300, 300), "vgg16", "multibox", False, "voc"),
    "rssd512-vgg16": Design("rssd", (512, 512), "vgg16", "multibox", False, "voc"),
    "single300-vgg16": Design("single", (300, 300), "vgg16", "multibox", False, "voc"),
    "dsod300": Design("dsod", (300, 300), "ds", "multibox", False, "voc"),
    "dsod300-small": Design("dsod", (300, 300), "ds-small", "multibox", False, "voc"),
    "dssd300-vgg16": Design("dssd", (300, 300), "vgg16", "multibox", False, "voc"),
    "dssd512-vgg16": Design("dssd", (512, 512), "vgg16", "multibox", False, "voc"),
    "ssd321-resnet101": Design("ssd", (321, 321), DILATED, "multibox", False, "voc", RESIDUAL),
    "ssd513-resnet101": Design("ssd", (513, 513), DILATED, "multibox", False, "voc", RESIDUAL),
    "dssd321-resnet101": Design("dssd", (321, 321), DILATED, "multibox", False, "voc", RESIDUAL),
    "dssd513-resnet101": Design("dssd", (513, 513), DILATED, "multibox", False, "voc", RESIDUAL),
    "blitznet300-resnet50": Design(
        "blitznet",
        (300, 300),
        "resnet50-caffe",
        "multibox",
        False,
        "voc",
        {"x4": True, "mean": BLITZNET_MEAN},
    ),
    "blitznet512-resnet50": Design(
        "blitznet", (512, 512), "resnet50-caffe", "multibox", False, "voc", {"mean": BLITZNET_MEAN}
    ),
    "resskip300-vgg16": Design("resskip", (300, 300), "vgg16", "multibox", False, "voc"),
    # The light models are for users' own data with many small objects: they use the table from 21 px.
    "ssd300-lite": Design("ssd", (300, 300), "lite", "multibox", True, "coco"),
    "fssd300-lite": Design("fssd", (300, 300), "lite", "multibox", True, "coco"),
    "fpn300-lite": Design("fpn", (300, 300), "lite", "multibox", True, "coco"),
    "rssd300-lite": Design("rssd", (300, 300), "lite", "multibox", True, "coco"),
    "resskip300-lite": Design("resskip", (300, 300), "lite", "multibox", True, "coco"),
    "single300-lite": Design("single", (300, 300), "lite", "multibox", True, "coco"),
    "dssd300-lite": Design("dssd", (300, 300), "lite", "multibox", True, "coco"),
}
"""Networks that are published, packaged or compared with those. Other names follow from the tables."""

SYSTEMS = {
    "yolov2": Design("yolov2", (416, 416), "darknet19", "yolov2", False, "voc", {"geometry": "letterbox"}),
}
"""Networks that come in any size: yolov2-416, yolov2-608, ..."""

SYSTEM_NAME = re.compile(r"(.+)-(\d+)")  # system, side
NAME = re.compile(r"([a-z]+)(\d+)-(.+)")  # neck, side, backbone


def find_design(name: str, options: Mapping[str, Any]) -> Design:
    """The design of a name, with the options that replace a part of it: size, neck, backbone, head, light.

    Raises ConfigError for an unknown name or a size that no network here takes.
    """
    design = DESIGNS.get(name) or _composed(name)
    parts = {key: options[key] for key in ("neck", "head") if key in options}
    if "backbone" in options:
        others = {key: value for key, value in design.options.items() if key not in OF_BACKBONE}
        design = design._replace(options=others)
        if not isinstance(options["backbone"], nn.Module):
            parts["backbone"] = options["backbone"]
    for key, value in parts.items():
        if key == "backbone" and isinstance(value, type):
            raise ConfigError(f"backbone is the class {value.__name__}; make one of it, {value.__name__}()")
        if not isinstance(value, str):
            raise ConfigError(f'{key} is {value!r}; it is a name, or "package.module:Class"')
    light = options.get("light", design.light)
    if not isinstance(light, bool):
        raise ConfigError(f"light is {light!r}; it is true or false")
    size = read_size(options["size"]) if "size" in options else design.size
    return design._replace(**parts, size=size, light=light)


def same_but_size(one: Design, other: Design) -> bool:
    """Whether two designs differ at most by the size of the input and the table of priors for it."""
    return one == other._replace(size=one.size, priors=one.priors)


def _composed(name: str) -> Design:
    found = SYSTEM_NAME.fullmatch(name)
    if found is not None and found[1] in SYSTEMS:
        return SYSTEMS[found[1]]._replace(size=read_size(int(found[2])))
    found = NAME.fullmatch(name)
    if found is None or found[1] not in NECKS or found[3] not in BACKBONES:
        systems = (f"{system}-{design.size[0]}" for system, design in SYSTEMS.items())
        raise ConfigError(f"there is no model {name!r}{nearest(name, (*DESIGNS, *systems))}")
    light = backbone_class(found[3]).light
    return Design(found[1], read_size(int(found[2])), found[3], "multibox", light, "coco" if light else "voc")


def read_size(value: Any) -> tuple[int, int]:
    """(width, height) from a side, or a list of width and height. Raises ConfigError."""
    sides = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(sides) not in (1, 2) or not all(isinstance(s, int) and not isinstance(s, bool) for s in sides):
        raise ConfigError(f"size is {value!r}; it is one side in pixels, or width and height")
    width, height = sides[0], sides[-1]
    for side in (width, height):
        if not LEAST_SIDE <= side <= LARGEST_SIDE:
            raise ConfigError(
                f"size has a side of {side} px; it lies between {LEAST_SIDE} and {LARGEST_SIDE}"
            )
    return width, height


def backbone_class(name: str) -> type[Backbone]:
    """The backbone of a name. Raises ConfigError."""
    return _find_class(name, BACKBONES, "backbone", Backbone)


def neck_class(name: str) -> type[Neck]:
    """The neck of a name. Raises ConfigError."""
    return _find_class(name, NECKS, "neck", Neck)


def head_class(name: str) -> type[Head]:
    """The head of a name. Raises ConfigError."""
    return _find_class(name, HEADS, "head", Head)


def _find_class(name: str, table: Mapping[str, str], kind: str, base: type[Any]) -> type[Any]:
    """The class that a name of `table`, or "package.module:Class", stands for.

    A file may name a module, so only a subclass of `base` is taken, and none is made before that is known.
    """
    path = table.get(name, name)
    module, _, attribute = path.partition(":")
    if not module or not attribute or module.startswith("."):
        raise ConfigError(
            f'there is no {kind} {name!r}{nearest(name, table)}; your own is "package.module:Class"'
        )
    try:
        found = getattr(import_module(module), attribute)
    except ImportError as error:
        raise ConfigError(
            f"the {kind} {name!r} cannot be imported ({error}); run where Python finds it, or set PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"the {kind} {name!r}: module {module} has no {attribute!r}") from error
    if found is base or not (
        isinstance(found, type) and issubclass(found, base) and issubclass(found, nn.Module)
    ):
        raise ConfigError(f"the {kind} {name!r} is not a subclass of {base.__module__}.{base.__name__}")
    return found
