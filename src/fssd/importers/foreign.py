"""What all importers share: the user's choices, the result, and state dicts under foreign names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fssd.errors import CheckpointError, ConfigError, nearest
from fssd.heads.multibox.priors import DSSD_RATIOS, TABLES, Ratios
from fssd.model.designs import DESIGNS
from fssd.weights.checkpoint import check_finite

BACKBONE = "vgg16"
RESNETS = ("resnet50-caffe", "resnet101-caffe", "resnet101-dilated")  # backbones of Caffe's layout
BACKBONES = (BACKBONE, *RESNETS)
DETECTORS = tuple(
    name for name, design in DESIGNS.items() if design.backbone == BACKBONE and design.neck in ("ssd", "fssd")
)
RESNET_DETECTORS = tuple(name for name, design in DESIGNS.items() if design.backbone == "resnet101-dilated")
NAMES = (*DETECTORS, *RESNET_DETECTORS, *BACKBONES)
SIZES = {6: 300, 7: 512}  # pixels of the image, by the number of levels
ASPECTS = {4: (2.0,), 6: (2.0, 3.0)}
"""Aspect ratios by the number of priors per cell: what every known SSD and FSSD has."""
DSSD_ASPECTS = {8: DSSD_RATIOS}


class Imported(NamedTuple):
    """Weights under this package's names, and what has to be built to hold them.

    options: of `build_model`, JSON values. num_classes: without background; 0 for a bare backbone. tensors:
    by the names of the network's state dict (VGG16Reduced's for a bare backbone), float32 except the number
    of batches that a normalisation has seen. unused: layers or keys that were not taken, in the file's order.
    """

    options: dict[str, Any]
    num_classes: int
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]


class Wanted(NamedTuple):
    """The user's choices: the model's name, and three that are None for the default of the file's format.

    colours: "rgb" or "bgr". priors: table of prior sizes. align_corners: how a PyTorch FSSD resized maps.
    """

    name: str
    colours: str | None
    priors: str | None
    align_corners: bool | None = None

    def check(self, names: Sequence[str] = NAMES) -> None:
        """Raise ConfigError for a name that is not among `names`, an unknown colour order or table."""
        if self.name not in names:
            raise ConfigError(f"there is no network {self.name!r} to import{nearest(self.name, names)}")
        if self.colours not in (None, "rgb", "bgr"):
            raise ConfigError(f"there is no colour order {self.colours!r}; known: bgr, rgb")
        if self.priors not in (None, *TABLES):
            raise ConfigError(f"there is no prior table {self.priors!r}{nearest(str(self.priors), TABLES)}")

    def prior_table(self, classes: int) -> str:
        """Table of prior sizes for so many classes without background: COCO's 80 have their own."""
        return self.priors or ("coco" if classes == 80 else "voc")


def ratio_option(ratios: Ratios, usual: Ratios) -> dict[str, Any]:
    """The option of `build_model` for aspect ratios that are not the usual ones."""
    return {} if ratios == usual else {"ratios": [list(row) for row in ratios]}


def read_heads(
    heads: Iterable[tuple[str, str]],
    channels: Callable[[str], int],
    error: Callable[[str], CheckpointError],
    aspects: Mapping[int, tuple[float, ...]] = ASPECTS,
) -> tuple[Ratios, int]:
    """Aspect ratios of each level, and the number of classes without background, from the heads' shapes.

    heads: for each level the names of its box and its score convolution. channels: output channels by name.
    aspects: ratios by the number of priors per cell. Raises what `error` makes of a reason.
    """
    ratios = []
    classes = 0  # with background; 0 until the first level tells
    for boxes, scores in heads:
        offsets, outputs = channels(boxes), channels(scores)
        anchors, rest = divmod(offsets, 4)
        if rest or anchors not in aspects:
            channels_of, counts = (" or ".join(str(k * n) for n in aspects) for k in (4, 1))
            expected = f"{channels_of}: four offsets of {counts} priors per cell"
            raise error(f"{boxes!r} gives {offsets} channels, expected {expected}")
        each, rest = divmod(outputs, anchors)
        classes = classes or each
        if rest or each != classes or each < 2:
            expected = str(classes * anchors) if classes >= 2 else f"{anchors} for each class and background"
            raise error(
                f"{scores!r} gives {outputs} channels for {anchors} priors per cell, expected {expected}"
            )
        ratios.append(aspects[anchors])
    return tuple(ratios), classes - 1


class Predicted(NamedTuple):
    """What the shapes of the heads tell.

    size: pixels of the image. ratios: of each level. classes: without background. layers: their name of each
    head's convolution, by ours.
    """

    size: int
    ratios: Ratios
    classes: int
    layers: dict[str, str]


@dataclass
class ForeignFile:
    """A file of another package."""

    file: Path

    def error(self, reason: str) -> CheckpointError:
        """An error about this file."""
        return CheckpointError(f"{self.file}: {reason}")


@dataclass
class Foreign(ForeignFile):
    """The tensors of a file, the format that its names belong to, and the tensors that were taken so far."""

    origin: str
    tensors: Mapping[str, Tensor]
    wanted: Wanted
    taken: set[str] = field(default_factory=set)

    def has(self, prefix: str) -> bool:
        """Whether a name begins so."""
        return any(key.startswith(prefix) for key in self.tensors)

    def get(self, key: str) -> Tensor:
        """One tensor. Raises CheckpointError if there is none of this name."""
        if key not in self.tensors:
            raise self.error(f"has the names of {self.origin}, but lacks {key!r}")
        self.taken.add(key)
        return self.tensors[key]

    def take(self, names: Mapping[str, str]) -> dict[str, Tensor]:
        """Tensors by our names, float32. names: theirs by ours. Raises CheckpointError."""
        taken = {}
        for own, theirs in names.items():
            tensor = self.get(theirs)
            check_finite(self.file, theirs, tensor)
            taken[own] = tensor.float() if tensor.is_floating_point() else tensor
        return taken

    def take_detector(
        self, layers: Mapping[str, str], others: Mapping[str, str], colours: str
    ) -> dict[str, Tensor]:
        """The tensors of a detector by our names, float32, conv1_1 turned to read RGB.

        layers: their names of convolutions, by ours. others: likewise of single tensors. colours: what the
        format reads by default.
        """
        kinds = ("weight", "bias")
        names = {f"{own}.{kind}": f"{theirs}.{kind}" for own, theirs in layers.items() for kind in kinds}
        tensors = self.take({**names, **others})
        if (self.wanted.colours or colours) == "bgr":
            first = "backbone.conv1_1.weight"
            tensors[first] = tensors[first].flip(1)
        return tensors

    def must_hold(self, held: str) -> None:
        """Raise CheckpointError unless the model asked for is `held`, the one that the file holds."""
        name = self.wanted.name
        if name != held:
            raise self.error(f"holds a {held} ({self.origin}), not a {name}; import it as {held}")

    def predicted(self, loc: str, conf: str) -> Predicted:
        """Priors per cell, classes and image size. loc, conf: the heads' names without the level.

        Raises CheckpointError for numbers of levels, priors or outputs that no network here has.
        """
        levels = 0
        while f"{loc}.{levels}.weight" in self.tensors:
            levels += 1
        if levels not in SIZES:
            known = f"{self.origin} is known with 6 levels (300 px) or 7 (512 px)"
            raise self.error(f"{known}, but this file predicts from {levels}")
        heads = [(f"{loc}.{level}", f"{conf}.{level}") for level in range(levels)]
        weights = [(f"{boxes}.weight", f"{scores}.weight") for boxes, scores in heads]
        ratios, classes = read_heads(weights, self._outputs, self.error)
        layers: dict[str, str] = {}
        for level, (boxes, scores) in enumerate(heads):
            layers |= {f"heads.loc.{level}": boxes, f"heads.conf.{level}": scores}
        return Predicted(SIZES[levels], ratios, classes, layers)

    def imported(self, options: dict[str, Any], classes: int, tensors: dict[str, Tensor]) -> Imported:
        return Imported(
            options, classes, tensors, tuple(key for key in self.tensors if key not in self.taken)
        )

    def _outputs(self, key: str) -> int:
        shape = self.get(key).shape
        if len(shape) != 4 or shape[0] == 0:
            raise self.error(f"{key!r} has shape {tuple(shape)}, which no convolution of {self.origin} has")
        return int(shape[0])
