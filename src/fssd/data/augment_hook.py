"""Augmentation of the user's own: a function, or a Compose of albumentations as it is.

    def rotate(image, boxes, labels, rng):
        ...
        return image, boxes, labels

image: (H, W, 3) uint8 RGB, as decoded, or a tile of it. boxes: (N, 4) float32 xyxy in its pixels. labels:
(N,) int64, 0-based. rng: a `numpy.random.Generator` of this view. A function that draws from it alone gives
the same view for any number of workers and processes, and after a resume. The result may have another size
and other objects.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from fssd.data.sample import Boxes, Image, Labels, Sample
from fssd.errors import ConfigError

Augmented = tuple[Image, Boxes, Labels]
Augmenter = Callable[[Image, Boxes, Labels, np.random.Generator], Augmented]
ALBUMENTATIONS = "albumentations"
PARAMS = 'A.BboxParams("pascal_voc", label_fields=["labels"])'


@dataclass(frozen=True)
class AugmentHook:
    """name: package.module:name of the function or Compose. classes: number of class names."""

    name: str
    classes: int

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample after augmentation. Raises ConfigError for a fault of it or in its result."""
        own = np.random.default_rng(int(rng.integers(2**63)))
        try:
            result = find_augmenter(self.name)(sample.image, sample.boxes, sample.labels, own)
        except ConfigError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ConfigError(f"augment_with {self.name}: failed on {sample.name} ({what})") from error
        try:
            image, boxes, labels = result
            boxes, labels = np.asarray(boxes), np.asarray(labels)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"augment_with {self.name}: gave something else than (image, boxes, labels) for {sample.name}"
            ) from error
        return self._checked(image, boxes, labels, sample.name)

    def _checked(self, image: Any, boxes: Any, labels: Any, name: str) -> Sample:
        """Boxes clipped to the image, without those of which nothing is left in it."""
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,):
            raise self._wrong("an image", image, "uint8 of shape (H, W, 3)", name)
        if not image.size:
            raise self._wrong("an image", image, "one of a pixel or more", name)
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        if boxes.dtype.kind not in "fiu" or boxes.shape[1:] != (4,) or not np.isfinite(boxes).all():
            raise self._wrong("boxes", boxes, "finite numbers of shape (N, 4)", name)
        labels = labels.astype(np.int64) if labels.size == 0 else labels
        if labels.dtype.kind not in "iu" or labels.shape != boxes.shape[:1]:
            raise self._wrong("labels", labels, f"whole numbers of shape ({len(boxes)},)", name)
        if labels.size and not 0 <= labels.min() <= labels.max() < self.classes:
            raise self._wrong("labels", labels, f"0 to {self.classes - 1}", name)
        height, width = image.shape[:2]
        boxes = boxes.clip(0, (width, height, width, height)).astype(np.float32)
        keep = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        labels = labels[keep].astype(np.int64)
        return Sample(np.ascontiguousarray(image), boxes[keep], labels, np.zeros(len(labels), bool), name)

    def _wrong(self, what: str, value: Any, needs: str, name: str) -> ConfigError:
        kind = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        return ConfigError(f"augment_with {self.name}: gave {what} of {kind} for {name}; it must be {needs}")


@lru_cache(maxsize=4)
def find_augmenter(name: str) -> Augmenter:
    """What "package.module:name" stands for, as a function. Raises ConfigError."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f'augment_with is {name!r}; it is "package.module:function"')
    try:
        found = getattr(import_module(module), attribute)
    except ImportError as error:
        own = error.name == ALBUMENTATIONS
        what = (
            f'pip install "fssd[{ALBUMENTATIONS}]"' if own else "run where Python finds it, or set PYTHONPATH"
        )
        raise ConfigError(f"augment_with {name!r} cannot be imported ({error}); {what}") from error
    except AttributeError as error:
        raise ConfigError(f"augment_with {name!r}: module {module} has no {attribute!r}") from error
    except Exception as error:  # of the user's code
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConfigError(
            f"augment_with {name!r}: module {module} fails when it is imported ({what})"
        ) from error
    if type(found).__module__.partition(".")[0] == ALBUMENTATIONS:
        return _of_albumentations(name, found)
    try:
        inspect.signature(found).bind(None, None, None, None)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"augment_with {name!r} is no function of (image, boxes, labels, rng)") from error
    function: Augmenter = found
    return function


def _of_albumentations(name: str, compose: Any) -> Augmenter:
    """A Compose as a function. Its boxes are in the format that its `bbox_params` name."""
    is_compose = "Compose" in {kind.__name__ for kind in type(compose).__mro__}
    if not is_compose or not hasattr(compose, "set_random_seed"):
        raise ConfigError(f"augment_with {name!r} is no A.Compose of albumentations 2; put it into one")
    params = getattr(compose.processors.get("bboxes"), "params", None)
    if params is None or not params.label_fields:
        raise ConfigError(f"augment_with {name!r} has no boxes with labels; give it bbox_params={PARAMS}")
    fields, kind = params.label_fields, params.format

    def augment(image: Image, boxes: Boxes, labels: Labels, rng: np.random.Generator) -> Augmented:
        compose.set_random_seed(int(rng.integers(2**31)))
        size = image.shape[1], image.shape[0]
        rows = np.arange(len(boxes))
        # Every field of labels has the rows, which say what is left.
        result = compose(image=image, bboxes=_to_format(boxes, kind, size), **dict.fromkeys(fields, rows))
        left = np.asarray(result[fields[0]], np.int64).reshape(-1)
        turned = result["image"].shape[1], result["image"].shape[0]
        moved = np.asarray([box[:4] for box in result["bboxes"]], np.float64).reshape(-1, 4)
        return result["image"], _from_format(moved, kind, turned), labels[left]

    return augment


def _to_format(boxes: Any, kind: str, size: tuple[int, int]) -> Any:
    """Boxes (N, 4) xyxy pixels of an image of (width, height) in a format of albumentations."""
    sides = np.array(size * 2, np.float64)
    boxes = boxes.astype(np.float64).clip(0, sides)
    if kind in ("albumentations", "yolo"):
        boxes = boxes / sides
    if kind in ("coco", "yolo"):
        extent = boxes[:, 2:] - boxes[:, :2]
        corner = boxes[:, :2] if kind == "coco" else (boxes[:, :2] + boxes[:, 2:]) / 2
        boxes = np.concatenate((corner, extent), axis=1)
    return boxes


def _from_format(boxes: Any, kind: str, size: tuple[int, int]) -> Any:
    """The reverse of `_to_format`."""
    if kind in ("coco", "yolo"):
        corner = boxes[:, :2] if kind == "coco" else boxes[:, :2] - boxes[:, 2:] / 2
        boxes = np.concatenate((corner, corner + boxes[:, 2:]), axis=1)
    if kind in ("albumentations", "yolo"):
        boxes = boxes * np.array(size * 2, np.float64)
    return boxes.astype(np.float32)
