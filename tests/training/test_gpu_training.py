"""Training and detection on a GPU against the CPU. Where there is no GPU these are skipped.

With FSSD_TEST_DEVICE=cpu they run on a CPU, which tries the tests themselves.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from fssd.config.train_config import Amp, Kernels, TrainConfig
from fssd.data.batch import Batch
from fssd.data.scenes import make_scenes
from fssd.export.images import make_pictures
from fssd.heads.head import Thresholds
from fssd.inference.detector import Detector
from fssd.layers.norms import CaffeBatchNorm
from fssd.model.build import build_model
from fssd.model.network import Network, channels_last
from fssd.runtimes.cuda import CudaRunner
from fssd.training.distributed import Process
from fssd.training.ema import Average
from fssd.training.loop import train
from fssd.training.prefetch import on_device
from fssd.training.step import Updater
from fssd.weights.checkpoint import read_tensors

pytestmark = pytest.mark.cuda
MakeBackbone = Callable[[], nn.Module]
ALONE = Process(0, 1, 0)


@pytest.fixture(scope="module")
def device() -> torch.device:
    return torch.device(os.environ.get("FSSD_TEST_DEVICE", "cuda"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn", reason="the scenes need scikit-learn")
    pytest.importorskip("skimage", reason="the scenes need scikit-image")
    return make_scenes(tmp_path_factory.mktemp("gpu") / "scenes", train=12, val=4)


@contextmanager
def deterministic() -> Iterator[None]:
    """Full float32 products, and kernels that add in a fixed order where there are any."""
    before = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.use_deterministic_algorithms(False)
        if before is None:
            del os.environ["CUBLAS_WORKSPACE_CONFIG"]


def network_of(name: str, backbone: nn.Module | None = None) -> Network:
    options = {} if backbone is None else {"backbone": backbone}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return channels_last(build_model(name, 3, **options))


def batch_of(network: Network, count: int) -> Batch:
    boxes = np.array([[20.0, 30, 120, 140], [200, 50, 240, 90]], np.float32)
    one = network.heads.targets(boxes, np.array([0, 2]))
    targets = {key: torch.stack([value] * count) for key, value in one.items()}
    return Batch(make_pictures(count, network.image_size), targets, ["noise"] * count)


@cache
def losses_on_the_cpu(name: str) -> list[float]:
    """In float32, of the first two updates."""
    return first_losses(name, "off", torch.device("cpu"), 2)


def first_losses(
    name: str, amp: Amp, device: torch.device, updates: int, distributed: bool = False
) -> list[float]:
    """The loss before each of so many updates. distributed: through DistributedDataParallel."""
    network = network_of(name).to(device)
    config = TrainConfig(amp=amp, clip_norm=10.0, ema=0.0)
    updater, batch = Updater(network.train(), config, device, ALONE), batch_of(network, 4)
    if distributed:
        updater.model = nn.parallel.DistributedDataParallel(updater.model, broadcast_buffers=False)
    losses = []
    for index in range(updates):
        terms = updater.backward(batch, index, last=True)
        updater.clip(batch, terms, index)
        updater.step(1e-4)
        losses.append(float(terms["loss"]))
    return losses


AMPS = pytest.mark.parametrize(("amp", "tolerance"), [("off", 1e-3), ("bf16", 1e-2), ("fp16", 2e-3)])


@pytest.mark.parametrize("name", ["fssd300-lite", "rssd300-lite", "fpn300-lite"])
@AMPS
def test_a_step_has_the_loss_of_the_cpu(device: torch.device, name: str, amp: Amp, tolerance: float) -> None:
    """In float32 to 1e-3; bf16 has 8 bits of fraction (4e-3), fp16 11 (5e-4).

    The second loss depends on the gradients of the first.
    """
    if amp == "fp16" and device.type == "cpu":
        pytest.skip("no fp16 training on a CPU")
    with deterministic():
        reference = losses_on_the_cpu(name)
        found = first_losses(name, amp, device, 2)
    assert found == pytest.approx(reference, rel=tolerance)
    assert reference[0] != reference[1]


@pytest.mark.parametrize("name", ["ssd300-lite", "fssd300-lite", "rssd300-lite", "fpn300-lite"])
def test_every_gradient_is_that_of_the_cpu(device: torch.device, name: str) -> None:
    """Parameter by parameter, so that a wrong kernel is named: norm of the difference over the gradient's.

    Not in bf16: with random weights its rounding alone turns the gradients of the first layers around.
    """
    gradients = []
    with deterministic():
        for where in (torch.device("cpu"), device):
            network = network_of(name).to(where).train()
            config = TrainConfig(amp="off", clip_norm=0.0, ema=0.0)
            Updater(network, config, where, ALONE).backward(batch_of(network, 4), 0, last=True)
            parameters = dict(network.named_parameters())
            gradients.append({key: one.grad.cpu() for key, one in parameters.items() if one.grad is not None})
    expected, found = gradients
    assert expected.keys() == found.keys()
    least = 1e-4 * max(float(one.norm()) for one in expected.values())
    errors = {key: float((found[key] - one).norm() / (one.norm() + least)) for key, one in expected.items()}
    assert {key: error for key, error in errors.items() if error > 1e-2} == {}


LAYERS = {
    "deconvolution, depthwise": nn.ConvTranspose2d(64, 64, 2, stride=2, groups=64),
    "deconvolution, depthwise, one cell less": nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1, groups=64),
    "deconvolution": nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1),
    "depthwise": nn.Conv2d(64, 64, 3, stride=2, padding=1, groups=64),
    "max pool": nn.MaxPool2d(2, stride=2, ceil_mode=True),
    "max pool, overlapping": nn.MaxPool2d(3, stride=2, ceil_mode=True),
    "average pool": nn.AvgPool2d(2, stride=2, ceil_mode=True),
    "norm": CaffeBatchNorm(64, affine=True),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("amp", "tolerance"), [("off", 1e-4), ("bf16", 1e-2), ("fp16", 2e-3)])
@pytest.mark.parametrize("cells", [(19, 19), (5, 3), (1, 1)])
def test_every_layer_is_that_of_the_cpu(
    device: torch.device, name: str, amp: Amp, tolerance: float, cells: tuple[int, int]
) -> None:
    """Output and gradients in each precision, against float32 on the same rounded numbers."""
    if cells == (1, 1) and "pool" in name:
        pytest.skip("nothing to pool")
    dtype = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    generator = torch.Generator().manual_seed(0)
    layer = channels_last(copy.deepcopy(LAYERS[name]))
    for parameter in layer.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator).to(dtype))
    x = torch.randn(8, 64, *cells, generator=generator).to(dtype).to(memory_format=torch.channels_last)
    back = torch.randn(layer(x.float()).shape, generator=generator).to(dtype)
    results = []
    with deterministic():
        for where, precision in ((torch.device("cpu"), torch.float32), (device, dtype)):
            module = copy.deepcopy(layer).to(where).train()
            given = x.to(where, torch.float32).requires_grad_()
            with torch.autocast(where.type, precision, enabled=precision != torch.float32):
                out = module(given.to(precision))
            out.backward(back.to(where, out.dtype))
            results.append([out, given.grad, *(one.grad for one in module.parameters())])
    for one, other in zip(*results, strict=True):
        assert one is not None and other is not None
        error = (other.detach().cpu().float() - one.detach()).norm() / one.detach().norm().clamp(min=1e-6)
        assert float(error) < tolerance


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_resumed_run_ends_as_one_that_was_not_stopped(
    device: torch.device, data: Path, tmp_path: Path, tiny_backbone: MakeBackbone, amp: Amp
) -> None:
    out = tmp_path / "run"
    config = TrainConfig(
        model="fssd300-lite",
        data=data,
        out=out,
        start="nothing",
        iterations=4,
        batch_size=4,
        warmup=0,
        ema=0.9,
        save_every=1,
        val_split="none",
        augment="mild",
        amp=amp,
        device=str(device),
    )
    with deterministic():
        train(config, backbone=tiny_backbone())
        out.rename(tmp_path / "whole")
        while not train(config, resume=True, minutes=1e-9, backbone=tiny_backbone()).finished:
            pass
    for name in ("last.safetensors", "final.safetensors"):
        whole, again = (read_tensors(tmp_path / folder / name)[0] for folder in ("whole", "run"))
        assert whole.keys() == again.keys()
        different = [key for key in whole if not torch.equal(whole[key], again[key])]
        assert not different, f"{name}: {len(different)} of {len(whole)} tensors differ: {different[:5]}"


def test_detections_are_those_of_the_cpu(device: torch.device, tiny_backbone: MakeBackbone) -> None:
    """Network, decoding and NMS in float32: the same objects, to a hundredth of a pixel."""
    network = network_of("fssd300-lite", tiny_backbone()).eval()
    pictures = [image.permute(1, 2, 0).numpy() for image in make_pictures(3, (300, 300))]
    with deterministic():
        expected = [Detector(network, ("a", "b", "c"))(image, score=0.3) for image in pictures]
        moved = network.to(device)
        found = [Detector(moved, ("a", "b", "c"))(image, score=0.3) for image in pictures]
    network.to("cpu")
    assert sum(len(one.scores) for one in expected) > 0
    for one, other in zip(expected, found, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


def test_nms_is_that_of_the_cpu(device: torch.device) -> None:
    """On the same predictions, crowded: every prior is above the threshold."""
    network = network_of("ssd300-lite").eval()
    generator = torch.Generator().manual_seed(0)
    count = len(network.heads.priors)
    raw = (
        torch.randn(2, count, 4, generator=generator),
        2 * torch.randn(2, count, 4, generator=generator),
    )
    expected = network.heads.detect(raw, Thresholds())
    on_device = network.heads.to(device).detect(tuple(x.to(device) for x in raw), Thresholds())
    for one, other in zip(expected, on_device, strict=True):
        assert len(one.scores) == 200
        assert other.boxes.device.type == "cpu"
        assert one.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(other.boxes.cpu(), one.boxes, atol=1e-3, rtol=1e-5)


def test_a_graph_of_the_runner_detects_what_the_detector_does(
    device: torch.device, tiny_backbone: MakeBackbone
) -> None:
    if device.type != "cuda":
        pytest.skip("a CUDA graph needs CUDA")
    network = network_of("fssd300-lite", tiny_backbone()).eval().to(device)
    image = make_pictures(1, (300, 300))[0].permute(1, 2, 0).numpy()
    with deterministic():
        expected = Detector(network, ("a", "b", "c"))(image, score=0.3)
        found = Detector(CudaRunner(network, torch.float32), ("a", "b", "c"))(image, score=0.3)
    assert len(expected.scores) > 0
    assert expected.labels.tolist() == found.labels.tolist()
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.05)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_step_waits_for_nothing(device: torch.device, tiny_backbone: MakeBackbone, amp: Amp) -> None:
    """With clipping, average and scaler: CUDA itself raises an error for a call that would wait."""
    if device.type != "cuda":
        pytest.skip("only CUDA reports what waits")
    network = network_of("fssd300-lite", tiny_backbone()).to(device).train()
    updater = Updater(network, TrainConfig(amp=amp, clip_norm=10.0, ema=0.9), device, ALONE)
    batch = batch_of(network, 4)
    batch = batch._replace(
        images=batch.images.pin_memory(),
        targets={key: value.pin_memory() for key, value in batch.targets.items()},
    )
    for index in range(4):
        if index == 1:  # counters are read back once, in the first step
            torch.cuda.set_sync_debug_mode("error")
        try:
            terms = updater.backward(batch, index, last=True)
            updater.clip(batch, terms, index)
            updater.step(1e-4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert updater.watch.look() is None


def test_batches_are_copied_beside_the_step_and_arrive_whole(device: torch.device) -> None:
    def batches() -> Iterator[Batch]:
        for number in range(12):
            images = torch.full((8, 3, 300, 300), number, dtype=torch.uint8)
            targets = {"classes": torch.full((8, 8732), number, dtype=torch.int16)}
            if device.type == "cuda":
                images, targets = images.pin_memory(), {key: one.pin_memory() for key, one in targets.items()}
            yield Batch(images, targets, [str(number)] * 8)

    sums = []
    for batch in on_device(batches(), device):  # type: ignore[arg-type]
        assert batch.images.device.type == batch.targets["classes"].device.type == device.type
        work = torch.randn(1500, 1500, device=device) @ torch.randn(1500, 1500, device=device)
        sums.append((batch.images.float().mean() + 0 * work.sum(), batch.targets["classes"].float().mean()))
    assert [(float(a), float(b)) for a, b in sums] == [(number, number) for number in range(12)]


def test_the_average_in_lists_is_that_of_the_cpu(device: torch.device, tiny_backbone: MakeBackbone) -> None:
    network = network_of("fssd300-lite", tiny_backbone())
    moved = network_of("fssd300-lite", tiny_backbone()).to(device)
    moved.load_state_dict(network.state_dict())
    averages = Average(network, 0.9), Average(moved, 0.9)
    with torch.no_grad():
        for one, average in zip((network, moved), averages, strict=True):
            for _ in range(3):
                for tensor in one.state_dict().values():
                    tensor.mul_(2)
                average.update(one)
    for name, tensor in averages[0].tensors.items():
        torch.testing.assert_close(averages[1].tensors[name].cpu(), tensor)


@pytest.mark.parametrize("kernels", ["deterministic", "benchmark"])
def test_kernels_of_each_choice_train(
    device: torch.device, data: Path, tmp_path: Path, tiny_backbone: MakeBackbone, kernels: Kernels
) -> None:
    """Workers are forked while CUDA is in use. With deterministic ones two runs end in the same bytes."""
    if device.type != "cuda":
        pytest.skip("a CPU has no choice of kernels")
    for name in ("one", "two"):
        config = TrainConfig(
            data=data,
            out=tmp_path / name,
            start="nothing",
            iterations=3,
            batch_size=4,
            workers=2,
            device=str(device),
            kernels=kernels,
        )
        train(config, backbone=tiny_backbone())
    one, two = (read_tensors(tmp_path / name / "final.safetensors")[0] for name in ("one", "two"))
    if kernels == "deterministic":
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_group_of_one_process(device: torch.device, tmp_path: Path) -> None:
    """NCCL (gloo on a CPU) starts, and the step through DistributedDataParallel is the plain one."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    plain = first_losses("fssd300-lite", "off", device, 2)
    dist.init_process_group(backend, init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        total = torch.ones(3, device=device)
        dist.all_reduce(total)
        assert total.tolist() == [1, 1, 1]
        losses = first_losses("fssd300-lite", "off", device, 2, distributed=True)
    finally:
        dist.destroy_process_group()
    assert losses == pytest.approx(plain, rel=1e-3)


@AMPS
def test_a_step_of_vgg16_has_the_loss_of_the_cpu(device: torch.device, amp: Amp, tolerance: float) -> None:
    """Last, because the CPU takes long for it."""
    test_a_step_has_the_loss_of_the_cpu(device, "fssd300-vgg16", amp, tolerance)
