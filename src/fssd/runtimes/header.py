"""What an exported file says of itself: one JSON document among its metadata, under the key `fssd`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fssd.boxes import VARIANCES
from fssd.errors import CheckpointError
from fssd.heads.multibox.priors import Level
from fssd.model.network import Network

KEY = "fssd"
FORMAT = 1


@dataclass(frozen=True)
class Thresholds:
    """The settings of `fssd.heads.multibox.decode.detect` that a graph with NMS inside is built for."""

    score: float = 0.01
    nms: float = 0.45
    top_k: int = 400
    keep: int = 200


@dataclass(frozen=True)
class Header:
    """The document, read.

    image_size: side of the input, pixels. levels: the table that the priors follow from.
    thresholds: None where the file ends in raw predictions. facts: the whole document.
    """

    classes: tuple[str, ...]
    image_size: int
    levels: tuple[Level, ...]
    thresholds: Thresholds | None
    facts: dict[str, Any]


def write_header(
    network: Network,
    classes: tuple[str, ...],
    facts: Mapping[str, Any],
    thresholds: Thresholds | None,
    precision: str,
) -> str:
    """The document of a network as JSON text. facts: JSON values to keep beside what is needed."""
    document = {
        **facts,
        "format": FORMAT,
        "kind": "export",
        "model": network.spec.name,
        "classes": list(classes),
        "image_size": network.image_size,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "levels": [level._asdict() for level in network.levels],
        "variances": list(VARIANCES),
        "nms": None if thresholds is None else asdict(thresholds),
        "precision": precision,
    }
    return json.dumps(document, sort_keys=True, ensure_ascii=False)


def read_header(text: str | None, file: Path) -> Header:
    """The header of `file`. Raises CheckpointError if it is missing, damaged or of another version."""
    if text is None:
        raise CheckpointError(
            f"{file}: was not written by `fssd export`, which notes the classes in the file"
        )
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise CheckpointError(
                f"{file}: has format {document['format']!r}; this version of fssd reads {FORMAT}"
            )
        levels = tuple(Level(**{**row, "ratios": tuple(row["ratios"])}) for row in document["levels"])
        thresholds = None if document["nms"] is None else Thresholds(**document["nms"])
        return Header(tuple(document["classes"]), int(document["image_size"]), levels, thresholds, document)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: its {KEY!r} metadata is damaged ({error!r}); export again") from error
