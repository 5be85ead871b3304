"""A step that waits for nothing, and what watches over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fssd.config.train_config import TrainConfig
from fssd.data.batch import Batch
from fssd.errors import TrainingError
from fssd.heads.multibox.multibox_head import MultiboxHead
from fssd.model.build import build_model
from fssd.model.network import Network, channels_last
from fssd.training.distributed import Process
from fssd.training.finite import LOOK_EVERY, FiniteWatch, Watched
from fssd.training.loop import train
from fssd.training.same_data import Content
from fssd.training.state import Progress, read_state, save_state
from fssd.training.step import Updater, leaves_layers_unused
from fssd.weights.checkpoint import read_tensors

MakeBackbone = Callable[[], nn.Module]

# Operators whose result, or its size, has to come back from the device before Python can go on.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique", "bincount")


class Watcher(TorchDispatchMode):
    """Notes every operator that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().removeprefix("aten::")
        masks = [t for t in (args[1] if name.startswith("index") and len(args) > 1 else []) if t is not None]
        by_mask = any(isinstance(t, Tensor) and t.dtype == torch.bool for t in masks)
        if name.partition(".")[0] in WAITING or by_mask:
            self.waits.append(name)
        return func(*args, **(kwargs or {}))


def batch_for(network: Network, count: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)
    width, height = network.image_size
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[20.0, 30, 120, 140], [200, 50, 240, 90]])
    made = [network.heads.targets(boxes.numpy(), torch.tensor([0, 1]).numpy()) for _ in range(count)]
    targets = {key: torch.stack([one[key] for one in made]) for key in made[0]}
    return Batch(images, targets, [f"{number}.jpg" for number in range(count)])


def update(updater: Updater, batch: Batch, iteration: int) -> None:
    terms = updater.backward(batch, iteration, last=True)
    updater.clip(batch, terms, iteration)
    updater.step(1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm": "none"},
        {"loc_loss": "giou", "conf_loss": "focal"},
        {"loc_loss": "ciou"},
        {"conf_loss": "quality_focal", "matching": "atss"},
    ],
    ids=str,
)
def test_an_update_reads_nothing_back(tiny_backbone: MakeBackbone, options: dict[str, str]) -> None:
    network = channels_last(build_model("fssd300-lite", 2, backbone=tiny_backbone(), **options))
    config = TrainConfig(clip_norm=10.0, ema=0.9, amp="off")
    updater = Updater(network, config, torch.device("cpu"), Process(0, 1, 0))
    batch = batch_for(network)
    update(updater, batch, 0)  # the counter of Caffe's batch norm is read once
    with Watcher() as watcher:
        update(updater, batch, 1)
    assert watcher.waits == []
    assert updater.watch.look() is None


class Launches(Watcher):
    """Counts operators that start a kernel: those that return no view of an input."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        aliases = [one.alias_info for one in func._schema.returns]
        views = bool(aliases) and all(one is not None and not one.is_write for one in aliases)
        allocates = func.name().startswith(("aten::empty", "aten::new_empty"))
        self.count += not views and not allocates
        return super().__torch_dispatch__(func, types, args, kwargs)


def test_the_loss_of_fssd300_is_few_launches_and_no_wait() -> None:
    """Of a batch of 32, with its gradient, whatever the number of objects; a launch is about 5 us."""
    head = build_model("fssd300-lite", 20).heads
    boxes = torch.tensor([[20.0, 30, 120, 140], [200, 50, 240, 90], [1, 1, 30, 300]])
    one = head.targets(boxes.numpy(), torch.tensor([0, 1, 7]).numpy())
    targets = {key: torch.stack([value] * 32) for key, value in one.items()}
    priors = len(targets["classes"][0])
    generator = torch.Generator().manual_seed(0)
    raw = [torch.randn(32, priors, width, generator=generator).requires_grad_() for width in (4, 21)]
    assert priors == 8732
    with Launches() as launches:
        head.loss(tuple(raw), targets)["loss"].backward()  # type: ignore[no-untyped-call]
    assert launches.waits == []
    assert 30 < launches.count < 150


def test_an_update_that_a_scaler_skips_counts_and_changes_no_weight(tiny_backbone: MakeBackbone) -> None:
    """Under fp16. The average of weights that stay is drawn to them; the scale is halved, as documented."""
    network = channels_last(build_model("fssd300-lite", 2, backbone=tiny_backbone()))
    updater = Updater(
        network, TrainConfig(clip_norm=10.0, ema=0.5, amp="off"), torch.device("cpu"), Process(0, 1, 0)
    )
    updater.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    batch = batch_for(network)
    update(updater, batch, 0)
    assert updater.scaler.get_scale() == 2.0**10
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    assert updater.average is not None
    average = {name: tensor.clone() for name, tensor in updater.average.tensors.items()}
    terms = updater.backward(batch, 1, last=True)
    next(network.parameters()).grad.fill_(float("inf"))  # type: ignore[union-attr]
    updater.clip(batch, terms, 1)
    updater.step(1e-3)
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name]), name
    assert updater.scaler.get_scale() == 2.0**9
    assert updater.watch.look() is None, "an overflow of the gradient is no failure"
    assert updater.average.updates == 2
    name = max(before, key=lambda key: float((before[key] - average[key]).abs().max()))
    share = 1 - 3 / 12  # the decay of the second update is (1 + 2) / (10 + 2), below 0.5
    expected = average[name] + share * (before[name] - average[name])
    torch.testing.assert_close(updater.average.tensors[name], expected)
    update(updater, batch, 2)
    assert any(not torch.equal(value, before[name]) for name, value in network.named_parameters())


def test_a_scaler_goes_on_through_the_saved_state(tmp_path: Path, tiny_backbone: MakeBackbone) -> None:
    """Scale and count of good steps: after 2 of 3 good steps it is saved, one more then doubles the scale."""
    network = channels_last(build_model("fssd300-lite", 2, backbone=tiny_backbone()))
    updater = Updater(network, TrainConfig(amp="off"), torch.device("cpu"), Process(0, 1, 0))
    updater.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    batch = batch_for(network)
    for iteration in range(2):
        update(updater, batch, iteration)
    path = tmp_path / "last.safetensors"
    content = Content(("a",), torch.zeros(1, dtype=torch.int64))
    scaler = updater.scaler.state_dict()
    save_state(path, network, updater.optimizer, None, scaler, Progress(2, None), content, {"format": 1})
    document = read_state(path)[1]
    resumed = Updater(network, TrainConfig(amp="off"), torch.device("cpu"), Process(0, 1, 0))
    resumed.scaler = torch.amp.GradScaler("cpu", growth_interval=100)
    resumed.scaler.load_state_dict(document["scaler"])
    assert resumed.scaler.get_scale() == 64.0
    update(resumed, batch, 2)
    assert resumed.scaler.get_scale() == 128.0


def test_the_watcher_sees_what_waits() -> None:
    x = torch.tensor([1.0, 2.0])
    for wait in (lambda: x[x > 1], lambda: bool(x.sum() > 0), lambda: x.sum().item(), x.nonzero):
        with Watcher() as watcher:
            wait()
        assert watcher.waits


def seen(what: str, iteration: int) -> Watched:
    return Watched(what, iteration, Batch(torch.zeros(1), {}, []), {})


def test_the_first_that_is_not_finite_is_found() -> None:
    watch = FiniteWatch(torch.device("cpu"))
    for iteration, value in enumerate((1.0, float("nan"), float("inf"))):
        watch.add(torch.tensor(value), seen("loss", iteration))
    bad = watch.look()
    assert bad is not None and bad.iteration == 1
    assert watch.look() is None, "what was looked at is forgotten"
    watch.add(torch.tensor(-float("inf")), seen("gradient", 7))
    bad = watch.look()
    assert bad is not None and (bad.what, bad.iteration) == ("gradient", 7)


def test_a_cpu_is_looked_at_before_every_update_and_a_gpu_every_few() -> None:
    assert all(FiniteWatch(torch.device("cpu")).is_due(iteration) for iteration in range(20))
    due = [iteration for iteration in range(20) if FiniteWatch(torch.device("cuda")).is_due(iteration)]
    assert due == list(range(LOOK_EVERY - 1, 20, LOOK_EVERY))


@pytest.mark.parametrize(("bad_call", "save_every", "kept"), [(3, 2, 2), (3, 3, 0), (6, 2, 4), (5, 10, 0)])
def test_no_file_holds_weights_from_after_a_bad_step(
    scenes: Path,
    tmp_path: Path,
    tiny_backbone: MakeBackbone,
    monkeypatch: pytest.MonkeyPatch,
    bad_call: int,
    save_every: int,
    kept: int,
) -> None:
    """With a GPU's rare looks: bad steps are taken, but the look before a file is written stops the run."""
    calls = 0
    real = MultiboxHead.loss

    def fail(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        terms = real(*arguments)
        return {**terms, "loss": terms["loss"] * float("nan")} if calls == bad_call else terms

    monkeypatch.setattr(MultiboxHead, "loss", fail)
    monkeypatch.setattr(FiniteWatch, "is_due", lambda *_: False)
    config = TrainConfig(
        data=scenes,
        out=tmp_path / "run",
        start="nothing",
        val_split=None,
        iterations=7,
        batch_size=2,
        save_every=save_every,
        workers=0,
        amp="off",
    )
    with pytest.raises(TrainingError, match=f"the loss is not finite at iteration {bad_call - 1} "):
        train(config, backbone=tiny_backbone())
    state = tmp_path / "run" / "last.safetensors"
    if not kept:
        assert not state.exists()
        return
    tensors, facts = read_tensors(state)
    assert facts["iteration"] == kept
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("name", "options", "unused"),
    [
        ("fssd300-lite", {}, False),
        ("fssd300-lite", {"variant": "narrow"}, False),
        ("fssd300-lite", {"sources": ["stride8", "stride16"]}, True),
        ("ssd300-lite", {}, False),
        ("single300-lite", {}, True),
        ("single300-vgg16", {}, False),
        ("single300-vgg16", {"source": "conv4_3"}, True),
        ("fssd300-vgg16", {}, False),
        ("fssd300-vgg16", {"sources": ["conv3_3", "conv4_3"]}, True),
        ("dsod300-small", {}, False),
        ("dsod300-resnet50", {}, True),
        ("dssd320-resnet50", {}, False),
        ("fpn300-lite", {}, False),
        ("yolov2-128", {}, False),
    ],
)
def test_layers_that_get_no_gradient_are_noticed(name: str, options: dict[str, Any], unused: bool) -> None:
    with torch.device("meta"):
        network = build_model(name, 2, **options)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.num_batches_tracked = torch.zeros((), dtype=torch.int64)  # Caffe's reads it
    before = torch.get_rng_state()
    assert leaves_layers_unused(network) == unused
    assert torch.get_rng_state().equal(before)
    assert all(parameter.grad is None for parameter in network.parameters())
    network.backbone.requires_grad_(False)
    assert not leaves_layers_unused(network), "nothing waits for the gradients of frozen layers"


def test_a_backbone_of_the_users_may_leave_layers_unused(tiny_backbone: MakeBackbone) -> None:
    assert leaves_layers_unused(build_model("fssd300-lite", 2, backbone=tiny_backbone()))
