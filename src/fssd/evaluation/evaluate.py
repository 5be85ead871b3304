"""From detections to a report: mAP, AP per class and per object size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from fssd.config.bounds import Portion, check_number
from fssd.config.train_config import Metric
from fssd.counted import counted
from fssd.data.sample import DataSet
from fssd.errors import ConfigError, DataError, nearest
from fssd.evaluation.coco_ap import coco_average_precision, labels_by_name, require_hotcoco
from fssd.evaluation.known_classes import ignored_objects, objects_per_class, unknown_classes
from fssd.evaluation.voc_ap import AveragePrecision, Bools, voc_average_precision
from fssd.inference.detections import Detections

# COCO's limits, px^2 of the original image; the lower one is included.
SIZES: dict[str, tuple[float, float]] = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, math.inf),
}


@dataclass(frozen=True)
class Report:
    """The result of an evaluation; AP is in 0..1, nan where there is no object to find.

    metric: "voc07", "voc12" or "coco". map: mean AP of the classes that have objects.
    classes: AP of each class by name. sizes: mean AP of small, medium and large objects.
    images, objects: how many there were, without difficult objects and crowds.
    iou: the least overlap of a found object; None for coco, which averages 0.50:0.05:0.95.
    numbers: COCO's twelve numbers by name; empty for the VOC metrics.
    unknown_classes: those with objects that the detector does not know, so that their AP is 0.
    known_map: mean AP of the other classes that have objects; map if the detector knows all.
    """

    metric: str
    map: float
    classes: dict[str, float]
    sizes: dict[str, float]
    images: int
    objects: int
    iou: float | None
    numbers: dict[str, float] = field(default_factory=dict)
    unknown_classes: tuple[str, ...] = ()
    known_map: float = math.nan

    @property
    def known(self) -> str:
        """What `known_map` is the mean of."""
        count = sum(not math.isnan(ap) for ap in self.classes.values()) - len(self.unknown_classes)
        return f"{counted(count, 'class')} that the model knows"

    def to_json(self, settings: Mapping[str, Any] | None = None) -> str:
        """The report as JSON text, one key per field; nan becomes null.

        settings: those of the detector, under a key of their own.
        """
        values = asdict(self) | ({} if settings is None else {"settings": dict(settings)})
        return json.dumps(_without_nan(values), indent=2, ensure_ascii=False, allow_nan=False)

    def table(self) -> Table:
        """A table for the terminal: classes, then sizes or COCO's numbers, then the mean."""
        iou = "0.50:0.95" if self.iou is None else f"{self.iou:.2f}"
        measured_on = f"{counted(self.images, 'image')}, {counted(self.objects, 'object')}"
        table = Table(title=f"{self.metric} at IoU {iou}: {measured_on}")
        table.add_column("class")
        table.add_column("AP %", justify="right")
        for name, ap in self.classes.items():
            table.add_row(Text(name), _percent(ap))
        table.add_section()
        for name, ap in (self.numbers or self.sizes).items():
            table.add_row(name, _percent(ap))
        table.add_section()
        table.add_row("mean of the classes", _percent(self.map), style="bold")
        if self.unknown_classes:
            table.add_row(f"mean of the {self.known}", _percent(self.known_map), style="bold")
        return table


def evaluate_detections(
    dataset: DataSet, detections: Iterable[Detections], metric: Metric = "voc12", iou: float = 0.5
) -> Report:
    """Measure one Detections per record, in the order of `dataset.records`.

    metric: "voc07" eleven-point AP, "voc12" area under the precision envelope, "coco" AP at IoU 0.50:0.95.
    iou: the overlap threshold of the VOC metrics, in 0..1. Difficult objects and crowds are ignored: neither
    a hit nor a false positive. Classes are compared by name; detections of classes that the data set does not
    have are left out. Raises ConfigError for what cannot be measured so.
    """
    detections = list(detections)
    check_measurable(dataset, detections[0].classes if detections else (), metric, iou)
    if len(detections) != len(dataset):
        raise ValueError(f"{len(detections)} detections for {len(dataset)} images; one per image is needed")
    for number, one in enumerate(detections):
        if np.isnan(one.scores).any():
            raise ConfigError(f"detections[{number}] has scores that are no numbers; detect again")
    numbers: dict[str, float] = {}
    if metric == "coco":
        result = coco_average_precision(dataset, detections)
        numbers, mean, ap = result.numbers, result.numbers["AP"], result.ap
        sizes = {size: numbers[f"AP{size[0]}"] for size in SIZES}
    else:
        found = [relabel(d, dataset.classes) for d in detections]
        ap, mean, _ = voc_precision(dataset, found, metric, iou)
        sizes = {size: voc_precision(dataset, found, metric, iou, area).mean for size, area in SIZES.items()}
    classes = dict(zip(dataset.classes, ap.tolist(), strict=True))
    measured_iou = None if metric == "coco" else iou
    objects = int(objects_per_class(dataset).sum())
    unknown = unknown_classes(dataset, detections[0].classes)
    known = [value for name, value in classes.items() if name not in unknown and not math.isnan(value)]
    known_map = mean if not unknown else float(np.mean(known)) if known else math.nan
    return Report(
        *(metric, mean, classes, sizes, len(dataset), objects, measured_iou, numbers),
        unknown_classes=unknown,
        known_map=known_map,
    )


def average_precisions(
    dataset: DataSet, detections: Sequence[Detections], metric: Metric, iou: float = 0.5
) -> npt.NDArray[np.float64]:
    """(C, 3) AP of each class for small, medium and large objects; otherwise as `evaluate_detections`."""
    check_measurable(dataset, detections[0].classes if detections else (), metric, iou)
    if metric == "coco":
        return coco_average_precision(dataset, detections).ap_by_size
    found = [relabel(d, dataset.classes) for d in detections]
    return np.stack([voc_precision(dataset, found, metric, iou, area).ap for area in SIZES.values()], axis=1)


def check_measurable(dataset: DataSet, classes: Sequence[str], metric: str, iou: float = 0.5) -> None:
    """Raise what `evaluate_detections` would, before the detector with these `classes` spends its time."""
    if metric not in get_args(Metric):
        raise ConfigError(f"there is no metric {metric!r}{nearest(metric, get_args(Metric))}")
    check_number("iou", iou, Portion)
    if metric == "coco" and iou != 0.5:
        raise ConfigError(f"the coco metric averages IoU 0.50:0.95 and takes no iou ({iou} given); use voc12")
    if metric == "coco":
        require_hotcoco()
    if not objects_per_class(dataset).any():
        raise DataError(f"none of the {len(dataset)} images has an object to evaluate on; add labels")
    if classes and set(classes).isdisjoint(dataset.classes):
        raise ConfigError(
            f"the detector and the data set share no class name: {', '.join(sorted(classes)[:3])}, ... "
            f"against {', '.join(dataset.classes[:3])}, ...; rename the classes of one of them"
        )


def relabel(detections: Detections, classes: tuple[str, ...]) -> Detections:
    """The detections whose class name is among `classes`, with labels that are indices in `classes`."""
    labels = labels_by_name(detections, classes)
    keep = labels >= 0
    return Detections(detections.boxes[keep], detections.scores[keep], labels[keep], classes)


def voc_precision(
    dataset: DataSet,
    found: Sequence[Detections],
    metric: str,
    iou: float,
    limits: tuple[float, float] = (0.0, math.inf),
) -> AveragePrecision:
    """AP of the objects with an area in `limits`, px^2; objects and detections of other sizes are ignored."""
    records = dataset.records
    return voc_average_precision(
        truth_boxes=[r.boxes for r in records],
        truth_labels=[r.labels for r in records],
        truth_difficult=[ignored_objects(r) | ~_within(r.boxes, limits) for r in records],
        boxes=[d.boxes for d in found],
        scores=[d.scores for d in found],
        labels=[d.labels for d in found],
        classes=len(dataset.classes),
        iou=iou,
        eleven_points=metric == "voc07",
        ignored=[~_within(d.boxes, limits) for d in found],
    )


def _within(boxes: npt.NDArray[np.float32], limits: tuple[float, float]) -> Bools:
    """(N, 4) xyxy -> (N,) whether the area lies in [low, high)."""
    sides = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0)
    area = sides[:, 0] * sides[:, 1]
    return np.asarray((area >= limits[0]) & (area < limits[1]))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(ap: float) -> str:
    return "-" if math.isnan(ap) else f"{100 * ap:.1f}"
