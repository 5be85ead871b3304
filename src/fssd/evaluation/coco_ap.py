"""The twelve numbers of the COCO detection challenge, by `hotcoco` (equal to pycocotools and far faster)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError, lacking
from fssd.evaluation.voc_ap import Floats
from fssd.inference.detections import Detections

# Neither pycocotools nor hotcoco reads an `ignore` key for boxes. An area outside every range has the same
# effect: the object is not counted, and a detection that matches it is ignored.
MOST_DIGITS = 15  # of an image id: 10^15 is less than 2^53, up to which float64 holds every whole number
IGNORED_AREA = -1.0

# The order of the area ranges and of the limits on detections per image in the result.
ALL, AREAS = 0, {"s": 1, "m": 2, "l": 3}
AT_100, LIMITS = 2, {"1": 0, "10": 1, "100": 2}


@dataclass(frozen=True)
class CocoAveragePrecision:
    """COCO's numbers; nan where COCO prints -1, because there are no such objects.

    numbers: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, in COCO's order.
    ap: (C,) AP of each class over IoU 0.50:0.05:0.95. ap50: (C,) at IoU 0.5.
    ap_by_size: (C, 3) AP of small (area up to 32^2), medium (up to 96^2) and large objects.
    """

    numbers: dict[str, float]
    ap: Floats
    ap50: Floats
    ap_by_size: Floats


def coco_average_precision(dataset: DataSet, detections: Sequence[Detections]) -> CocoAveragePrecision:
    """COCO's numbers of one Detections per record, in the order of `dataset.records`.

    Difficult objects and crowds are ignored, and so are the detections on them: one for a difficult object,
    any number for a crowd. Classes are compared by name. Boxes are not rounded. COCO's sizes are areas of the
    object's mask, which `Record.areas` holds; where it is None the area of the box is used.
    """
    hotcoco = require_hotcoco()
    if len(detections) != len(dataset):
        raise ValueError(f"{len(detections)} detections for {len(dataset)} images")
    image_ids = _image_ids(dataset.records)
    pairs = zip(image_ids, dataset.records, strict=True)
    images = [{"id": int(i), "width": r.width or 0, "height": r.height or 0} for i, r in pairs]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(dataset.classes)]
    truth = hotcoco.COCO.from_arrays(images, categories, **_truth_columns(dataset, image_ids))
    found = truth.load_res(_detection_rows(dataset.classes, detections, image_ids))
    evaluation = hotcoco.COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    return _summary(evaluation.eval["precision"], evaluation.eval["recall"])


def labels_by_name(detections: Detections, classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """(D,) the index in `classes` of each detection's class name; -1 for a name that is not among them."""
    index = {name: i for i, name in enumerate(classes)}
    table = np.array([index.get(name, -1) for name in detections.classes], np.int64)
    return table[detections.labels] if len(detections) else np.zeros(0, np.int64)


def xywh(boxes: npt.NDArray[Any]) -> Floats:
    """(N, 4) xyxy to (N, 4) left, top, width, height in float64."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def require_hotcoco() -> Any:
    try:
        import hotcoco
    except ImportError as error:
        raise ConfigError(
            f'COCO metrics need hotcoco{lacking("hotcoco", error)}; pip install "fssd[eval]"'
        ) from error
    return hotcoco


def _image_ids(records: Sequence[Record]) -> npt.NDArray[np.int64]:
    """The data set's own ids where they are numbers that float64 (of the rows) can hold, else 1, 2, ...

    Equal scores in different images are ranked by image id, so COCO's own ids give COCO's own numbers.
    """
    names = [r.image_id for r in records]
    if len(set(names)) == len(names) and all(map(_is_number, names)):
        return np.array([int(n) for n in names], np.int64)
    return np.arange(1, len(names) + 1)


def _is_number(name: str) -> bool:
    plain = name.isascii() and name.isdigit() and len(name) <= MOST_DIGITS
    return plain and str(int(name)) == name


def _truth_columns(dataset: DataSet, image_ids: npt.NDArray[np.int64]) -> dict[str, Any]:
    records = dataset.records
    return {
        "image_ids": np.repeat(image_ids, [len(r.labels) for r in records]),
        "category_ids": np.concatenate([np.zeros(0, np.int64), *(r.labels + 1 for r in records)]),
        "boxes": np.concatenate([np.zeros((0, 4)), *(xywh(r.boxes) for r in records)]),
        "area": np.concatenate([np.zeros(0), *(_areas(r) for r in records)]),
        "iscrowd": np.concatenate([np.zeros(0, np.int64), *(r.crowd.astype(np.int64) for r in records)]),
    }


def _areas(record: Record) -> Floats:
    area = xywh(record.boxes)[:, 2:].prod(1) if record.areas is None else record.areas
    return np.where(record.difficult, IGNORED_AREA, area)


def _detection_rows(
    classes: Sequence[str], detections: Sequence[Detections], image_ids: npt.NDArray[np.int64]
) -> Floats:
    """(D, 7) image id, left, top, width, height, score, category id: the array form of a result file."""
    ids = np.repeat(image_ids, [len(d) for d in detections])
    boxes = np.concatenate([np.zeros((0, 4)), *(xywh(d.boxes) for d in detections)])
    scores = np.concatenate([np.zeros(0), *(d.scores.astype(np.float64) for d in detections)])
    category = np.concatenate([np.zeros(0, np.int64), *(labels_by_name(d, classes) + 1 for d in detections)])
    return np.column_stack([ids, boxes, scores, category])[category > 0]


def _summary(precision: Floats, recall: Floats) -> CocoAveragePrecision:
    """precision: (IoU 10, recall 101, C, area 4, limit 3). recall: (10, C, 4, 3). -1 is "no such objects"."""

    def ap(iou: int | slice = slice(None), area: int = ALL) -> float:
        return _mean(precision[iou, ..., area, AT_100])

    def ar(limit: int = AT_100, area: int = ALL) -> float:
        return _mean(recall[..., area, limit])

    numbers = {"AP": ap(), "AP50": ap(0), "AP75": ap(5)}
    numbers |= {f"AP{size}": ap(area=area) for size, area in AREAS.items()}
    numbers |= {f"AR{most}": ar(limit) for most, limit in LIMITS.items()}
    numbers |= {f"AR{size}": ar(area=area) for size, area in AREAS.items()}
    per_class = precision[..., AT_100]  # (10, 101, C, 4)
    classes = range(per_class.shape[2])
    by_size = [[_mean(per_class[:, :, c, area]) for area in AREAS.values()] for c in classes]
    return CocoAveragePrecision(
        numbers,
        ap=np.array([_mean(per_class[:, :, c, ALL]) for c in classes], np.float64),
        ap50=np.array([_mean(per_class[0, :, c, ALL]) for c in classes], np.float64),
        ap_by_size=np.array(by_size, np.float64).reshape(-1, 3),
    )


def _mean(values: Floats) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")
