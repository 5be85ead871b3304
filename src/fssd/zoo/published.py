"""Weights that others publish, by name: where they come from, how they are recognised, under what licence.

`fssd fetch NAME` downloads them into `weights_folder`; then the name is accepted wherever a file of weights
is.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fssd.errors import CheckpointError, nearest
from fssd.storage.cache_folder import cache_folder

FOLDER_VARIABLE = "FSSD_WEIGHTS"
FULL_DIGEST = 64  # hex digits of a sha256


@dataclass(frozen=True)
class Published:
    """One published file.

    sha256: in hex, the whole of it, or the leading digits where no more is published. model: the network or
    backbone that it holds. detector: whether it is a whole detector, which becomes a model file of this
    package, or a backbone to start a training from. data: what it was trained on.
    """

    url: str
    sha256: str
    model: str
    detector: bool
    data: str
    licence: str

    @property
    def file_name(self) -> str:
        """The name of the file on its server, by which it is also found when it is placed by hand."""
        return PurePosixPath(self.url).name

    @property
    def digest(self) -> str:
        """The known digits, for people."""
        more = "" if len(self.sha256) == FULL_DIGEST else "..."
        return f"sha256 {self.sha256}{more}"


TORCHVISION = "https://download.pytorch.org/models"
BSD = "BSD-3-Clause (torchvision)"


def _torchvision(file: str, model: str, *, detector: bool = False, data: str = "ImageNet-1k") -> Published:
    # torchvision puts the first eight digits of the sha256 into the name and publishes no others.
    digits = file.removesuffix(".pth").rpartition("-")[2]
    return Published(f"{TORCHVISION}/{file}", digits, model, detector, data, BSD)


PUBLISHED: dict[str, Published] = {
    "ssd300-coco": _torchvision(
        "ssd300_vgg16_coco-b556d3b4.pth", "ssd300-vgg16", detector=True, data="COCO 2017"
    ),
    "yolov2-coco": Published(
        "https://pjreddie.com/media/files/yolov2.weights",
        "d9945162ed6f54ce1a901e3ec537bdba4d572ecae7873087bd730e5a7942df3f",
        "yolov2-608",
        detector=True,
        data="COCO 2014",
        licence="public domain (darknet)",
    ),
    "vgg16-imagenet": _torchvision("vgg16-397923af.pth", "vgg16"),
    "vgg16-features-imagenet": _torchvision("vgg16_features-amdegroot-88682ab5.pth", "vgg16"),
    "resnet50-imagenet": _torchvision("resnet50-0676ba61.pth", "resnet50"),
    "resnet101-imagenet": _torchvision("resnet101-63fe2227.pth", "resnet101"),
    "densenet121-imagenet": _torchvision("densenet121-a639ec97.pth", "densenet121"),
    "densenet169-imagenet": _torchvision("densenet169-b2777c0a.pth", "densenet169"),
    "mobilenetv2-imagenet": _torchvision("mobilenet_v2-b0353104.pth", "mobilenetv2"),
}


def weights_folder() -> Path:
    """Where fetched weights lie: $FSSD_WEIGHTS, else fssd/weights in the user's cache folder."""
    if own := os.environ.get(FOLDER_VARIABLE):
        return Path(own).expanduser()
    return cache_folder() / "weights"


def fetched_file(name: str) -> Path:
    """The file that a fetched name stands for, whether or not it is there: a model, or the weights as they
    are published."""
    published = PUBLISHED[name]
    return weights_folder() / (f"{name}.safetensors" if published.detector else published.file_name)


def note_file(name: str) -> Path:
    """JSON that says that the weights of a name have been checked: url, sha256 and size of what is used."""
    return weights_folder() / f"{name}.json"


def read_note(name: str) -> dict[str, Any] | None:
    """What `note_file` holds, if the weights are there as they were checked and the table is the same."""
    try:
        note = json.loads(note_file(name).read_bytes())
        size = fetched_file(name).stat().st_size
        same = note["size"] == size and str(note["sha256"]).startswith(PUBLISHED[name].sha256)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(note) if same else None


def find_published(name: str, *, detector: bool) -> Path:
    """The file of fetched weights. detector: whether a whole detector is needed, else a backbone.

    Raises CheckpointError if they are of the other kind, or have not been fetched.
    """
    published = PUBLISHED[name]
    if detector and not published.detector:
        raise CheckpointError(
            f"{name}: holds a backbone alone, where a model is needed; train from it with --weights {name}"
        )
    if published.detector and not detector:
        raise CheckpointError(
            f"{name}: is a whole detector, where a backbone's weights are needed; add --start ssd or model"
        )
    if read_note(name) is None:
        raise CheckpointError(f"{name}: has not been fetched yet; run: fssd fetch {name}")
    return fetched_file(name)


def weights_file(path: Path) -> Path:
    """What --weights means for a backbone: an existing path, else the published weights of that name.

    Raises CheckpointError if there is no such file or name.
    """
    if path.is_file():
        return path
    name = str(path)
    if name in PUBLISHED:
        return find_published(name, detector=False)
    if path.exists() or path.suffix or len(path.parts) != 1:
        raise CheckpointError(f"{path}: there is no such weights file; check the path")
    backbones = [known for known, published in PUBLISHED.items() if not published.detector]
    raise CheckpointError(
        f"{name}: there is no such weights file, nor published weights of that name{nearest(name, backbones)}"
    )
