"""How many objects each class has, and which have too few to be learned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fssd.data.sample import DataSet, Labels, Record

Counts = npt.NDArray[np.int64]

RARE = 10  # images: with no more a class is rare (LVIS, Gupta et al. 2019)
NAMED = 12  # classes that a message names


class ClassCounts(NamedTuple):
    """By class. objects: (C,). images: (C,) that have one."""

    objects: Counts
    images: Counts


def trained_labels(record: Record, difficult: bool = True, crowds: bool = False) -> Labels:
    """The labels of the objects that training learns; difficult, crowds: those with that flag too."""
    keep = (~record.difficult | difficult) & (~record.crowd | crowds)
    return record.labels[keep]


def count_classes(dataset: DataSet, difficult: bool = True, crowds: bool = False) -> ClassCounts:
    """The objects of a data set that training learns."""
    objects, images = (np.zeros(len(dataset.classes), np.int64) for _ in range(2))
    for record in dataset.records:
        labels = trained_labels(record, difficult, crowds)
        objects += np.bincount(labels, minlength=len(objects))
        images[np.unique(labels)] += 1
    return ClassCounts(objects, images)


def rare_classes(names: tuple[str, ...], images: Counts) -> str:
    """What is to be said about classes with few training images, in a sentence; "" for nothing.

    images: (C,) training images that have the class. Classes without any are left out.
    """
    rows = sorted((int(images[i]), name) for i, name in enumerate(names) if 0 < images[i] <= RARE)
    if not rows:
        return ""
    named = ", ".join(f"{name} ({count})" for count, name in rows[:NAMED])
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    have = "class is" if len(rows) == 1 else f"of {len(names)} classes are"
    return (
        f"{len(rows)} {have} in {RARE} or fewer training images: {named}{more}; label more of them, or repeat"
        " their images with --oversample"
    )
