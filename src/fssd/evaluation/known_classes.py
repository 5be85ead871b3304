"""Classes of a data set that a detector does not know: told before anything is measured, and not compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fssd.counted import counted
from fssd.data.join import join_sets
from fssd.data.sample import DataSet, Record
from fssd.errors import ConfigError, closest

SHOWN = 10  # classes in a sentence


def ignored_objects(record: Record) -> npt.NDArray[np.bool_]:
    """(N,) whether an object is ignored, because it is difficult or a crowd."""
    return record.difficult | record.crowd


def objects_per_class(dataset: DataSet) -> npt.NDArray[np.int64]:
    """(C,) objects to find: without those that are difficult or crowds."""
    labels = [record.labels[~ignored_objects(record)] for record in dataset.records]
    return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(dataset.classes))


def unknown_classes(dataset: DataSet, known: Sequence[str]) -> tuple[str, ...]:
    """The classes with an object to find that are not among the names a detector knows."""
    pairs = zip(dataset.classes, objects_per_class(dataset), strict=True)
    return tuple(name for name, count in pairs if count and name not in known)


def unknown_note(dataset: DataSet, known: Sequence[str]) -> str:
    """A line about the classes that a detector does not know; "" if it knows all that have objects."""
    unknown = unknown_classes(dataset, known)
    if not unknown:
        return ""
    named = _listed([f"{name!r}{_meant(name, dataset, known)}" for name in unknown])
    return f"the detector knows no {named}; {'its' if len(unknown) == 1 else 'their'} AP is 0"


def wanted_classes(dataset: DataSet, wanted: Sequence[str]) -> tuple[DataSet, str]:
    """The data set with the wanted classes alone, and a line about those left out.

    An image whose objects are all left out stays, as background. Raises ConfigError if nothing is left.
    """
    kept = tuple(name for name in dataset.classes if name in wanted)
    chosen = join_sets([dataset], kept, {})
    if not objects_per_class(chosen).any():
        raise ConfigError(
            f"the data set has no object of {_listed(list(map(repr, wanted)))}; choose among its classes:"
            f" {_listed(dataset.classes)}"
        )
    left_out = [repr(name) for name in dataset.classes if name not in wanted]
    chosen = replace(chosen, facts={**dataset.facts, **chosen.facts})
    return chosen, f"measured without {_listed(left_out)}" if left_out else ""


def known_to_both(dataset: DataSet, a: Sequence[str], b: Sequence[str]) -> tuple[DataSet, str]:
    """The data set with the classes alone that detectors A and B know, and a line about those left out.

    An image whose objects are all left out stays, as background. Raises ConfigError if nothing is left.
    """
    both = tuple(name for name in dataset.classes if name in a and name in b)
    common = dataset if both == dataset.classes else join_sets([dataset], both, {})
    left_out = _left_out(unknown_classes(dataset, both), a, b)
    if not objects_per_class(common).any():
        raise ConfigError(
            f"no class that both models know has an object to compare them on ({left_out}); rename"
            " the classes of one of them, or take other data"
        )
    classes = f"{counted(len(both), 'class')} that both know"
    return common, f"compared on the {classes}; {left_out}" if left_out else ""


def _left_out(names: Sequence[str], a: Sequence[str], b: Sequence[str]) -> str:
    groups: dict[str, list[str]] = {}
    for name in names:
        who = "both" if name not in a and name not in b else "A" if name not in a else "B"
        groups.setdefault(who, []).append(repr(name))
    return "; ".join(f"left out, unknown to {who}: {_listed(group)}" for who, group in groups.items())


def _meant(name: str, dataset: DataSet, known: Sequence[str]) -> str:
    """` (did you mean 'dog'?)` for a class of the detector that is written almost so."""
    free = [other for other in known if other not in dataset.classes or other.casefold() == name.casefold()]
    meant = closest(name, free)
    return "" if meant is None else f" (did you mean {meant!r}?)"


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
