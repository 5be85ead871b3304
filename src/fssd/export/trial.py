"""The images that eight bits are calibrated and measured on, and how many it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fssd.counted import counted
from fssd.data.sample import DataSet
from fssd.errors import ExportError
from fssd.evaluation.known_classes import objects_per_class

# Measured with `animals` (docs/export.md): with ranges of 16 images or more it loses up to 1.0 points of mAP,
# of 4 up to 1.9, of 1 up to 7.0; 7.0 look like 1 or less on 78 % of single images, on 5 % of samples of 32.
CALIBRATED = 16
MEASURED_IMAGES, MEASURED_OBJECTS = 32, 50
LEAST_AP = 0.05  # a loss of the one point that is allowed would be a fifth of it


@dataclass(frozen=True)
class Trial:
    """What quantisation needs.

    images: calibration images, (N, 3, H, W) uint8 RGB. measured: labelled images to compare mAP on.
    objects: labelled objects in the calibration images, for people. few: accept any number of images.
    """

    images: Tensor
    measured: DataSet
    objects: int | None = None
    few: bool = False

    def summary(self, classes: Sequence[str]) -> str:
        """How many images and objects give the ranges, and how many are measured.

        classes: those that the detector knows; objects of others are not measured.
        """
        ranges, measured = _count(len(self.images), self.objects), self._measured(classes)
        return f"eight bits: ranges from {ranges}, mAP from {_count(*measured)}"

    def check(self, classes: Sequence[str]) -> None:
        """Raise ExportError if there are too few images or objects for a good file, or for a verdict."""
        if not self.few and len(self.images) < CALIBRATED:
            raise ExportError(
                f"{_count(len(self.images), self.objects)} would give the ranges, and with fewer than"
                f" {CALIBRATED} images eight bits can lose many points of mAP; calibrate with more, or accept"
                " it with --allow-few"
            )
        images, objects = self._measured(classes)
        if not self.few and (images < MEASURED_IMAGES or objects < MEASURED_OBJECTS):
            raise ExportError(
                f"mAP of {_count(images, objects)} would not show what eight bits lose; measure on at least"
                f" {MEASURED_IMAGES} images with {MEASURED_OBJECTS} objects, or accept it with --allow-few"
            )

    def check_accuracy(self, ap: float) -> None:
        """Raise ExportError if the model itself finds too little for a verdict. ap: its mAP, 0..1."""
        if not self.few and ap < LEAST_AP:
            raise ExportError(
                f"the model itself has a mAP of {100 * ap:.1f} on these images, which would not show what"
                " eight bits lose; measure a trained model on images of its kind, or accept it with"
                " --allow-few"
            )

    def _measured(self, classes: Sequence[str]) -> tuple[int, int]:
        counts = zip(self.measured.classes, objects_per_class(self.measured).tolist(), strict=True)
        return len(self.measured), sum(count for name, count in counts if name in classes)


def _count(images: int, objects: int | None) -> str:
    text = counted(images, "image")
    return text if objects is None else f"{text} with {counted(objects, 'object')}"
