"""Batch norms of several processes against one norm that sees all their images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from fssd.errors import ConfigError
from fssd.layers.joint_norm import JointBatchNorm, JointCaffeBatchNorm, join_norms
from fssd.layers.norms import CaffeBatchNorm

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
SIZES = (3, 1)  # images of each process
STEPS = 3


def images(step: int) -> Tensor:
    return torch.randn(sum(SIZES), 4, 5, 6, generator=torch.Generator().manual_seed(step)).double() * 3 + 2


def make(kind: str) -> nn.BatchNorm2d:
    if kind == "caffe":
        return CaffeBatchNorm(4, fraction=0.9, affine=True).double()
    return nn.BatchNorm2d(4, eps=1e-3, momentum=0.03).double()


def run(norm: nn.BatchNorm2d, part: slice) -> dict[str, Tensor]:
    """Outputs, gradients and statistics after some steps; the loss is a sum over images."""
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 3.0]))
    found = {}
    for step in range(STEPS):
        x = images(step)[part].requires_grad_()
        y = norm(x)
        (y**3 * images(step + 50)[part]).sum().backward()
        assert x.grad is not None
        found |= {f"y{step}": y.detach(), f"x{step}": x.grad}
    assert norm.weight.grad is not None and norm.bias.grad is not None
    found |= {"weight": norm.weight.grad, "bias": norm.bias.grad}
    return found | dict(norm.named_buffers())


def one_process(rank: int, kind: str, folder: str) -> None:
    store = f"file://{folder}/store-{kind}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=len(SIZES))
    norm = make(kind)
    join_norms(norm)
    start = sum(SIZES[:rank])
    torch.save(run(norm, slice(start, start + SIZES[rank])), f"{folder}/{kind}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["caffe", "torch"])
def test_two_processes_are_one_norm(kind: str, tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("fork")
    started = [context.Process(target=one_process, args=(rank, kind, str(tmp_path))) for rank in (0, 1)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
        assert process.exitcode == 0
    parts = [torch.load(tmp_path / f"{kind}-{rank}.pt") for rank in (0, 1)]
    whole = run(make(kind), slice(None))
    for step in range(STEPS):
        for key in (f"y{step}", f"x{step}"):
            torch.testing.assert_close(torch.cat([part[key] for part in parts]), whole[key])
    for key in ("weight", "bias"):
        torch.testing.assert_close(parts[0][key] + parts[1][key], whole[key])
    for part in parts:
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(part[key], whole[key])


def test_kinds_and_names_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), CaffeBatchNorm(4))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    join_norms(network)
    assert [type(module) for module in network][1:] == [JointBatchNorm, JointCaffeBatchNorm]
    assert network.state_dict().keys() == before.keys()
    network.eval()
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), CaffeBatchNorm(4))
    plain.load_state_dict(before)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(network(x), plain.eval()(x))


def test_what_cannot_be_joined_is_named() -> None:
    with pytest.raises(ConfigError, match="no batch norm; leave --sync-norm out"):
        join_norms(nn.Conv2d(3, 4, 1))

    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(ConfigError, match="not Own"):
        join_norms(nn.Sequential(nn.Conv2d(3, 4, 1), Own(4)))
