"""The moving average of weights against a plain loop over numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fssd.training.ema import Average, lent


def module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def wander(net: nn.Module, seed: int) -> None:
    """Move weights and statistics, as a training step would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(1)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.998])
def test_equals_plain_loop(decay: float) -> None:
    net = module()
    average = Average(net, decay)
    plain = {name: tensor.flatten().tolist() for name, tensor in net.state_dict().items()}
    for t in range(1, 41):
        wander(net, t)
        average.update(net)
        now = min(decay, (1 + t) / (10 + t))  # 2/11, 3/12, ...: reaches 0.3 at t = 3, 0.5 at t = 8
        for name, tensor in net.state_dict().items():
            values = tensor.flatten().tolist()
            if name.endswith("num_batches_tracked"):
                plain[name] = values
            else:
                plain[name] = [now * a + (1 - now) * b for a, b in zip(plain[name], values, strict=True)]
    assert average.updates == 40
    for name, tensor in average.tensors.items():
        assert tensor.flatten().tolist() == pytest.approx(plain[name], rel=1e-4, abs=1e-4), name


def test_lists_of_tensors_have_the_bytes_of_one_after_the_other() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 70, 3), nn.BatchNorm2d(70), nn.Linear(70, 9).double()).to(
        memory_format=torch.channels_last
    )
    average = Average(net, 0.998)
    single = {name: tensor.clone() for name, tensor in average.tensors.items()}
    for t in range(1, 8):
        wander(net, t)
        average.update(net)
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                single[name].lerp_(tensor, 1 - (1 + t) / (10 + t))
    for name, tensor in single.items():
        if tensor.is_floating_point():
            assert torch.equal(tensor, average.tensors[name]), name


def test_first_update_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(11.0)
    average = Average(net, 0.9)
    with torch.no_grad():
        net.weight.fill_(22.0)
    average.update(net)  # decay 2/11: 2/11 * 11 + 9/11 * 22 = 2 + 18
    assert average.tensors["weight"].item() == pytest.approx(20.0, abs=1e-5)


def test_whole_numbers_are_copied() -> None:
    net = module()
    average = Average(net, 0.998)
    for step in range(5):
        wander(net, step)
        average.update(net)
    count = average.tensors["1.num_batches_tracked"]
    assert count.dtype == torch.int64
    assert count.item() == 5


def test_the_average_is_a_copy() -> None:
    net = module()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    average = Average(net, 0.5)
    wander(net, 1)
    for name, tensor in average.tensors.items():
        assert torch.equal(tensor, before[name])
        assert not tensor.requires_grad


@pytest.mark.parametrize("fails", [False, True])
def test_weights_are_lent_and_given_back(fails: bool) -> None:
    net = module()
    average = Average(net, 0.5)
    wander(net, 1)
    average.update(net)
    own = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kept = {name: tensor.clone() for name, tensor in average.tensors.items()}
    weight = net.get_parameter("0.weight")
    try:
        with lent(net, average.tensors):
            for name, tensor in net.state_dict().items():
                assert torch.equal(tensor, kept[name])
            assert not torch.equal(weight, own["0.weight"])
            if fails:
                raise KeyError("evaluation failed")
    except KeyError:
        assert fails
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, own[name])
        assert torch.equal(average.tensors[name], kept[name])
    assert net.get_parameter("0.weight") is weight  # an optimiser still holds the right tensor


def test_what_the_borrower_changes_does_not_reach_the_average() -> None:
    net = module()
    average = Average(net, 0.5)
    kept = {name: tensor.clone() for name, tensor in average.tensors.items()}
    with lent(net, average.tensors):
        wander(net, 3)
    for name, tensor in average.tensors.items():
        assert torch.equal(tensor, kept[name])


def test_restored_average_goes_on_as_if_never_stopped() -> None:
    net = module()
    one = Average(net, 0.9)
    for step in range(4):
        wander(net, step)
        one.update(net)
    saved = {name: tensor.clone() for name, tensor in one.tensors.items()}
    other = Average(module(seed=5), 0.9)
    other.restore(saved, one.updates)
    for step in range(4, 8):
        wander(net, step)
        one.update(net)
        other.update(net)
    assert one.updates == other.updates == 8
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name])
