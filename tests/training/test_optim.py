"""Parameter groups and learning rates against the solver files of SSD and FSSD."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import nn

from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.necks.neck import Neck
from fssd.training.optim import learning_rate, make_optimizer, set_lr

DECAY = 5e-4


@cache
def network(name: str, norm: str = "batch") -> Network:
    """Shapes alone, without values: groups go by name."""
    options = {} if norm == "batch" else {"norm": norm}
    with torch.device("meta"):
        return build_model(name, 20, **options)


def settings_of(net: Network, **options: float) -> dict[str, tuple[float, float]]:
    """(rate multiple, decay) of each parameter by name; every parameter must be there once."""
    optimizer = make_optimizer(net, momentum=0.9, weight_decay=DECAY, **options)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found: dict[str, tuple[float, float]] = {}
    for group in optimizer.param_groups:
        assert group["momentum"] == 0.9
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = (group["lr_scale"], group["weight_decay"])
    assert set(found) == set(names.values())
    return found


def is_norm(net: Network, name: str) -> bool:
    return isinstance(net.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d)


@pytest.mark.parametrize("name", ["ssd300-vgg16", "ssd512-vgg16", "fssd300-vgg16", "fssd512-vgg16"])
def test_biases_learn_twice_as_fast_and_do_not_decay(name: str) -> None:
    found = settings_of(network(name))
    assert found["backbone.conv1_1.weight"] == (1, DECAY)
    assert found["backbone.conv1_1.bias"] == (2, 0)
    for key, value in found.items():
        assert value == ((2, 0) if key.endswith("bias") else (1, DECAY)), key


def test_l2norm_scale_learns_as_a_weight() -> None:
    assert settings_of(network("ssd300-vgg16"))["neck.scale.weight"] == (1, DECAY)


@pytest.mark.parametrize("size", [300, 512])
def test_new_layers_learn_twice_as_fast(size: int) -> None:
    found = settings_of(network(f"fssd{size}-vgg16"), new_layers_lr=2.0)
    pyramid = [1, 2, 4, 8, 16, 32] + [64] * (size == 512)
    new = {f"neck.fusion.transform.{source}.0" for source in ("conv4_3", "fc7")}
    new |= {f"neck.pyramid.blocks.ds_{i}.0" for i in pyramid}
    new |= {f"heads.{kind}.{i}" for kind in ("loc", "conf") for i in range(len(pyramid))}
    if size == 300:  # the 512 script leaves conv7_2 at the common rate
        new.add("neck.extras.conv7_2.0")
    for layer in new:
        assert found.pop(f"{layer}.weight") == (2, DECAY)
        assert found.pop(f"{layer}.bias") == (4, 0)
    # VGG16's 13 convolutions, fc6, fc7, and the extra layers that an SSD has too.
    kept = ["conv6_1", "conv6_2", "conv7_1"] + ["conv7_2"] * (size == 512)
    assert len(found) == 2 * (15 + len(kept))
    assert {f"neck.extras.{layer}.0.weight" for layer in kept} <= set(found)
    for key, value in found.items():
        assert value == ((2, 0) if key.endswith("bias") else (1, DECAY)), key


@pytest.mark.parametrize("name", ["fssd300-lite", "ssd300-lite"])
def test_normalisation_does_not_decay(name: str) -> None:
    net = network(name)
    found = settings_of(net)
    norms = [key for key in found if is_norm(net, key)]
    assert len(norms) > 100
    for key, (scale, decay) in found.items():
        assert scale == (2 if key.endswith("bias") else 1), key
        assert decay == (0 if key.endswith("bias") or key in norms else DECAY), key


def test_norms_of_the_body_decay_where_asked_and_those_of_the_heads_never() -> None:
    """DSOD's solver: the body's Scale layers have Caffe's defaults, rate 1 and decay 1; those of heads 0."""
    net = network("dsod300-small")
    found = settings_of(net, bias_lr=1.0, norm_decay=1.0)
    for key, value in found.items():
        assert value == (1, 0 if key.startswith("heads.") and is_norm(net, key) else DECAY), key
    assert sum(is_norm(net, key) for key in found) == 2 * (80 + 12)
    half = settings_of(net, norm_decay=0.5)
    assert half["neck.learned.0.0.weight"] == (1, DECAY / 2) and half["neck.learned.0.0.bias"] == (
        2,
        DECAY / 2,
    )


def test_affine_fusion_norm_is_new_and_does_not_decay() -> None:
    found = settings_of(network("fssd300-vgg16", "batch-affine"), new_layers_lr=2.0)
    assert found["neck.fusion.norm.weight"] == (2, 0)
    assert found["neck.fusion.norm.bias"] == (4, 0)


def test_other_bias_rate() -> None:
    found = settings_of(network("fssd300-vgg16"), bias_lr=1.0, new_layers_lr=3.0)
    assert found["backbone.fc6.bias"] == (1, 0)
    assert found["heads.loc.0.bias"] == (3, 0)
    assert found["heads.loc.0.weight"] == (3, DECAY)


def test_shifts_of_norms_have_a_rate_of_their_own() -> None:
    """DSSD: beta has rate 1, the biases of heads and deconvolutions 2; nothing of it decays."""
    net = network("ssd321-resnet101")
    found = settings_of(net, norm_bias_lr=1.0)
    shifts = [key for key in found if is_norm(net, key) and key.endswith("bias")]
    assert len(shifts) > 100 and all(found[key] == (1, 0) for key in shifts)
    assert found["heads.loc.0.bias"] == (2, 0)


def test_backbone_has_a_rate_of_its_own() -> None:
    found = settings_of(network("fssd300-vgg16"), backbone_lr=0.25, new_layers_lr=2.0)
    assert found["backbone.conv1_1.weight"] == (0.25, DECAY)
    assert found["backbone.fc7.bias"] == (0.5, 0)
    assert found["neck.extras.conv6_1.0.weight"] == (1, DECAY)
    assert found["neck.pyramid.blocks.ds_1.0.weight"] == (2, DECAY)


class Toy(nn.Module):
    """The three places that the groups ask about, one number each."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(1, 1, 1)
        self.neck = Neck([1], [(1, 1)], [(1.0, 1.0)])
        self.neck.fusion = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
        self.heads = nn.Conv2d(1, 1, 1)


def test_two_steps_by_hand() -> None:
    toy = Toy()
    with torch.no_grad():
        for parameter in toy.parameters():
            parameter.fill_(1.0)
    optimizer = make_optimizer(toy, momentum=0.9, weight_decay=0.5, new_layers_lr=2.0)  # type: ignore[arg-type]
    set_lr(optimizer, 0.1)
    for _ in range(2):
        for parameter in toy.parameters():
            parameter.grad = torch.full_like(parameter, 0.2)
        optimizer.step()
    # v = 0.9 v + g + decay * w; w = w - rate * v.
    # Weight, rate 0.1, decay 0.5: v = 0.7, w = 0.93; v = 0.63 + 0.2 + 0.465 = 1.295, w = 0.8005.
    assert toy.backbone.weight.item() == pytest.approx(0.8005, abs=1e-6)
    # Bias, rate 0.2, no decay: v = 0.2, w = 0.96; v = 0.38, w = 0.884.
    assert toy.backbone.bias.item() == pytest.approx(0.884, abs=1e-6)
    # New weight, rate 0.2, decay 0.5: v = 0.7, w = 0.86; v = 0.63 + 0.2 + 0.43 = 1.26, w = 0.608.
    for layer in (toy.heads, toy.neck.fusion[0]):
        assert layer.weight.item() == pytest.approx(0.608, abs=1e-6)
        # New bias, rate 0.4, no decay: 1 - 0.08 - 0.4 * 0.38 = 0.768.
        assert layer.bias.item() == pytest.approx(0.768, abs=1e-6)
    # New scale, rate 0.2, no decay: as the old bias.
    assert toy.neck.fusion[1].weight.item() == pytest.approx(0.884, abs=1e-6)


def test_set_lr_keeps_the_multiples() -> None:
    optimizer = make_optimizer(network("fssd300-vgg16"), momentum=0.9, weight_decay=DECAY, new_layers_lr=2.0)
    for rate in (1e-3, 1e-4):
        set_lr(optimizer, rate)
        set_lr(optimizer, rate)  # not cumulative
        rates = sorted({group["lr"] for group in optimizer.param_groups})
        assert rates == pytest.approx([rate, 2 * rate, 4 * rate], rel=1e-12)


# --- Rates --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(80_000, 100_000), ()])
@pytest.mark.parametrize(
    ("iteration", "wanted"),
    [
        (0, 1e-3),
        (79_999, 1e-3),
        (80_000, 1e-4),
        (99_999, 1e-4),
        (100_000, 1e-5),
        (119_999, 1e-5),
    ],
)
def test_multistep_of_the_paper(iteration: int, wanted: float, steps: tuple[int, ...]) -> None:
    rate = learning_rate(iteration, base=1e-3, total=120_000, schedule="multistep", steps=steps)
    assert rate == pytest.approx(wanted, rel=1e-9)


def test_multistep_with_three_steps() -> None:
    # The from-SSD script: 5e-4, divided at 20k, 40k, 60k.
    wanted = {19_999: 5e-4, 20_000: 5e-5, 40_000: 5e-6, 60_000: 5e-7}
    for iteration, rate in wanted.items():
        found = learning_rate(
            iteration, base=5e-4, total=80_000, schedule="multistep", steps=(20_000, 40_000, 60_000)
        )
        assert found == pytest.approx(rate, rel=1e-9)


@pytest.mark.parametrize("schedule", ["multistep", "cosine", "constant"])
def test_warmup_rises_from_a_hundredth(schedule: str) -> None:
    rates = [
        learning_rate(i, base=0.02, total=10_000, schedule=schedule, warmup=100) for i in (0, 25, 50, 100)
    ]
    # 1 % + 99 % * (0, 1/4, 1/2), then the full rate.
    assert rates == pytest.approx([0.0002, 0.02 * 0.2575, 0.02 * 0.505, 0.02], rel=1e-9)


def test_cosine_by_hand() -> None:
    def rate(iteration: int, warmup: int = 0) -> float:
        return learning_rate(iteration, base=1.0, total=1200, schedule="cosine", warmup=warmup)

    assert rate(0) == 1
    assert rate(400) == pytest.approx(0.75)  # (1 + cos 60 degrees) / 2
    assert rate(600) == pytest.approx(0.5)
    assert rate(800) == pytest.approx(0.25)
    # The last iteration: (1 - cos(pi / 1200)) / 2, close to pi^2 / (4 * 1200^2).
    assert rate(1199) == pytest.approx(math.pi**2 / 4 / 1200**2, rel=1e-4)
    # After 200 iterations of warm-up the fall takes the other 1000.
    assert rate(200, 200) == 1
    assert rate(700, 200) == pytest.approx(0.5)
    falling = [rate(i, 200) for i in range(200, 1200)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] > 0


def test_cosine_of_a_run_no_longer_than_its_warmup() -> None:
    rates = [learning_rate(i, base=1.0, total=5, schedule="cosine", warmup=10) for i in range(5)]
    assert rates == pytest.approx([0.01, 0.109, 0.208, 0.307, 0.406])


def test_constant_stays() -> None:
    assert {learning_rate(i, base=0.3, total=10, schedule="constant") for i in range(10)} == {0.3}


def test_burn_in_is_darknets_power() -> None:
    """lr * (b / 1000)^4 for update b = 1, 2, ...; then the steps."""
    rate = {
        b: learning_rate(
            b - 1,
            base=1e-3,
            total=80_200,
            schedule="multistep",
            steps=(40_000, 60_000),
            warmup=1000,
            warmup_power=4.0,
        )
        for b in (1, 10, 500, 1000, 1001, 40_001)
    }
    assert rate[1] == pytest.approx(1e-15)
    assert rate[10] == pytest.approx(1e-11)
    assert rate[500] == pytest.approx(6.25e-5)
    assert rate[1000] == pytest.approx(1e-3) == rate[1001]
    assert rate[40_001] == pytest.approx(1e-4)
