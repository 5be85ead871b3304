"""One update of the weights: forward, loss, backward, clip, step. Nothing here waits for the device."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fssd.config.train_config import TrainConfig
from fssd.data.batch import Batch, Targets
from fssd.layers.joint_norm import join_norms
from fssd.layers.shapes_alone import without_memory
from fssd.model.network import Network
from fssd.training.distributed import Process
from fssd.training.ema import Average
from fssd.training.finite import FiniteWatch, Watched
from fssd.training.optim import make_optimizer, set_lr
from fssd.training.shares import share_of


class LossModule(nn.Module):
    """Images and targets to the terms of the loss; what DistributedDataParallel wraps.

    amp: "off", "bf16" or "fp16", for the network; the loss is computed in float32.
    """

    def __init__(self, network: Network, amp: str) -> None:
        super().__init__()
        self.network = network
        self.amp = amp

    def forward(self, images: Tensor, targets: Targets, counts: Tensor | None = None) -> dict[str, Tensor]:
        """(B, 3, H, W) uint8 and the stacked targets to named scalars, see `Head.loss`."""
        pixels = images.float().contiguous(memory_format=torch.channels_last)
        dtype = torch.float16 if self.amp == "fp16" else torch.bfloat16
        with torch.autocast(images.device.type, dtype, enabled=self.amp != "off"):
            raw = self.network(pixels)
        heads = self.network.heads
        return heads.loss(raw, targets) if counts is None else heads.loss(raw, targets, counts)


class Updater:
    """An update in parts, with its optimizer and scaler.

    watch: has the flags of all losses and gradients. share: of this process in an update.
    """

    def __init__(self, network: Network, config: TrainConfig, device: torch.device, process: Process) -> None:
        self.network, self.config, self.device = network, config, device
        self.process, self.share = process, share_of(config, process)
        self.optimizer = make_optimizer(
            network,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            bias_lr=config.bias_lr,
            norm_bias_lr=config.norm_bias_lr,
            new_layers_lr=config.new_layers_lr,
            backbone_lr=config.backbone_lr,
            kind=config.optimizer,
            norm_decay=config.norm_decay,
            fused=device.type == "cuda",  # else a scaler waits for the GPU before each step
        )
        self.average = Average(network, config.ema) if config.ema else None
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=config.amp == "fp16" and device.type == "cuda"
        )
        self.watch = FiniteWatch(device)
        module = LossModule(network, config.amp)
        self.model = _parallel(module, network, device, process, joint_norms=config.sync_norm)

    def counts(self, batches: Sequence[Batch]) -> Tensor | None:
        """What the loss of an update is divided by, over its batches in all processes, see `Head.counts`.

        None where each batch is divided by its own. One exchange, for which the host does not wait.
        """
        if self.config.global_batch is None:
            return None
        counts = torch.stack([self.network.heads.counts(self._targets(batch)) for batch in batches]).sum(
            dim=0
        )
        if self.process.world > 1:
            dist.all_reduce(counts)
        return counts

    def _targets(self, batch: Batch) -> Targets:
        return {key: value.to(self.device, non_blocking=True) for key, value in batch.targets.items()}

    def backward(
        self, batch: Batch, iteration: int, last: bool, counts: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Add the gradient of one batch. last: of this update's batches; then processes synchronise.

        counts: see `counts`. The terms are means over the batches of an update, with counts too.
        """
        images, targets = batch.images.to(self.device, non_blocking=True), self._targets(batch)
        parallel = isinstance(self.model, DistributedDataParallel)
        with contextlib.nullcontext() if last or not parallel else self.model.no_sync():  # type: ignore[operator]
            terms: dict[str, Tensor] = self.model(images, targets, counts)
            if counts is None:
                loss = terms["loss"] / self.config.accumulate
            else:
                loss = terms["loss"] * self.process.world  # of which DistributedDataParallel takes the mean
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        terms = {name: term.detach() for name, term in terms.items()}  # without the graph behind them
        if counts is not None:
            whole = self.share.passes * self.share.images / self.share.own
            terms = {name: term * (whole if name.startswith("loss") else 1) for name, term in terms.items()}
        self.watch.add(terms["loss"], Watched("loss", iteration, batch, terms))
        return terms

    def clip(self, batch: Batch, terms: dict[str, Tensor], iteration: int) -> None:
        """Shorten the gradient to `clip_norm`."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm or math.inf)
        # Under fp16 overflow is expected: the scaler skips that step and lowers its scale.
        if not self.scaler.is_enabled():
            self.watch.add(norm, Watched("gradient", iteration, batch, terms))

    def step(self, rate: float) -> None:
        """Change the weights. rate: the base learning rate."""
        set_lr(self.optimizer, rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.network.heads.count_images(self.share.images)
        if self.average is not None:
            self.average.update(self.network)

    def close(self) -> None:
        """Let go of the group of processes; no update can follow.

        DistributedDataParallel's reducer holds the group. A group that ends together with its reducer waits
        for its own threads without giving up Python's lock, which one may be waiting for (torch 2.13).
        """
        if isinstance(self.model, DistributedDataParallel):
            del self.model.reducer, self.model.logger

    def weights(self) -> dict[str, Tensor]:
        """What is evaluated and kept: the averaged weights, if there are any."""
        return self.average.tensors if self.average is not None else self.network.state_dict()


def _parallel(
    module: LossModule, network: Network, device: torch.device, process: Process, joint_norms: bool
) -> nn.Module:
    if process.world == 1:
        return module
    unused = leaves_layers_unused(network)
    if joint_norms:
        join_norms(network)
    # Statistics stay per process, as in Caffe, unless norms are joint; the first process's are saved.
    # torch 2.13 has renamed the flag.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    share_statistics: dict[str, Any] = {name: False}
    return DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        **share_statistics,
        # Gradients lie in the buckets that are exchanged: no copy, and no other strides than the weights'.
        gradient_as_bucket_view=True,
        # Without this every process would wait for gradients that nothing makes.
        find_unused_parameters=unused,
    )


def leaves_layers_unused(network: Network) -> bool:
    """Whether weights that learn get no gradient: layers after the last map that the neck takes.

    Found by one pass that computes shapes alone. Parts that are not of this package are taken to leave some
    unused, as which ones can depend on the images or on chance.
    """
    parts = (network.backbone, network.neck, network.heads)
    if any(type(part).__module__.partition(".")[0] != "fssd" for part in parts):
        return True
    copied = without_memory(network)
    width, height = copied.image_size
    with torch.random.fork_rng(devices=[]):
        raw = copied(torch.zeros(2, 3, height, width, device="meta"))  # a norm of one cell needs two images
    torch.stack([x.sum() for x in raw]).sum().backward()  # type: ignore[no-untyped-call]
    return any(p.requires_grad and p.grad is None for p in copied.parameters())
