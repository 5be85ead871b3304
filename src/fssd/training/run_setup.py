"""What a training run works with: its data, network and length. Nothing here waits for another process."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator

import torch

from fssd.data.augment_hook import AugmentHook
from fssd.data.batch import Batch
from fssd.data.loader import Examples, Views, training_batches
from fssd.data.repeats import Repeats
from fssd.data.sample import DataSet
from fssd.data.scales import Scales
from fssd.model.network import channels_last
from fssd.training.class_weights import class_weights
from fssd.training.data_facts import class_notes
from fssd.training.distributed import Process
from fssd.training.drawings import draw_batches
from fssd.training.folder import RunFolder, Saved
from fssd.training.freeze import freeze
from fssd.training.left_out import LeftOut
from fssd.training.prefetch import on_device
from fssd.training.same_data import Resumed, content_of, same_data
from fssd.training.shares import share_of
from fssd.training.splits import TrainingSplits
from fssd.training.start import (
    check_batch,
    check_parallel,
    check_scales,
    fresh_network,
    mixing_of,
    oversampling,
    start_weights,
)
from fssd.training.tiles_of_run import RunTiles


class RunSetup:
    """The parts of a run that stay as they are while it goes on, and the network.

    splits: with a complete configuration. saved: the state that the run goes on from. backbone: a module of
    the user's own. Raises FssdError for all that does not fit.
    """

    def __init__(
        self,
        splits: TrainingSplits,
        saved: Saved | None,
        device: torch.device,
        process: Process,
        backbone: torch.nn.Module | None,
    ) -> None:
        self.config = config = splits.config
        self.device, self.process = device, process
        self.folder = RunFolder(splits, process)
        if saved is not None:
            self.folder.check(saved)
        elif process.is_first:
            for line in class_notes(splits, self.folder.trained):
                print(f"note: {line}", file=sys.stderr)
        self._take_data(splits.train, splits.val, saved)
        self.share = share_of(config, process)
        views = len(self.train_set if self.repeats is None else self.repeats)  # of an epoch
        self.updates_per_epoch = views / self.share.images
        if config.iterations is not None:
            self.total = config.iterations
        else:
            assert config.epochs is not None
            self.total = max(1, math.ceil(config.epochs * self.updates_per_epoch))
        self.mixing = mixing_of(config, self.total * self.share.images, views)
        self.eval_every = max(1, round(config.eval_every * self.updates_per_epoch))
        self._make_network(saved, backbone)

    def _take_data(self, train_set: DataSet, val_set: DataSet | None, saved: Saved | None) -> None:
        """The data sets, as the run was started with them. Raises ConfigError if they differ."""
        bad_share = self.config.bad_share
        self.left_out = LeftOut(train_set, bad_share)
        if saved is None:
            factors = oversampling(self.config, train_set, quiet=not self.process.is_first)
            same = Resumed(train_set, content_of(train_set)._replace(repeats=factors), frozenset())
        else:
            unusable, state = self.left_out.unusable, self.folder.state
            same = same_data(saved.document, saved.tensors, train_set, unusable, state)
            absent = {same.content.ids[index] for index in same.absent}
            self.left_out.ids = absent.union(saved.document.get("left_out", ()))
        self.train_set, self.content, self.absent = same
        factors = self.content.repeats
        self.repeats = None if factors is None else Repeats(factors.numpy())
        self.val_set = val_set
        self.val_left_out = LeftOut(val_set or train_set, bad_share)

    def _make_network(self, saved: Saved | None, backbone: torch.nn.Module | None) -> None:
        config = self.config
        options = None if saved is None else saved.document["options"]
        network = fresh_network(config, self.train_set, backbone, options, quiet=not self.process.is_first)
        geometry = network.geometry
        self.tiles = (
            RunTiles.of(config, self.train_set, geometry)
            if saved is None
            else RunTiles.saved(config, saved.document)
        )
        self.folder.tiles = self.tiles.facts()
        if saved is None and self.process.is_first and (line := self.tiles.describe(config)):
            print(line, file=sys.stderr)
        self.network = channels_last(network.to(self.device))
        check_batch(config, self.network, self.share.least * (self.process.world if config.sync_norm else 1))
        check_scales(config, self.network)
        self.folder.parameters = sum(one.numel() for one in self.network.parameters())
        freeze(self.network, config)
        check_parallel(config, self.network)
        if config.class_weights:
            counted = self.folder.data["train"]["objects"]  # in the order of the alphabet after a resume
            objects = {name: counted.get(name, 0) for name in self.train_set.classes}
            weights = class_weights(config.class_weights, objects)
            self.network.heads.weigh_classes(torch.from_numpy(weights).float().to(self.device))
            if saved is None and self.process.is_first:
                pairs = zip(self.train_set.classes, weights, strict=True)
                print("class weights:", ", ".join(f"{name} {w:.3g}" for name, w in pairs), file=sys.stderr)
        if saved is None:
            start_weights(self.network, self.train_set.classes, config, quiet=not self.process.is_first)

    def batches(self, start: int) -> Generator[Batch, None, None]:
        """The batches of this process from update `start` on."""
        config = self.config
        views = Views(
            self.train_set,
            self.network.geometry,
            config.seed,
            config.augment,
            config.difficult,
            config.jpeg,
            config.crowds,
            replaces=True,
            absent=self.absent,
            scales=self._scales(),
            mixing=self.mixing,
            repeats=self.repeats,
            hook=self._hook(),
            tiles=self.tiles.crops(self.network.geometry),
        )
        if self.process.is_first:
            draw_batches(self.folder.path, views)
        positions = self.share.positions(start, self.total)
        examples = Examples(views, self.network.heads.targets)
        pin = self.device.type == "cuda"
        return on_device(training_batches(examples, positions, config.workers, pin), self.device)

    def _hook(self) -> AugmentHook | None:
        name = self.config.augment_with
        return None if name is None else AugmentHook(name, len(self.train_set.classes))

    def _scales(self) -> Scales | None:
        if not self.config.multi_scale:
            return None
        smallest, largest = self.config.multi_scale
        own = self.network.image_size[0]
        return Scales(smallest, largest, own, self.config.seed, self.share.images, self.total)
