"""How a run begins: fresh weights from the seed, then those it starts from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from fssd.backbones import BACKBONES
from fssd.config.resolve import resolve
from fssd.config.run_files import STATE_FILE
from fssd.config.settings import check_kinds
from fssd.config.train_config import TrainConfig
from fssd.data.augment_hook import find_augmenter
from fssd.data.input_boxes import input_boxes
from fssd.data.mixing import Mixing
from fssd.data.repeats import Repeats, repeat_factors
from fssd.data.sample import DataSet
from fssd.data.scales import STEP
from fssd.data.tiles import FACT as TILES
from fssd.errors import CheckpointError, ConfigError, DataError
from fssd.evaluation.coco_ap import require_hotcoco
from fssd.importers.caffe import read_caffe_backbone
from fssd.model.build import build_model
from fssd.model.coverage import coverage_advice
from fssd.model.designs import backbone_class, find_design, read_size, same_but_size
from fssd.model.network import Network
from fssd.model.probe import lone_norms
from fssd.necks.fssd import NARROW
from fssd.training.class_weights import read_class_weights
from fssd.training.folder import check_folder
from fssd.training.freeze import training_mode
from fssd.training.tiles_of_run import RunTiles, check_tiles
from fssd.training.trackers import check_trackers, require_trackers
from fssd.weights.checkpoint import model_file, read_model
from fssd.weights.model_card import check_licence
from fssd.weights.pretrained import load_backbone, load_ssd
from fssd.weights.transfer import PRIOR_OPTIONS, load_detector
from fssd.zoo.published import weights_file

FIT = "fit"
PLAIN_SHARE = 0.1  # of a run's views, the last ones, that mosaic and mixup leave alone by default


def network_options(config: TrainConfig) -> dict[str, Any]:
    """The options of `build_model` that a configuration asks for; its own fields override `options`."""
    own = {key: getattr(config, key) for key in ("geometry", "priors", "backbone", "neck")}
    given = {key: value for key, value in own.items() if value is not None}
    if config.size:
        given["size"] = list(config.size) if len(config.size) > 1 else config.size[0]
    return {**config.options, **given}


def recipe_of(config: TrainConfig) -> Mapping[str, Any]:
    """The recipe of the model's backbone, for settings that are not given. Raises ConfigError."""
    design = find_design(config.model, network_options(config))
    recipe = backbone_class(design.backbone).recipe
    # A backbone without a recipe uses that of lite or VGG16, by the kind of network.
    return recipe or backbone_class("lite" if design.light else "vgg16").recipe


def complete(config: TrainConfig) -> TrainConfig:
    """The configuration of one run with its backbone's recipe filled in, checked. Raises ConfigError."""
    check_kinds(config)
    check_licence(config.licence)
    read_class_weights(config.class_weights)
    check_trackers(config.log_to)
    check_tiles(config)
    config = resolve(config, recipe_of(config))
    if config.folds and not config.fold:
        raise ConfigError(
            f"folds is {config.folds}, but a run validates on one of them; give --fold too, 1 to"
            f" {config.folds}, or train all of them with a plain fssd train --folds {config.folds}"
        )
    return config


def check_start(config: TrainConfig, resume: bool) -> None:
    """Refuse what can be refused before any label is read. Raises ConfigError or CheckpointError."""
    assert config.out is not None
    check_folder(config.out, resume)
    require_trackers(config.log_to)
    if config.augment_with is not None:
        find_augmenter(config.augment_with)
    if config.val_split is not None and config.metric == "coco":
        require_hotcoco()
    if not (config.out / STATE_FILE).exists():
        require_weights(config)


def require_weights(config: TrainConfig) -> None:
    """Raise CheckpointError if the weights to start from are not there."""
    if config.weights is None:
        return
    if config.start in ("ssd", "model"):
        model_file(config.weights)
    else:
        weights_file(config.weights)


def fresh_network(
    config: TrainConfig,
    dataset: DataSet,
    backbone: torch.nn.Module | None,
    saved_options: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Network:
    """New weights from the seed, without touching the caller's random state.

    dataset: its classes are predicted, and its boxes are what priors are fitted to. saved_options: those of
    the run that is resumed, with the priors that were fitted then. quiet: print no advice on boxes and
    priors.
    """
    own = {} if backbone is None else {"backbone": backbone}
    options = {**(_asked_options(config, own, quiet) if saved_options is None else saved_options), **own}
    fits = options.get("priors") == FIT
    if config.prior_coverage is not None and saved_options is None and not fits:
        raise ConfigError("--prior-coverage is of fitted priors; give --priors fit too, or leave it out")
    if fits:
        del options["priors"]
    network = _build(config, len(dataset.classes), options)
    if saved_options is not None:
        return network
    geometry = network.geometry
    if config.tiles is None:
        boxes = input_boxes(dataset, geometry)
    else:
        boxes = RunTiles.of(config, dataset, geometry).input_boxes(dataset, geometry)
    if fits:
        if not quiet:
            print(f"fitting priors to {len(boxes):,} boxes, which may take a minute", flush=True)
        wanted = {} if config.prior_coverage is None else {"coverage": config.prior_coverage}
        options |= network.heads.fitted(boxes, **wanted)
        network = _build(config, len(dataset.classes), options)
    for line in () if quiet else coverage_advice(network, boxes, fitted=fits):
        print(f"note: {line}", file=sys.stderr)
    return network


def _asked_options(config: TrainConfig, own: Mapping[str, Any], quiet: bool) -> dict[str, Any]:
    """`network_options`; a start from a model takes its narrow form and its fitted priors.

    Those cannot be named by a flag, so a run that is to have others says so. own: a backbone of the user's.
    """
    options = network_options(config)
    if config.start != "model" or config.weights is None:
        return options
    try:
        facts = read_model(model_file(config.weights))[1]
    except CheckpointError:  # a row of an ablation is looked at before the row that it starts from is trained
        return options
    before = facts.get("options")
    if not isinstance(before, Mapping) or not _same_system(facts.get("model"), config.model):
        return options
    taken: dict[str, Any] = {}
    notes = []
    if "variant" not in options and before.get("variant") == NARROW:
        taken["variant"] = NARROW
        notes.append(f"has the form of version 0.1, variant={NARROW}; so has this run")
    if isinstance(before.get("priors"), Mapping) and not options.keys() & set(PRIOR_OPTIONS):
        priors, note = _fitted_before(config, facts, {**options, **taken}, own)
        taken |= priors
        notes.append(note)
    for note in () if quiet else notes:
        print(f"note: {config.weights} {note}", file=sys.stderr)
    return options | taken


def _same_system(before: Any, name: str) -> bool:
    """Whether two names of networks, the first as a file has it, differ by the input size at most."""
    try:
        return same_but_size(find_design(str(before), {}), find_design(name, {}))
    except ConfigError:  # of another version, or a backbone that is not here; reading the file says so
        return False


def _fitted_before(
    config: TrainConfig, facts: Mapping[str, Any], options: dict[str, Any], backbone: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """What a run takes of the fitted priors of the model that it starts from, as options, and a note on it.

    facts: of the model. On a larger input the same objects are larger, and so are their priors; in tiles they
    may be of any size.
    """
    before = facts["options"]
    old, own = find_design(facts["model"], before), find_design(config.model, options)
    if own == old:
        note = "has fitted priors; so has this run, unless it is given other --priors"
        return {"priors": before["priors"]}, note
    (width, height), (own_width, own_height) = old.size, own.size
    is_whole = config.tiles is None and facts.get(TILES) is None
    if same_but_size(own, old) and width * own_height == height * own_width and is_whole:
        heads = _build(config, 1, {**options, **backbone}).heads
        priors = heads.enlarged(before["priors"], own_width / width)
        if priors is not None:
            sizes = f"for {width} x {height} px; so has this run, for {own_width} x {own_height} px"
            return {"priors": priors}, f"has priors fitted {sizes}, unless it is given other --priors"
    return (
        {},
        "has fitted priors, which this network cannot take; it has a table, unless it is given --priors fit",
    )


def _build(config: TrainConfig, num_classes: int, options: dict[str, Any]) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        try:
            return build_model(config.model, num_classes, **options)
        except (TypeError, ValueError) as error:
            if not config.options:
                raise
            raise ConfigError(f"the model options {dict(config.options)} do not fit ({error})") from error


def require_objects(config: TrainConfig, dataset: DataSet) -> None:
    """Raise DataError if the training split has no object to train on."""
    records, split = dataset.records, f"split {config.train_split!r}"
    if any(((~r.difficult | config.difficult) & (~r.crowd | config.crowds)).any() for r in records):
        return
    objects = sum(len(record.boxes) for record in records)
    if not objects:
        reason = f"none of the {len(records)} images of {split} has an object; see `fssd check`"
    else:
        reason = f"all {objects} objects of {split} are crowds or difficult and not trained on; see --crowds"
    raise DataError(reason, file=config.data)


def check_batch(config: TrainConfig, network: Network, least: int) -> None:
    """Batch normalisation of a single cell needs another image. Raises ConfigError.

    least: images of the smallest batch that is normalised. No batch is smaller at the end of an epoch: its
    last images share theirs with the first of the next.
    """
    if least > 1:
        return
    training_mode(network, config)
    names = lone_norms(network)
    if not names:
        return
    others = f" and {len(names) - 1} more layers" if len(names) > 1 else ""
    out = ", or --freeze-norm" if all(name.startswith("backbone.") for name in names) else ""
    what = "batch_size is 1" if config.global_batch is None else "a batch of a process has 1 image"
    raise ConfigError(
        f"{what}, but {names[0]}{others} of {config.model} would normalise a single value per"
        f" channel, which leaves nothing of it; use a --batch-size of 2 or more, with a"
        f" smaller --size if memory is short{out}"
    )


def check_parallel(config: TrainConfig, network: Network) -> None:
    """Whether the network's loss can be shared out, and its norms be joint. Raises ConfigError."""
    if config.global_batch is not None:
        nothing = network.heads.targets(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        network.heads.counts({key: value[None] for key, value in nothing.items()})
    if config.sync_norm:
        training_mode(network, config)
        if not any(isinstance(m, nn.BatchNorm2d) and m.training for m in network.modules()):
            raise ConfigError(
                f"{config.model} has no batch norm that takes statistics of the batch; leave --sync-norm out"
            )


def check_scales(config: TrainConfig, network: Network) -> None:
    """Whether the network can be trained at the sides of `multi_scale`. Raises ConfigError."""
    sides, (width, height) = config.multi_scale, network.image_size
    if not sides:
        return
    if len(sides) != 2 or sides[0] > sides[1] or any(s % STEP or not s for s in sides):
        raise ConfigError(
            f"multi_scale is {list(sides)}; it is the smallest and the largest side, multiples of {STEP}:"
            " 320 608"
        )
    for side in sides:
        read_size(side)
    if not network.heads.any_size:
        raise ConfigError(
            f"multi_scale does not go with {config.model}, whose priors are made for one size; leave it out"
            " or take yolov2-416"
        )
    if width != height or width % STEP:
        raise ConfigError(
            f"multi_scale needs a square input of a multiple of {STEP} px, not {width} x {height}"
        )


def mixing_of(config: TrainConfig, views: int, images: int) -> Mixing | None:
    """The mosaic and mixup of a run; None for a run without. views: of the whole run. images: of a pass.

    Raises ConfigError if `plain_epochs` leaves nothing of it.
    """
    if not config.mosaic and not config.mixup:
        return None
    plain = PLAIN_SHARE * views if config.plain_epochs is None else config.plain_epochs * images
    until = round(views - plain)
    if until <= 0:
        raise ConfigError(
            f"plain_epochs is {config.plain_epochs:g}, but the run has {views / images:g} epochs, so no view"
            " would be a mosaic or mixup; lower it, or leave mosaic and mixup out"
        )
    return Mixing(config.mosaic, config.mixup, until)


def oversampling(config: TrainConfig, dataset: DataSet, quiet: bool) -> torch.Tensor | None:
    """(N,) how often each image is shown in a pass; None for a run that does not oversample.

    Prints what follows from it, unless `quiet`. Raises ConfigError if no image would be repeated.
    """
    if config.oversample is None:
        return None
    factors = repeat_factors(dataset, config.oversample, config.difficult, config.crowds)
    repeated = int((factors > 1).sum())
    if not repeated:
        raise ConfigError(
            f"oversample {config.oversample:g} repeats no image: every class is in a larger share of the"
            f" {len(dataset)} training images; raise it, or leave it out"
        )
    if not quiet:
        print(
            f"oversampling: {repeated} of {len(dataset)} images are shown up to {factors.max():.1f} times, an"
            f" epoch has {len(Repeats(factors))} views",
            file=sys.stderr,
        )
    return torch.from_numpy(factors)


def start_weights(
    network: Network, classes: tuple[str, ...], config: TrainConfig, quiet: bool = False
) -> None:
    """Fill `network` as `config.start` says. Prints what is taken over, unless `quiet`.

    Raises ConfigError or CheckpointError.
    """
    if config.start == "nothing":
        return
    if config.start == "model":
        assert config.weights is not None
        taken = load_detector(network, classes, config.weights)
        known = f"{len(taken.classes)} of {len(classes)} classes known to it"
        for line in () if quiet else (f"starts from {config.weights} with {known}", *taken.notes):
            print(line, file=sys.stderr)
        return
    if config.start == "ssd":
        assert config.weights is not None
        load_ssd(network, config.weights)
        return
    if config.weights is None and _brings_weights(network, config):
        return
    file = None if config.weights is None else weights_file(config.weights)
    if file is not None and file.suffix == ".caffemodel":
        backbone = find_design(config.model, network.spec.options).backbone
        load_backbone(network, file, read_caffe_backbone(file, backbone))
        return
    load_backbone(network, file)


def _brings_weights(network: Network, config: TrainConfig) -> bool:
    """Whether the backbone is the user's own, a module or a class, and brings its own starting weights."""
    return network.spec.own_backbone or (
        find_design(config.model, network.spec.options).backbone not in BACKBONES
    )
