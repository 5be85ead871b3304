"""The metadata of an exported file: one JSON document under the key `fssd`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fssd.data.geometry import Geometry, make_geometry
from fssd.errors import CheckpointError, FssdError
from fssd.heads.head import DEFAULTS, Decode, Thresholds
from fssd.model.designs import find_design, head_class, read_size
from fssd.model.network import Network
from fssd.weights import content

Shape = tuple[int | None, ...]  # None for a size that is free, such as the batch

KEY = "fssd"
FORMAT = 1
NMS_OUTPUTS: dict[str, Shape] = {"boxes": (None, 4), "scores": (None,), "labels": (None,), "count": ()}


@dataclass(frozen=True)
class Header:
    """What `read_header` read.

    geometry: how an image becomes the input. decode: from raw predictions to detections; None for a file
    that does this itself, with `thresholds`. facts: the whole document. digest: of the content of the file,
    "" in files of version 0.1. defaults: the thresholds of its head.
    """

    classes: tuple[str, ...]
    geometry: Geometry
    decode: Decode | None
    thresholds: Thresholds | None
    facts: dict[str, Any]
    digest: str = ""
    defaults: Thresholds = DEFAULTS


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
        "head": find_design(network.spec.name, network.spec.options).head,
        **network.heads.describe(),
        "nms": None if thresholds is None else asdict(thresholds),
        "precision": precision,
        content.KEY: content.BLANK,
    }
    return json.dumps(document, sort_keys=True, ensure_ascii=False)


def size_value(size: tuple[int, int]) -> int | list[int]:
    """(width, height) as JSON: one number for a square."""
    return size[0] if size[0] == size[1] else list(size)


def read_header(
    text: str | None, file: Path, inputs: Mapping[str, Shape], outputs: Mapping[str, Shape]
) -> Header:
    """The header of `file`, whose graph has these inputs and outputs.

    Raises CheckpointError if it is missing, damaged, of another version, or does not fit the graph.
    """
    if text is None:
        raise CheckpointError(f"{file}: was not written by `fssd export`, which stores the class names")
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise CheckpointError(f"{file}: has format {document['format']!r}; this fssd reads {FORMAT}")
        digest = str(document.pop(content.KEY, ""))
        # Files of version 0.1 have neither head nor geometry.
        geometry = make_geometry(document.get("geometry", "warp"), read_size(document["image_size"]))
        classes = tuple(document["classes"])
        if not isinstance(document["classes"], list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("classes are no list of names")
        _check_ends(file, "inputs", {"images": (geometry.size[1], geometry.size[0], 3)}, inputs)
        if document["nms"] is not None:
            _check_ends(file, "outputs", NMS_OUTPUTS, outputs)
            return Header(classes, geometry, None, Thresholds(**document["nms"]), document, digest)
        head = head_class(document.get("head", "multibox"))
        _check_ends(file, "outputs", head.output_shapes(document) or dict.fromkeys(outputs), outputs)
        return Header(classes, geometry, head.decoder(document), None, document, digest, head.thresholds)
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, FssdError) as error:
        raise CheckpointError(f"{file}: its {KEY!r} metadata is damaged ({error!r}); export again") from error


def _check_ends(
    file: Path, kind: str, expected: Mapping[str, Shape | None], found: Mapping[str, Shape]
) -> None:
    """Raise CheckpointError unless the inputs or outputs of a graph are those that its metadata describe.

    expected: shapes without the batch, by name and in order; None for any shape.
    """
    fits = list(expected) == list(found) and all(
        shape is None or _same_sizes((None, *shape), found[name]) for name, shape in expected.items()
    )
    if not fits:
        raise CheckpointError(
            f"{file}: its metadata are for {kind} {_in_words(expected)}, but its graph has"
            f" {_in_words({name: shape[1:] for name, shape in found.items()})}; export again"
        )


def _same_sizes(one: Shape, other: Shape) -> bool:
    return len(one) == len(other) and all(a == b or None in (a, b) for a, b in zip(one, other, strict=True))


def _in_words(ends: Mapping[str, Shape | None]) -> str:
    words = (f"{name} {'x'.join(str(size or '?') for size in shape or ())}" for name, shape in ends.items())
    return ", ".join(map(str.strip, words))
