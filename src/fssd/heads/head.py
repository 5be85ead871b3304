"""The contract of a head: everything that depends on what a network predicts.

Loader, loop, log, runners, export, bench and reports ask a head and know nothing of priors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fssd.config.bounds import Count, Share, check_bounds
from fssd.data.batch import MakeTargets, Targets
from fssd.errors import ConfigError, nearest
from fssd.layers.first_weights import xavier
from fssd.layers.folding import fold_sequences
from fssd.necks.neck import Cells

if TYPE_CHECKING:
    import onnx

Floats = npt.NDArray[np.float32]
Raw = tuple[Tensor, ...]  # what a head predicts, in the order of `Head.outputs`, batch first
Decode = Callable[[Sequence[npt.NDArray[Any]], "Thresholds"], "list[Found]"]


# What a call of a detector takes besides thresholds.
OF_CALLS = (
    *("batch_size", "keep_image", "allow_url", "scales", "flip"),
    *("classes", "class_scores", "agnostic", "soft"),
    *("tiles", "overlap", "whole_image", "most_tiles"),
)
# What other detectors call the same thresholds.
OTHER_NAMES = {"conf": "score", "confidence": "score", "threshold": "score", "conf_thres": "score"}
OTHER_NAMES |= {"iou": "nms", "iou_thres": "nms", "max_det": "keep", "max": "keep"}


@dataclass(frozen=True)
class Thresholds:
    """Which predictions become detections. Raises ConfigError for values out of range.

    score: detections score more than this. nms: IoU above which the lower score of one class is dropped.
    top_k: candidates of each class before NMS. keep: detections of an image over all classes.
    """

    score: Share = 0.01
    nms: Share = 0.45
    top_k: Count = 400
    keep: Count = 200

    def __post_init__(self) -> None:
        check_bounds(self)

    def replaced(self, settings: Mapping[str, Any]) -> Thresholds:
        """These thresholds with some replaced. Raises TypeError for an unknown name, ConfigError for a value
        that is out of range."""
        for name in settings:
            if name not in vars(self):
                meant = OTHER_NAMES.get(name)
                hint = f"; did you mean {meant!r}?" if meant else nearest(name, (*vars(self), *OF_CALLS))
                raise TypeError(f"there is no setting {name!r}{hint}")
        return replace(self, **settings)


DEFAULTS = Thresholds()


class Found(NamedTuple):
    """Detections of one image, best first.

    boxes: (N, 4) xyxy pixels of the network input, not clipped. scores: (N,). labels: (N,) int64, 0-based.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Candidates(NamedTuple):
    """All that could be detected in an image: boxes (P, 4) xyxy pixels of the input, scores (P, C)."""

    boxes: Tensor
    scores: Tensor


class Origins(NamedTuple):
    """Where each of the P candidates of an input is predicted, in the order of `Head.candidates`.

    priors: (P, 4) float32 xyxy pixels of the input: the box that a prediction is relative to. level, row,
    column: (P,) int64, of the map and its cell. shape: (P,) int64, which of the priors of the cell.
    """

    priors: Floats
    level: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    shape: npt.NDArray[np.int64]


class HeadBlueprint(NamedTuple):
    """What a head is built from.

    model: its name, for messages. image_size: (width, height) of the input, pixels. channels, cells, steps,
    prior_scales, starts: of each level, see `Neck`. num_classes: without background. light: separable
    convolutions. options: the user's, with `priors` from the design.
    """

    model: str
    image_size: tuple[int, int]
    channels: Sequence[int]
    cells: Sequence[Cells]
    steps: Sequence[tuple[float, float]]
    prior_scales: Sequence[int]
    num_classes: int
    light: bool
    options: Mapping[str, Any]
    starts: Sequence[tuple[float, float]] | None = None


class Head(nn.Module):
    """One file, or folder, holds all that a head is.

    known_options: names that `build` understands. outputs: a name for each tensor that `forward` returns.
    targets: makes what one image is trained on from boxes (N, 4) float32 xyxy pixels of the input and labels
    (N,) int64, 0-based. It runs in the loader's processes, so it holds nothing that lies on a GPU.
    thresholds: of the authors' evaluation, where none are given. before_classes: outputs of a class layer
    before those of the classes; multibox has one, the background. any_size: whether `loss` takes predictions
    for an input of another size, as multi-scale training makes them, with targets of the network's own size.
    matching, unmatched: how objects find their priors, and what becomes of those that no prior overlaps by
    0.5, for people.
    """

    known_options: ClassVar[frozenset[str]] = frozenset()
    thresholds: ClassVar[Thresholds] = DEFAULTS
    before_classes: int = 1
    any_size: ClassVar[bool] = False
    matching: str = "Training matches every object to the priors that overlap it."
    unmatched: str = "the others are learned with more difficulty"
    outputs: tuple[str, ...]
    targets: MakeTargets

    @classmethod
    def build(cls, blueprint: HeadBlueprint) -> Head:
        """The head with fresh weights. Raises ConfigError for options that do not fit."""
        raise NotImplementedError

    def forward(self, levels: list[Tensor]) -> Raw:
        """Level maps (B, C, rows, columns), finest first, to predictions."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Draw fresh weights, by Caffe's Xavier rule unless the network has one of its own."""
        xavier(self)

    def loss(self, raw: Raw, targets: Targets, counts: Tensor | None = None) -> dict[str, Tensor]:
        """Named scalars of a batch: "loss" is minimised, all of them are logged.

        targets: those of the images, stacked. counts: see `counts`, of all batches of the update together;
        the loss is then their part of the whole batch's loss. Nothing in it may wait for the device: no
        `.item()`, no indexing by a mask.
        """
        raise NotImplementedError

    def counts(self, targets: Targets) -> Tensor:  # noqa: ARG002 (for heads that can)
        """What the loss of a batch is divided by, as numbers that can be added over batches.

        Raises ConfigError for a head whose loss is not such a sum over images.
        """
        raise ConfigError("the loss of this head cannot be shared out; leave out --global-batch")

    def weigh_classes(self, weights: Tensor) -> None:  # noqa: ARG002 (for heads that can)
        """Weigh the loss of each object's class by (C,) `weights`, which are no part of the state.

        Raises ConfigError for a head that cannot.
        """
        raise ConfigError("this head weighs no classes; leave out --class-weights")

    def count_images(self, images: int) -> None:
        """Called after each update of the weights. images: those it was made from, of all processes."""

    def detect(self, raw: Raw, thresholds: Thresholds) -> list[Found]:
        """Detections of each image of a batch."""
        raise NotImplementedError

    def candidates(self, raw: Raw) -> list[Candidates]:
        """All candidates of each image of a batch, to compare an exported file with."""
        raise NotImplementedError

    def origins(self) -> Origins:
        """Where the candidates are predicted. Raises ConfigError for a head that does not tell."""
        raise ConfigError("this head does not tell where its predictions come from; give it an `origins`")

    def describe(self) -> dict[str, Any]:
        """JSON values for `decoder`, stored in exported files."""
        return {}

    @classmethod
    def decoder(cls, document: Mapping[str, Any]) -> Decode:
        """`detect` without the network, from what `describe` said; for files that end in raw predictions."""
        raise NotImplementedError

    @classmethod
    def output_shapes(cls, document: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:  # noqa: ARG003
        """Shapes without the batch of `outputs`, by name, as `document` has them; {} if it does not tell."""
        return {}

    def class_layers(self) -> list[str]:
        """Names, from here, of the layers whose outputs are (something, `before_classes` and the classes).

        All their tensors but scalars have these outputs as their first axis.
        """
        return []

    def fitted(
        self,
        boxes: Floats,  # noqa: ARG002 (for heads that have priors)
        coverage: float | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Options that fit this head to boxes (N, 4) xyxy pixels of the input, for `--priors fit`.

        coverage: share of the boxes that must have a prior at IoU 0.5, with as many priors as that needs;
        None keeps their number. Raises ConfigError if that is out of reach.
        """
        raise ConfigError("this head has no priors to fit; leave out --priors fit")

    def enlarged(self, priors: Mapping[str, Any], growth: float) -> dict[str, Any] | None:  # noqa: ARG002
        """The option `priors` that `fitted` returned, for objects that are `growth` times as large.

        None for a head that cannot take them, such as one with fewer levels.
        """
        return None

    def best_overlaps(self, boxes: Floats) -> npt.NDArray[np.float64] | None:  # noqa: ARG002
        """(N,) the largest IoU of each box (N, 4) with any prior; None for a head without priors."""
        return None

    def prior_shapes(self) -> npt.NDArray[np.float64] | None:
        """(S, 2) width and height in pixels of each kind of prior; None for a head without priors."""
        return None

    def summary(self) -> str:
        """What it predicts from, in one line for people; "" for nothing to tell."""
        return ""

    def change_size(
        self,
        image_size: tuple[int, int],  # noqa: ARG002 (for heads that can)
        cells: Sequence[Cells],  # noqa: ARG002
        steps: Sequence[tuple[float, float]],  # noqa: ARG002
    ) -> None:
        """Predict from levels of another size by the same layers, in place.

        steps: (x, y) pixels between the centres of what neighbouring cells of each level see.
        Raises ConfigError for a head that cannot.
        """
        raise ConfigError("this head has one input size; leave out --scales")

    def fold(self) -> None:
        """Put fixed norms into convolutions, in place."""
        fold_sequences(self)

    def nms_graph(self, thresholds: Thresholds, opset: int, ir_version: int) -> onnx.ModelProto:  # noqa: ARG002
        """From `outputs` to boxes, scores, labels and count, as an ONNX model.

        boxes: (B, K, 4). scores, labels: (B, K). count: (B,), how many of K are detections. Raises
        ConfigError for a head that cannot.
        """
        raise ConfigError("this head cannot put NMS into an exported file; leave out --nms")


def as_tensors(arrays: Sequence[npt.NDArray[Any]]) -> list[Tensor]:
    """The outputs of an exported file as tensors that share their memory."""
    return [torch.from_numpy(array) for array in arrays]
