"""Which images a model is measured on: those of a split, and none that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fssd.config.config_files import load_config
from fssd.config.run_files import CONFIG_FILE
from fssd.data.columns import take
from fssd.data.division import Division, read_division
from fssd.data.same_files import true_paths
from fssd.data.sample import DataSet
from fssd.data.source import list_splits, open_data, require_usable
from fssd.data.split_names import training_split, validation_split
from fssd.errors import ConfigError, DataError
from fssd.storage.folders import is_remote, location


@dataclass(frozen=True)
class TrainedOn:
    """The images that a run was trained on. division: if its validation images are no split of the data."""

    model: Path
    data: Path | None
    images: Path | None
    split: str | None
    division: Division | None


def trained_on(model: Path) -> TrainedOn | None:
    """What the model file's run was trained on; None if there is no run in its folder."""
    file = model.parent / CONFIG_FILE
    if not file.is_file():
        return None
    config = load_config(file)
    split = None if config.train_split == "none" else config.train_split
    return TrainedOn(model, config.data, config.images, split, read_division(model.parent))


def measured_images(
    data: Path,
    split: str | None,
    models: Sequence[Path],
    bad_share: float,
    *,
    seen_images: bool = False,
    images: Path | None = None,
) -> tuple[DataSet, str | None]:
    """The images to measure trained models on, and the name of their split.

    split: "auto" takes the validation split of the data, or else the images that the models' runs kept for
    evaluation (named val); None takes every image. seen_images: allow images that a model was trained on.
    Raises DataError, and ConfigError if a model was trained on some of the images.
    """
    runs = [run for run in map(trained_on, models) if run is not None]
    opened = partial(_open, data, bad_share=bad_share, images=images)
    dataset, name = _kept_images(data, runs, opened) if split == "auto" else (None, split)
    if dataset is None:
        dataset = opened(name)
    for run in () if seen_images else runs:
        _refuse_trained(dataset, data, run, images or run.images)
    return dataset, name


def _kept_images(
    data: Path, runs: Sequence[TrainedOn], opened: Callable[[str | None], DataSet]
) -> tuple[DataSet | None, str | None]:
    """The name of the validation split; without one the images that all runs kept for evaluation."""
    known = list_splits(data)
    name = validation_split(known)
    if name is not None:
        return None, name
    divided = [run for run in runs if run.division is not None]
    if not divided:
        splits = f"splits here: {', '.join(known)}" if known else "it has no splits"
        reason = f'has no validation split; {splits}; choose one with --split, or "none" for every image'
        raise DataError(reason, file=data)
    dataset = opened(_divided_split(data, divided, known))
    common = frozenset.intersection(*(_kept_of(run, data, dataset) for run in divided))
    inside = [index for index, record in enumerate(dataset.records) if record.image_id in common]
    records = take(dataset.records, inside)
    if not records:
        raise DataError("holds none of the images that all runs kept for evaluation; give --split", file=data)
    facts = {**dataset.facts, "images": len(records)}
    return replace(dataset, records=records, facts=facts), "val"


def _divided_split(data: Path, runs: Sequence[TrainedOn], known: Sequence[str]) -> str | None:
    """The split whose images the runs divided: what they say if this is their data, or has such splits."""
    same = {run.split for run in runs if run.data is not None and _are_same(run.data, data)}
    every = {run.split for run in runs}
    if len(same or every) > 1:
        return training_split(known)
    (split,) = same or every
    has_it = split is None or {name.strip() for name in split.split("+")} <= set(known)
    return split if same or has_it else training_split(known)


def _kept_of(run: TrainedOn, data: Path, dataset: DataSet) -> frozenset[str]:
    """The images that a run kept for evaluation. Raises DataError if this is not what it divided."""
    assert run.division is not None
    division = run.division.renamed(dataset.records)
    others = division.other_pictures(dataset.records)
    if others:
        record, name = others[0]
        reason = f"image {record.image_id} was {name} and is {record.path}"
        raise DataError(
            f"is not the data set that {run.model} was trained on: {len(others)} images have other pictures"
            f" (first: {reason}), so nobody knows which were kept for evaluation; give --split",
            file=data,
        )
    is_same = run.data is not None and _are_same(run.data, data)
    wanted = division.val if is_same else division.val | division.train
    lost = wanted - {record.image_id for record in dataset.records}
    unusable = int(dataset.facts.get("images", len(dataset))) - len(dataset)
    if len(lost) > unusable:
        what = "kept for evaluation" if is_same else "was divided into"
        raise DataError(
            f"lacks {len(lost)} of the {len(wanted)} images that {run.model} {what} (first: {min(lost)}),"
            " so it is not the data set that the run was trained on; give --split",
            file=data,
        )
    return division.val


def _open(data: Path, split: str | None, bad_share: float, images: Path | None) -> DataSet:
    dataset = open_data(data, split, images=images)
    require_usable(dataset, bad_share)
    return dataset


def _are_same(one: Path, other: Path) -> bool:
    if is_remote(one) or is_remote(other):
        return location(one) == location(other)
    return one.resolve() == other.resolve()


def _trained_images(data: Path, run: TrainedOn, images: Path | None) -> DataSet | None:
    """What the run was trained on, under whatever path `data` names it; None if that cannot be read here."""
    if run.data is None or not (run.data.exists() or is_remote(run.data)):
        return None
    if _are_same(run.data, data):
        return open_data(run.data, run.split, images=images)
    if is_remote(run.data) or is_remote(data):
        return None
    try:
        return open_data(run.data, run.split, images=run.images)
    except DataError:
        return None  # another data set, which need not be in order now


def _refuse_trained(dataset: DataSet, data: Path, run: TrainedOn, images: Path | None) -> None:
    trained = _trained_images(data, run, images)
    if trained is None:
        return
    records = trained.records
    if run.division is not None:
        records = run.division.renamed(records).trained(records)
    paths = true_paths(record.path for record in records)
    own = set(paths)
    seen = sum(path in own for path in true_paths(record.path for record in dataset.records))
    if seen:
        raise ConfigError(
            f"{run.model} was trained on {seen} of these {len(dataset)} images, so its accuracy on them says"
            " little; choose another --split, or give --seen-images to measure on them all the same"
        )
