"""Which images a run trains on, and which it evaluates on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fssd.config.train_config import TrainConfig
from fssd.data.division import DIVISION_FILE, Division, divide, read_division
from fssd.data.same_files import true_paths
from fssd.data.sample import DataSet
from fssd.data.source import describe, list_splits, open_data, other_formats, print_left_out, require_usable
from fssd.data.split_names import training_split, validation_split
from fssd.errors import ConfigError, DataError

VAL_SHARE = 0.15


@dataclass(frozen=True)
class TrainingSplits:
    """The images of a run. config: with the names of the splits. division: if they were chosen here."""

    config: TrainConfig
    train: DataSet
    val: DataSet | None
    division: Division | None = None


def name_splits(config: TrainConfig) -> TrainConfig:
    """The configuration with the names of the splits, where they are left to the data set. Raises DataError.

    val_split stays "auto" where validation images are taken from the training images; val_share is set then.
    """
    assert config.data is not None
    if "auto" not in (config.train_split, config.val_split):
        return config
    known = list_splits(config.data)
    if config.train_split == "auto":
        config = replace(config, train_split=_training_split(known, config))
    if config.val_split != "auto" or config.folds or config.val_share is not None:
        return replace(config, val_split=None) if config.val_share == 0 else config
    val = validation_split(known)
    return replace(config, val_share=VAL_SHARE) if val is None else replace(config, val_split=val)


def open_splits(config: TrainConfig, resume: bool = False, quiet: bool = False) -> TrainingSplits:
    """The images to train and to evaluate on; prints what was found and what is left out, unless `quiet`.

    config: complete. resume: images that a run in its folder chose for evaluation are chosen again.
    Raises DataError, and ConfigError where both have images in common unless `config.seen_images` allows it.
    """
    config = name_splits(config)
    assert config.data is not None
    also = None if quiet else other_formats(config.data)
    train = _open(config, config.train_split, None, also)
    if config.val_split == "auto":
        return _divided(config, train, resume, quiet)
    if config.val_split is None:
        return TrainingSplits(config, train, None)
    val = _open(config, config.val_split, train.classes, also)
    _refuse_overlap(config, train, val)
    return TrainingSplits(config, train, val)


def _divided(config: TrainConfig, dataset: DataSet, resume: bool, quiet: bool) -> TrainingSplits:
    assert config.out is not None
    division = read_division(config.out) if resume else None
    if division is not None:
        division = division.renamed(dataset.records)
        _refuse_other_pictures(config, division, dataset)
    else:
        try:
            share = config.val_share or VAL_SHARE
            division = divide(dataset, config.split_seed, share, config.folds, config.fold)
        except DataError as error:
            raise DataError(error.reason, file=config.data) from error
    train, val = division.apply(dataset)
    how = f"fold {config.fold} of {config.folds}" if config.folds else f"--val-share {config.val_share:g}"
    lost = len(dataset) - len(train) - len(val)
    added = f"; {lost} images came after the division and are left out" if lost else ""
    found = f"evaluation on {len(val)} of these images ({how}), training on {len(train)}{added}"
    for line in () if quiet else (found, *division.notes):
        print(line, file=sys.stderr)
    return TrainingSplits(config, train, val, division)


def _refuse_other_pictures(config: TrainConfig, division: Division, dataset: DataSet) -> None:
    others = division.other_pictures(dataset.records)
    if others:
        record, name = others[0]
        assert config.out is not None
        raise ConfigError(
            f"{config.out / DIVISION_FILE}: {len(others)} of its images have other pictures now (first: image"
            f" {record.image_id} was {name} and is {record.path}); resume with the same images or start"
            " another run in a new --out"
        )


def _open(
    config: TrainConfig, split: str | None, classes: tuple[str, ...] | None, also: Sequence[str] | None
) -> DataSet:
    """The usable images of a split; prints what was found, with `also` (see `describe`) unless it is None."""
    assert config.data is not None
    dataset = open_data(config.data, split, classes, config.images)
    require_usable(dataset, config.bad_share)
    if also is not None:
        print(describe(dataset, config.data, split, also), file=sys.stderr)
        print_left_out(dataset)
    return dataset


def _training_split(known: Sequence[str], config: TrainConfig) -> str | None:
    name = training_split(known)
    if known and name is None:
        raise DataError(
            f"has no split to train on; splits here: {', '.join(known)}; choose one with --train-split,"
            ' "none" for every image',
            file=config.data,
        )
    return name


def _refuse_overlap(config: TrainConfig, train: DataSet, val: DataSet) -> None:
    trained = set(true_paths(record.path for record in train.records))
    shared = sum(path in trained for path in true_paths(record.path for record in val.records))
    if shared and not config.seen_images:
        raise ConfigError(
            f"{config.data}: {shared} of {len(val)} images of the split {config.val_split!r} are trained on"
            f" (split {config.train_split!r}), so its mAP would be too high; choose another --val-split,"
            " or --val-share 0.15, or give --seen-images to evaluate on them all the same"
        )
