"""A state dict under foreign names: renaming it, and reading from its heads what they predict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fssd.errors import CheckpointError
from fssd.importers.imported import ASPECTS, Imported

SIZES = {6: 300, 7: 512}  # pixels of the image, by the number of levels


class Wanted(NamedTuple):
    """What the user asked for.

    name: of the model. colours: "rgb" or "bgr", None for what the format mostly has. priors: table of prior
    sizes, None to choose by the number of classes. align_corners: None for what the format mostly has.
    """

    name: str
    colours: str | None
    priors: str | None
    align_corners: bool | None


class Predicted(NamedTuple):
    """What heads say by their shapes. size: pixels of the image. classes: with background."""

    size: int
    ratios: tuple[tuple[float, ...], ...]
    classes: int


@dataclass(frozen=True)
class Foreign:
    """The tensors of a file, and the format that its names were recognised as."""

    file: Path
    origin: str
    tensors: Mapping[str, Tensor]

    def has(self, prefix: str) -> bool:
        """Whether a name begins so."""
        return any(key.startswith(prefix) for key in self.tensors)

    def take(self, names: Mapping[str, str]) -> dict[str, Tensor]:
        """Tensors by our names, float32. names: theirs by ours. Raises CheckpointError for a missing one."""
        taken = {}
        for own, theirs in names.items():
            tensor = self.get(theirs)
            if not tensor.isfinite().all():
                raise CheckpointError(
                    f"{self.file}: {theirs!r} has numbers that are not finite; its training diverged"
                )
            taken[own] = tensor.float() if tensor.is_floating_point() else tensor
        return taken

    def get(self, key: str) -> Tensor:
        """One tensor. Raises CheckpointError if there is none of this name."""
        if key not in self.tensors:
            raise CheckpointError(f"{self.file}: has the names of {self.origin}, but lacks {key!r}")
        return self.tensors[key]

    def outputs(self, key: str) -> int:
        """Channels that a convolution gives. Raises CheckpointError if the tensor is no convolution's."""
        weight = self.get(key)
        if weight.ndim != 4 or weight.shape[0] == 0:
            raise CheckpointError(
                f"{self.file}: {key!r} has shape {tuple(weight.shape)}, which no convolution"
                f" of {self.origin} has"
            )
        return int(weight.shape[0])

    def predicted(self, loc: str, conf: str) -> Predicted:
        """Priors a cell, classes and image size. loc, conf: what the heads' names have before the level.

        Raises CheckpointError for numbers of levels, priors or outputs that no network here has.
        """
        levels = 0
        while f"{loc}.{levels}.weight" in self.tensors:
            levels += 1
        if levels not in SIZES:
            raise CheckpointError(
                f"{self.file}: {self.origin} is known with 6 levels (300 px) or 7 (512 px),"
                f" but this file predicts from {levels}"
            )
        anchors = [self._anchors(f"{loc}.{level}.weight") for level in range(levels)]
        classes = self.outputs(f"{conf}.0.weight") // anchors[0]
        for level, number in enumerate(anchors):
            key = f"{conf}.{level}.weight"
            if self.outputs(key) != number * classes or classes < 2:
                raise CheckpointError(
                    f"{self.file}: {key!r} gives {self.outputs(key)} scores a cell, which {number} priors do"
                    f" not share evenly or as level 0 does ({classes} classes and background)"
                )
        return Predicted(SIZES[levels], tuple(ASPECTS[number] for number in anchors), classes)

    def _anchors(self, key: str) -> int:
        outputs = self.outputs(key)
        if outputs % 4 or outputs // 4 not in ASPECTS:
            raise CheckpointError(
                f"{self.file}: {key!r} gives {outputs} offsets a cell; 16 or 24 are expected,"
                " four offsets of 4 or 6 priors"
            )
        return outputs // 4

    def imported(
        self, options: dict[str, Any], classes: int, tensors: dict[str, Tensor], taken: Iterable[str]
    ) -> Imported:
        """The result. classes: without background. taken: their names that were used."""
        used = set(taken)
        return Imported(options, classes, tensors, tuple(key for key in self.tensors if key not in used))


def convolutions(places: Mapping[str, str]) -> dict[str, str]:
    """Names of weights and biases, theirs by ours, from those of convolutions."""
    return {
        f"{own}.{kind}": f"{theirs}.{kind}" for own, theirs in places.items() for kind in ("weight", "bias")
    }


def check_name(foreign: Foreign, wanted: Wanted, held: str) -> None:
    """Raise CheckpointError unless the model asked for is the one that the file holds."""
    if wanted.name != held:
        raise CheckpointError(
            f"{foreign.file}: holds a {held} ({foreign.origin}), not a {wanted.name}; import it as {held}"
        )


def read_rgb(tensors: dict[str, Tensor], colours: str, layer: str = "backbone.conv1_1.weight") -> None:
    """Turn the first convolution, if it reads BGR, to read RGB; in place."""
    if colours == "bgr":
        tensors[layer] = tensors[layer].flip(1)
