"""One update of the weights: forward, loss, backward, clip, step. Nothing here waits for the device."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fssd.config import TrainConfig
from fssd.data.batch import Batch, Targets
from fssd.model.network import Network
from fssd.training.distributed import Process
from fssd.training.ema import Average
from fssd.training.finite import FiniteWatch, Watched
from fssd.training.optim import make_optimizer, set_lr


class LossModule(nn.Module):
    """Images and targets to the terms of the loss; what DistributedDataParallel wraps.

    amp: "off", "bf16" or "fp16", for the network; the loss is computed in float32.
    """

    def __init__(self, network: Network, amp: str) -> None:
        super().__init__()
        self.network = network
        self.amp = amp

    def forward(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """(B, 3, H, W) uint8 and the stacked targets to named scalars, see `Head.loss`."""
        pixels = images.float().contiguous(memory_format=torch.channels_last)
        dtype = torch.float16 if self.amp == "fp16" else torch.bfloat16
        with torch.autocast(images.device.type, dtype, enabled=self.amp != "off"):
            raw = self.network(pixels)
        return self.network.heads.loss(raw, targets)


class Updater:
    """An update in parts, with its optimizer and scaler.

    watch: has the flags of all losses and gradients. images: those of an update, of all processes.
    """

    def __init__(self, network: Network, config: TrainConfig, device: torch.device, process: Process) -> None:
        self.network, self.config, self.device = network, config, device
        self.optimizer = make_optimizer(
            network,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            bias_lr=config.bias_lr,
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
        self.images = config.batch_size * config.accumulate * process.world
        self.watch = FiniteWatch(device)
        self.model = _parallel(LossModule(network, config.amp), network, device, process)

    def backward(self, batch: Batch, iteration: int, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one batch. last: of this update's batches; then processes synchronise."""
        images = batch.images.to(self.device, non_blocking=True)
        targets = {key: value.to(self.device, non_blocking=True) for key, value in batch.targets.items()}
        parallel = isinstance(self.model, DistributedDataParallel)
        with contextlib.nullcontext() if last or not parallel else self.model.no_sync():  # type: ignore[operator]
            terms: dict[str, Tensor] = self.model(images, targets)
            self.scaler.scale(terms["loss"] / self.config.accumulate).backward()  # type: ignore[no-untyped-call]
        terms = {name: term.detach() for name, term in terms.items()}  # without the graph behind them
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
        self.network.heads.count_images(self.images)
        if self.average is not None:
            self.average.update(self.network)

    def weights(self) -> dict[str, Tensor]:
        """What is evaluated and kept: the averaged weights, if there are any."""
        return self.average.tensors if self.average is not None else self.network.state_dict()


def _parallel(module: LossModule, network: Network, device: torch.device, process: Process) -> nn.Module:
    if process.world == 1:
        return module
    options = network.spec.options
    # Statistics stay per process, as in Caffe; the first process's are the ones saved.
    return DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,
        # Gradients lie in the buckets that are exchanged: no copy, and no other strides than the weights'.
        gradient_as_bucket_view=True,
        # Layers after the last fused map get no gradient; without this every process would wait for it.
        find_unused_parameters=network.spec.own_backbone or not {"sources", "variant"}.isdisjoint(options),
    )
