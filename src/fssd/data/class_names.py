"""Class names of VOC and COCO, in the order of the outputs of published detectors."""

from __future__ import annotations

from pathlib import Path

from fssd.data.formats.voc import VOC_CLASSES
from fssd.errors import ConfigError

VOC = VOC_CLASSES

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
    "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # ids of categories that were never published
COCO_IDS = tuple(number for number in range(1, 91) if number not in _COCO_GAPS)
"""COCO's own category id of each name in `COCO`."""


def names_for(count: int, wanted: str | None = None) -> tuple[str, ...]:
    """The names of `count` classes.

    wanted: "voc", "coco", or a text file with one name a line; by default those of VOC (20) or COCO (80)
    where the count is theirs, else class_1, class_2, ...

    Raises ConfigError if there are not `count` different names.
    """
    if wanted is None:
        known = {len(VOC): VOC, len(COCO): COCO}
        return known.get(count, tuple(f"class_{number}" for number in range(1, count + 1)))
    names = read_names(wanted)
    if len(names) != count:
        raise ConfigError(f"{wanted}: has {len(names)} class names, but the model has {count} classes")
    return names


def read_names(wanted: str) -> tuple[str, ...]:
    """The names that "voc", "coco", or a text file with one name a line stands for. Raises ConfigError."""
    packaged = {"voc": VOC, "coco": COCO}.get(wanted)
    if packaged is not None:
        return packaged
    file = Path(wanted)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file}: cannot be read as class names ({getattr(error, 'strerror', None) or error});"
            " give voc, coco or a text file with one name a line"
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    double = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if double is not None:
        raise ConfigError(f"{file}: has the class name {double!r} twice; give each class once")
    return names
