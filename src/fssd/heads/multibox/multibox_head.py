"""The multibox head: paper 3.1, equation 3. Per level one predictor of offsets and one of class scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fssd import boxes as box_maths
from fssd.data.batch import Targets
from fssd.errors import ConfigError
from fssd.heads.head import Candidates, Decode, Found, Head, HeadBlueprint, Origins, Thresholds, as_tensors
from fssd.heads.head import Raw as Predictions
from fssd.heads.multibox.chosen_levels import chosen_levels
from fssd.heads.multibox.detect import class_scores, detect
from fssd.heads.multibox.fit import best_overlaps, fit_priors, fit_to_coverage
from fssd.heads.multibox.focal import START
from fssd.heads.multibox.loss import count_positives, multibox_loss
from fssd.heads.multibox.objective import OBJECTIVE_OPTIONS, SSD_OBJECTIVE, Objective, one_of, read_objective
from fssd.heads.multibox.prediction import OPTIONS, Predictor, prediction_modules, predictors
from fssd.heads.multibox.priors import (
    Level,
    make_priors,
    read_level,
    spread_level,
)
from fssd.heads.multibox.raw import Raw
from fssd.heads.multibox.targets import MATCHINGS, MultiboxTargets
from fssd.layers.blocks import NormedPredictor
from fssd.layers.folding import fold_sequences, set_fixed
from fssd.necks.neck import Cells

if TYPE_CHECKING:
    import onnx


SIGMOID = "sigmoid"  # in exported files
ATSS_MATCHING = (
    "Training matches every object to the priors near its centre that overlap it more than others do, by a"
    " threshold of its own; an object without such priors is learned from one prior only."
)
ATSS_UNMATCHED = "the others are learned from priors that overlap them less"


class MultiboxHead(Head):
    """channels: of what each level is predicted from. levels: the table of priors. image_size: (width,
    height), pixels.

    num_classes: without background. makers: make the predictors of each level. prediction: for each level
    what goes before them, or nothing. shared: one pair of predictors for all levels. objective: the losses;
    they say whether background has a score. assignment: how objects find their priors, "ssd" or "atss".
    priors: (P, 4) float32 xyxy in pixels of the input, not persistent: they follow from the model's name and
    options, so no file can disagree.
    """

    known_options = (
        OPTIONS
        | OBJECTIVE_OPTIONS
        | {"priors", "prior_rule", "ratios", "truncate", "clip", "shared_head", "matching"}
    )
    outputs = Raw._fields
    matching = (
        "Training matches every object to the prior that overlaps it most and to all priors that overlap it"
        " by 0.50; an object without such priors is learned from one prior only. Apart from size and aspect"
        " ratio its position matters, because priors lie on a grid."
    )
    unmatched = "the others are learned from one prior each"
    priors: Tensor
    class_weights: Tensor | None
    joined: nn.ModuleList | None

    def __init__(
        self,
        channels: Sequence[int],
        levels: tuple[Level, ...],
        image_size: tuple[int, int],
        num_classes: int,
        makers: Sequence[Predictor],
        prediction: nn.ModuleList,
        *,
        shared: bool = False,
        objective: Objective = SSD_OBJECTIVE,
        assignment: str = MATCHINGS[0],
    ) -> None:
        super().__init__()
        self.levels = levels
        self.objective, self.assignment = objective, assignment
        self.before_classes = 0 if objective.sigmoid else 1
        self.columns = columns = self.before_classes + num_classes  # of the logits
        self.shared = shared
        if assignment == "atss":
            self.matching, self.unmatched = ATSS_MATCHING, ATSS_UNMATCHED
        self.prediction = prediction
        rows = list(zip(makers, channels, levels, strict=True))[: 1 if shared else None]
        self.loc = nn.ModuleList(make(width, level.anchors * 4) for make, width, level in rows)
        self.conf = nn.ModuleList(make(width, level.anchors * columns) for make, width, level in rows)
        self.joined = None
        self.targets = MultiboxTargets.of_levels(levels, image_size, assignment)
        self.register_buffer("class_weights", None, persistent=False)
        self.register_buffer("priors", make_priors(levels), persistent=False)

    @classmethod
    def build(cls, blueprint: HeadBlueprint) -> MultiboxHead:
        """See `Head`. Options:

        priors: "voc" or "coco" table of prior sizes, or fitted priors as `fitted` returns them. prior_rule:
        "ssd", or "dssd" for the sizes and ratios of DSSD, eight priors a cell. ratios: aspect ratios per
        level instead of the standard ones. truncate: whole-pixel prior sizes as in Caffe (True). clip:
        "none", "sides" (no prior longer than the image) or "all" (nor centred beyond it), see `make_levels`.
        shared_head: one classifier for all levels, as R-SSD's paper compares it (False); each cell then has
        six priors by default, and ratios [[2]] for every level makes it four.

        loc_loss: of boxes, "smooth_l1" on offsets as in SSD, "giou" or "ciou" on decoded boxes. loc_weight:
        its multiple (1). conf_loss: of classes, "softmax" with mined negatives as in SSD, or one sigmoid a
        class and all priors: "focal", or "quality_focal", which learns the IoU of the box. mining: of the
        softmax; "image" takes three negatives for each positive of an image, "batch" those of all images
        together, as in BlitzNet. matching: which priors learn an object, "ssd", or "atss", see `match_atss`.

        prediction: DSSD's module before the predictors: "a" for none, "b" a residual block, "c" one with a
        1x1 on the skip, "d" two of those. prediction_kernel: of its middle convolution, 3 or 1.
        prediction_widths: its inner channels level by level, 256 on further levels; c and d put out four
        times as many. kernels: of the predictors level by level, 3 on further levels. inter: channels of a
        3x3 with batch norm and ReLU before each predictor. head_norm: 3x3 predictors without bias, each
        followed by batch norm, as DSOD's are (False).
        """
        options, levels = blueprint.options, chosen_levels(blueprint)
        prediction, channels = prediction_modules(blueprint)
        makers = predictors(blueprint)
        shared = _shared(blueprint, channels, levels)
        return cls(
            channels,
            levels,
            blueprint.image_size,
            blueprint.num_classes,
            makers,
            prediction,
            shared=shared,
            objective=read_objective(options),
            assignment=one_of("matching", options, MATCHINGS),
        )

    @torch.no_grad()
    def initialise(self) -> None:
        """See `Head`. Sigmoids start low: else the many priors without an object would swamp the loss."""
        super().initialise()
        if not self.objective.sigmoid:
            return
        layers = dict(self.named_modules())
        for bias in (layers[name].bias for name in self.class_layers()):
            if isinstance(bias, Tensor):
                bias.fill_(START)

    def forward(self, levels: list[Tensor]) -> Raw:
        """Level maps to offsets (B, P, 4) and logits (B, P, columns), in the order of the priors."""
        if self.prediction:
            levels = [module(x) for module, x in zip(self.prediction, levels, strict=True)]
        if self.joined is not None:
            return self._forward_joined(self.joined, levels)
        offsets = [_flatten(head(x), 4) for head, x in self._pairs(self.loc, levels)]
        logits = [_flatten(head(x), self.columns) for head, x in self._pairs(self.conf, levels)]
        return Raw(torch.cat(offsets, dim=1), torch.cat(logits, dim=1))

    def loss(self, raw: Predictions, targets: Targets, counts: Tensor | None = None) -> dict[str, Tensor]:
        """See `multibox_loss`."""
        return multibox_loss(
            Raw(*raw),
            targets,
            self.priors,
            self.objective,
            counts=counts,
            class_weights=self.class_weights,
        )

    def weigh_classes(self, weights: Tensor) -> None:
        """See `Head`."""
        self.class_weights = weights

    def counts(self, targets: Targets) -> Tensor:
        """See `Head`: (2,), positives and images."""
        if self.objective.mining == "batch":
            raise ConfigError(
                "mining batch chooses negatives among the images of a batch; leave out --global-batch"
            )
        return count_positives(targets)

    def detect(self, raw: Predictions, thresholds: Thresholds) -> list[Found]:
        """See `fssd.heads.multibox.detect.detect`."""
        return detect(Raw(*raw), self.priors, sigmoid=self.objective.sigmoid, **vars(thresholds))

    def candidates(self, raw: Predictions) -> list[Candidates]:
        """The box and the class scores of every prior."""
        scores = class_scores(Raw(*raw), self.objective.sigmoid)
        boxes = box_maths.decode(Raw(*raw).offsets.float(), self.priors)
        return [Candidates(*row) for row in zip(boxes, scores, strict=True)]

    def origins(self) -> Origins:
        """See `Head`: level by level, row by row, and the priors of each cell."""
        grids = [
            np.indices((level.rows, level.columns, level.anchors)).reshape(3, -1) for level in self.levels
        ]
        row, column, shape = np.concatenate(grids, axis=1).astype(np.int64)
        number = np.repeat(np.arange(len(grids)), [grid.shape[1] for grid in grids])
        return Origins(self.priors.cpu().numpy(), number, row, column, shape)

    def describe(self) -> dict[str, Any]:
        """The levels, from which the priors follow, the coder's variances, and where the scores come from."""
        return {
            "levels": [level._asdict() for level in self.levels],
            "variances": list(box_maths.VARIANCES),
            **({"scores": SIGMOID} if self.objective.sigmoid else {}),
        }

    @classmethod
    def decoder(cls, document: Mapping[str, Any]) -> Decode:
        """See `Head`."""
        priors = make_priors(tuple(read_level(row) for row in document["levels"]))
        sigmoid = _has_sigmoid(document)

        def decode(outputs: Sequence[npt.NDArray[Any]], thresholds: Thresholds) -> list[Found]:
            return detect(Raw(*as_tensors(outputs)), priors, sigmoid=sigmoid, **vars(thresholds))

        return decode

    @classmethod
    def output_shapes(cls, document: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """See `Head`: those of the priors and classes."""
        levels = [read_level(row) for row in document["levels"]]
        priors = sum(level.rows * level.columns * level.anchors for level in levels)
        columns = len(document["classes"]) + (0 if _has_sigmoid(document) else 1)
        return {"offsets": (priors, 4), "logits": (priors, columns)}

    def class_layers(self) -> list[str]:
        """See `Head`: the last convolution of each class predictor, and the norm that may follow it."""
        names = []
        for i, predictor in enumerate(self.conf):
            layers = dict(predictor.named_modules(prefix=f"conf.{i}"))
            last = [name for name, m in layers.items() if isinstance(m, nn.Conv2d)][-1]
            order = list(layers)
            names += [
                name for name in order[order.index(last) :] if not isinstance(layers[name], nn.Identity)
            ]
        return names

    def fitted(self, boxes: npt.NDArray[np.float32], coverage: float | None = None) -> dict[str, Any]:
        """See `Head`: shapes and centres that cover most boxes, as many a cell as now or as are needed."""
        if coverage is None:
            levels = fit_priors(boxes, self.levels)
        else:
            levels = fit_to_coverage(boxes, self.levels, coverage)
        middle = (0.5, 0.5)
        return {
            "priors": {
                "shapes": [[list(shape) for shape in level.shapes] for level in levels],
                "centres": [
                    [list(centre) for centre in level.centres or (middle,) * level.anchors]
                    for level in levels
                ],
            }
        }

    def enlarged(self, priors: Mapping[str, Any], growth: float) -> dict[str, Any] | None:
        """See `Head`: the same centres in a cell, larger shapes; levels without have the coarsest's."""
        shapes, centres = priors.get("shapes"), priors.get("centres")
        if not isinstance(shapes, list) or not isinstance(centres, list) or len(shapes) > len(self.levels):
            return None
        larger = [[[round(side * growth, 2) for side in shape] for shape in level] for level in shapes]
        more = len(self.levels) - len(shapes)
        return {**priors, "shapes": larger + larger[-1:] * more, "centres": centres + centres[-1:] * more}

    def best_overlaps(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See `Head`."""
        return best_overlaps(boxes, self.priors.cpu())

    def prior_shapes(self) -> npt.NDArray[np.float64]:
        """See `Head`: level by level."""
        return np.array([shape for level in self.levels for shape in level.shapes], np.float64)

    def summary(self) -> str:
        """See `Head`."""
        anchors = " ".join(str(level.anchors) for level in self.levels)
        return f"priors: {len(self.priors):,}, per cell of each level {anchors}"

    def nms_graph(self, thresholds: Thresholds, opset: int, ir_version: int) -> onnx.ModelProto:
        """See `Head`."""
        from fssd.heads.multibox.nms_graph import nms_graph

        return nms_graph(
            self.priors.cpu(), self.columns, self.objective.sigmoid, thresholds, opset, ir_version
        )

    def change_size(
        self, image_size: tuple[int, int], cells: Sequence[Cells], steps: Sequence[tuple[float, float]]
    ) -> None:
        """See `Head`. Priors keep their sizes in pixels."""
        rows = zip(self.levels, cells, steps, strict=True)
        self.levels = tuple(spread_level(level, size, step, image_size) for level, size, step in rows)
        self.targets = MultiboxTargets.of_levels(self.levels, image_size, self.assignment)
        self.priors = make_priors(self.levels).to(self.priors.device)

    def fold(self) -> None:
        """See `Head`. The two convolutions of a level become one.

        Separable predictors stay two: joined, their 1x1 would multiply as many zeros as numbers.
        """
        if self.joined is not None:
            return
        fold_sequences(self)
        pairs = [(_alone(loc), _alone(conf)) for loc, conf in zip(self.loc, self.conf, strict=True)]
        if all(isinstance(part, nn.Conv2d) for pair in pairs for part in pair):
            self.joined = nn.ModuleList(
                _join(cast("nn.Conv2d", loc), cast("nn.Conv2d", conf)) for loc, conf in pairs
            )
            self.loc, self.conf = nn.ModuleList(), nn.ModuleList()

    def _pairs(self, heads: nn.ModuleList, levels: list[Tensor]) -> Iterator[tuple[nn.Module, Tensor]]:
        return zip(list(heads) * len(levels) if self.shared else heads, levels, strict=True)

    def _forward_joined(self, joined: nn.ModuleList, levels: list[Tensor]) -> Raw:
        offsets, logits = [], []
        for (head, x), level in zip(self._pairs(joined, levels), self.levels, strict=True):
            widths = (level.anchors * 4, level.anchors * self.columns)
            loc, conf = (
                head(x).permute(0, 2, 3, 1).split(widths, dim=-1)
            )  # (B, H, W, A * 4), (B, H, W, A * C)
            offsets.append(loc.reshape(x.shape[0], -1, 4))
            logits.append(conf.reshape(x.shape[0], -1, self.columns))
        return Raw(torch.cat(offsets, dim=1), torch.cat(logits, dim=1))


def _shared(blueprint: HeadBlueprint, channels: Sequence[int], levels: tuple[Level, ...]) -> bool:
    shared = blueprint.options.get("shared_head", False)
    if not isinstance(shared, bool):
        raise ConfigError(f"shared_head is {shared!r}; it is true or false")
    if shared and (blueprint.light or blueprint.options.get("head_norm")):
        raise ConfigError(
            "shared_head needs heads without batch norm, which fits one level; use VGG16's models, without"
            " head_norm"
        )
    if shared and len(levels) == 1:
        raise ConfigError("shared_head needs several levels to share; this network has one, so leave it out")
    if shared and (set(blueprint.options.get("kernels", ())) - {3} or "inter" in blueprint.options):
        raise ConfigError("shared_head is one 3x3 for all levels; give kernels [] and leave inter out")
    if shared and len(widths := set(channels)) > 1:
        raise ConfigError(f"shared_head needs levels of one width, but they have {sorted(widths)} channels")
    if shared and len(anchors := {level.anchors for level in levels}) > 1:
        raise ConfigError(f"shared_head needs one number of priors a cell, but levels have {sorted(anchors)}")
    return bool(shared)


def _has_sigmoid(document: Mapping[str, Any]) -> bool:
    """Whether the scores of an exported file are sigmoids; files without the word have a softmax."""
    scores = document.get("scores", "softmax")
    if scores not in ("softmax", SIGMOID):
        raise ValueError(f"scores are {scores!r}")
    return bool(scores == SIGMOID)


def _flatten(x: Tensor, last: int) -> Tensor:
    # (B, A * last, H, W) -> (B, H * W * A, last): cell by cell, then anchor, as the priors are listed.
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, last)


def _alone(predictor: nn.Module) -> nn.Module:
    """The convolution of a predictor whose norm has been folded into it; any other as it is."""
    return predictor[0] if isinstance(predictor, NormedPredictor) else predictor


def _join(loc: nn.Conv2d, conf: nn.Conv2d) -> nn.Conv2d:
    """One convolution with the outputs of both, offsets first."""
    joined = nn.Conv2d(
        loc.in_channels,
        loc.out_channels + conf.out_channels,
        cast("tuple[int, int]", loc.kernel_size),
        padding=cast("tuple[int, int]", loc.padding),
    )
    assert loc.bias is not None and conf.bias is not None  # predictors have one
    set_fixed(joined, torch.cat((loc.weight, conf.weight)), torch.cat((loc.bias, conf.bias)))
    return joined
