"""The metadata of an exported file: one JSON document under the key `fssd`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fssd.data.geometry import Geometry, make_geometry
from fssd.errors import CheckpointError, FssdError
from fssd.heads.head import Decode, Thresholds
from fssd.model.designs import head_class, read_size
from fssd.model.network import Network

KEY = "fssd"
FORMAT = 1


@dataclass(frozen=True)
class Header:
    """What `read_header` read.

    geometry: how an image becomes the input. decode: from raw predictions to detections; None for a file
    that does this itself, with `thresholds`. facts: the whole document.
    """

    classes: tuple[str, ...]
    geometry: Geometry
    decode: Decode | None
    thresholds: Thresholds | None
    facts: dict[str, Any]


def write_header(
    network: Network,
    classes: tuple[str, ...],
    facts: Mapping[str, Any],
    thresholds: Thresholds | None,
    precision: str,
) -> str:
    """The document of a network as JSON text. facts: further JSON values to store."""
    document = {
        **facts,
        "format": FORMAT,
        "kind": "export",
        "model": network.spec.name,
        "classes": list(classes),
        "image_size": size_value(network.image_size),
        "geometry": network.geometry.name,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "head": network.spec.options.get("head", "multibox"),
        **network.heads.describe(),
        "nms": None if thresholds is None else asdict(thresholds),
        "precision": precision,
    }
    return json.dumps(document, sort_keys=True, ensure_ascii=False)


def size_value(size: tuple[int, int]) -> int | list[int]:
    """(width, height) as JSON: one number for a square."""
    return size[0] if size[0] == size[1] else list(size)


def read_header(text: str | None, file: Path) -> Header:
    """The header of `file`. Raises CheckpointError if it is missing, damaged or of another version."""
    if text is None:
        raise CheckpointError(f"{file}: was not written by `fssd export`, which stores the class names")
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise CheckpointError(f"{file}: has format {document['format']!r}; this fssd reads {FORMAT}")
        # Files of version 0.1 have neither head nor geometry.
        geometry = make_geometry(document.get("geometry", "warp"), read_size(document["image_size"]))
        if document["nms"] is None:
            thresholds, decode = None, head_class(document.get("head", "multibox")).decoder(document)
        else:
            thresholds, decode = Thresholds(**document["nms"]), None
        return Header(tuple(document["classes"]), geometry, decode, thresholds, document)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, FssdError) as error:
        raise CheckpointError(f"{file}: its {KEY!r} metadata is damaged ({error!r}); export again") from error
