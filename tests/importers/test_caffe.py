"""Imported networks compute what Caffe's definition does, and other files are told apart.

The reference is written straight from the networks' definition on the raw blobs: BGR images less a BGR mean,
pooling that rounds up, Interp's ratio (in - 1) / (out - 1), sums of BatchNorm over their counter.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.errors import CheckpointError, ConfigError
from fssd.importers import caffe as module
from fssd.importers.caffe import import_caffe
from fssd.importers.foreign import Imported
from fssd.model.build import build_model
from fssd.weights.checkpoint import fill

pytest.importorskip("google.protobuf", reason="the files are written with protobuf: pip install protobuf")
_spec = importlib.util.spec_from_file_location("caffe_writer", Path(__file__).with_name("caffe_writer.py"))
assert _spec is not None and _spec.loader is not None
writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writer)

Layers = dict[str, list[Tensor]]
FLAT = writer.Maker(real=False)  # the right shapes, without memory


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Imports layers as if a file held them: reading is tested on its own."""

    def run(layers: Layers, name: str, **options: str) -> Imported:
        monkeypatch.setattr(module, "read_caffemodel", lambda _: {k: list(v) for k, v in layers.items()})
        return import_caffe(tmp_path / "some.caffemodel", name, **options)

    return run


# ---- the reference


def conv(layers: Layers, name: str, x: Tensor, **how: int) -> Tensor:
    return F.conv2d(x, *layers[name], **how)


def vgg(layers: Layers, images: Tensor) -> dict[str, Tensor]:
    x = images.flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    maps = {}
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        for number in range(1, count + 1):
            name = f"conv{stage}_{number}"
            maps[name] = x = conv(layers, name, x, padding=1).relu()
        x = F.max_pool2d(x, 2, 2, ceil_mode=True) if stage < 5 else F.max_pool2d(x, 3, 1, 1)
    x = conv(layers, "fc6", x, padding=6, dilation=6).relu()
    maps["fc7"] = conv(layers, "fc7", x).relu()
    return maps


def predict(layers: Layers, maps: dict[str, Tensor], classes: int) -> tuple[Tensor, Tensor]:
    rows = {"loc": 4, "conf": classes}
    found = {
        kind: [
            conv(layers, f"{name}_mbox_{kind}", x, padding=1).permute(0, 2, 3, 1).flatten()
            for name, x in maps.items()
        ]
        for kind in rows
    }
    return tuple(torch.cat(found[kind]).reshape(1, -1, rows[kind]) for kind in rows)  # type: ignore[return-value]


def ssd300(layers: Layers, maps: dict[str, Tensor], classes: int) -> tuple[Tensor, Tensor]:
    x = maps["conv4_3"]
    length = (x.square().sum(1, keepdim=True) + 1e-10).sqrt()
    levels = {"conv4_3_norm": x / length * layers["conv4_3_norm"][0][:, None, None], "fc7": maps["fc7"]}
    x = maps["fc7"]
    for number, (stride, padding) in {6: (2, 1), 7: (2, 1), 8: (1, 0), 9: (1, 0)}.items():
        x = conv(layers, f"conv{number}_1", x).relu()
        x = conv(layers, f"conv{number}_2", x, stride=stride, padding=padding).relu()
        levels[f"conv{number}_2"] = x
    return predict(layers, levels, classes)


def interp(x: Tensor, size: int) -> Tensor:
    """Caffe's Interp, written out: output cell i reads between input cells at i * (in - 1) / (out - 1)."""
    old = x.shape[-1]
    place = torch.arange(size, dtype=torch.float64) * (old - 1) / (size - 1)
    weights = (1 - (place[:, None] - torch.arange(old)).abs()).clamp(min=0).float()  # (size, old)
    return weights @ x @ weights.T


def fssd300(
    layers: Layers, maps: dict[str, Tensor], classes: int, *, with_conv3: bool
) -> tuple[Tensor, Tensor]:
    x = conv(layers, "conv6_1", maps["fc7"]).relu()
    x = conv(layers, "conv6_2", x, padding=1).relu()
    x = conv(layers, "conv7_1", x).relu()
    conv7_2 = conv(layers, "conv7_2", x, stride=2, padding=1).relu()
    assert conv7_2.shape[-1] == 10
    fused = [
        conv(layers, "conv4_3_reduce", maps["conv4_3"]).relu(),
        interp(conv(layers, "fc7_reduce", maps["fc7"]).relu(), 38),
        interp(conv7_2, 38),
    ]
    if with_conv3:
        fused.insert(0, F.max_pool2d(maps["conv3_3"], 2, 2, ceil_mode=True))
    mean, variance, counter = layers["fea_concat_bn"]
    x = torch.cat(fused, 1) - (mean / counter)[:, None, None]
    x = x / ((variance / counter)[:, None, None] + 1e-5).sqrt()
    levels = {}
    for stride, (step, padding) in {
        1: (1, 1),
        2: (2, 1),
        4: (2, 1),
        8: (2, 1),
        16: (1, 0),
        32: (1, 0),
    }.items():
        name = f"fea_concat_bn_ds_{stride}"
        levels[name] = x = conv(layers, name, x, stride=step, padding=padding).relu()
    return predict(layers, levels, classes)


# ---- whole networks


@pytest.fixture(scope="module")
def maker() -> writer.Maker:
    return writer.Maker()


@pytest.fixture(scope="module")
def backbone(maker: writer.Maker) -> Layers:
    return maker.vgg()


@pytest.fixture(scope="module")
def images() -> Tensor:
    torch.manual_seed(4)
    return torch.randint(0, 256, (1, 3, 300, 300)).float()


@pytest.fixture(scope="module")
def maps(backbone: Layers, images: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return vgg(backbone, images)


@pytest.mark.parametrize("kind", ["ssd", "fssd", "fssd with conv3_3"])
def test_outputs_are_those_of_the_definition(
    kind: str, maker: writer.Maker, backbone: Layers, images: Tensor, maps: dict[str, Tensor], tmp_path: Path
) -> None:
    with_conv3 = kind.endswith("conv3_3")
    if kind == "ssd":
        name, classes, layers = "ssd300-vgg16", 4, maker.ssd(backbone, classes=4)
        expected = ssd300(layers, maps, classes)
    else:
        name, classes = "fssd300-vgg16", 21
        anchors = (6, 6, 6, 4, 4, 4) if with_conv3 else ()
        layers = maker.fssd(backbone, fused=1024 if with_conv3 else 768, anchors=anchors)
        expected = fssd300(layers, maps, classes, with_conv3=with_conv3)
    file = tmp_path / "some.caffemodel"
    version, shapes = (1, "legacy") if with_conv3 else (2, "shape")
    file.write_bytes(writer.caffemodel(layers, data="bytes", version=version, shapes=shapes))
    found = import_caffe(file, name)
    assert (found.num_classes, found.unused) == (classes - 1, ())
    network = build_model(name, found.num_classes, **found.options).eval()
    fill(network, found.tensors, file)
    with torch.no_grad():  # the backbone was compared before the last kind, and takes the most time
        raw = network.heads(network.neck(maps)) if with_conv3 else network(images)
    for own, theirs in zip(raw, expected, strict=True):
        assert own.shape == theirs.shape
        assert 0.3 < float(theirs.std()) < 30
        assert float((own - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())
    # The priors follow: 8732, or 11570 with the anchors of an early script (spec of the released scripts)
    assert len(network.heads.priors) == (11570 if with_conv3 else 8732)


LEARNED = {  # parameters by the layers' table of each network, counted by hand
    ("ssd", 300, 21): 26_285_486, ("ssd", 300, 81): 34_305_206,
    ("ssd", 512, 21): 27_188_676, ("ssd", 512, 81): 36_038_196,
    ("fssd", 300, 21): 33_835_182, ("fssd", 300, 81): 39_366_582,
    ("fssd", 512, 21): 35_229_764, ("fssd", 512, 81): 41_590_964,
}  # fmt: skip


@pytest.mark.parametrize(("family", "size", "classes"), LEARNED)
def test_shapes_and_options_of_every_network(held, family: str, size: int, classes: int) -> None:
    layers = getattr(FLAT, family)(FLAT.vgg(), size, classes)
    name = f"{family}{size}-vgg16"
    found = held(layers, name)
    statistics = sum(t.numel() for key, t in found.tensors.items() if ".norm." in key)
    assert sum(t.numel() for t in found.tensors.values()) - statistics == LEARNED[family, size, classes]
    assert found.num_classes == classes - 1
    assert found.options == {"priors": "coco" if classes == 81 else "voc"}
    assert found.unused == ()
    with torch.device("meta"):
        own = build_model(name, classes - 1, **found.options).state_dict()
    assert {key: t.shape for key, t in found.tensors.items()} == {key: t.shape for key, t in own.items()}


# ---- what is read off the shapes


def test_priors_a_cell_are_inferred(held) -> None:
    committed = (4, 6, 6, 4, 4, 4)  # the committed script of FSSD300: 33,719,932 parameters, 8682 priors
    found = held(FLAT.fssd(FLAT.vgg(), anchors=committed), "fssd300-vgg16", priors="coco")
    assert found.options == {"priors": "coco", "ratios": [[2], [2, 3], [2, 3], [2], [2], [2]]}
    statistics = sum(t.numel() for key, t in found.tensors.items() if ".norm." in key)
    assert sum(t.numel() for t in found.tensors.values()) - statistics == 33_719_932
    with torch.device("meta"):
        assert len(build_model("fssd300-vgg16", 20, **found.options).heads.priors) == 8682


def test_sources_are_inferred(held) -> None:
    two = held(FLAT.fssd(FLAT.vgg(), fused=512), "fssd300-vgg16")
    assert two.options["sources"] == ["conv4_3", "fc7"]
    statistics = sum(t.numel() for key, t in two.tensors.items() if ".norm." in key)
    assert sum(t.numel() for t in two.tensors.values()) - statistics == 30_852_142
    reduced = FLAT.fssd(FLAT.vgg()) | {"conv7_2_reduce": FLAT.conv(256, 256, 1)}
    found = held(reduced, "fssd300-vgg16")
    assert found.options["reduce_all"] is True
    assert "neck.fusion.transform.conv7_2.0.weight" in found.tensors


def test_a_fusion_without_normalisation(held) -> None:
    layers = FLAT.fssd(FLAT.vgg())
    del layers["fea_concat_bn"]
    found = held(layers, "fssd300-vgg16")
    assert found.options["norm"] == "none"
    assert not any(".norm." in key for key in found.tensors)


def test_a_scale_layer_makes_the_normalisation_affine(held) -> None:
    gamma, beta = torch.rand(768), torch.rand(768)
    layers = FLAT.fssd(FLAT.vgg()) | {"fea_concat_bn_scale": [gamma, beta]}
    found = held(layers, "fssd300-vgg16")
    assert found.options["norm"] == "batch-affine"
    assert torch.equal(found.tensors["neck.fusion.norm.weight"], gamma)
    assert torch.equal(found.tensors["neck.fusion.norm.bias"], beta)


@pytest.mark.parametrize("batches", [0, 1, 3, 500])
def test_sums_are_divided_and_batches_counted(held, batches: int) -> None:
    counter = 0.0
    for _ in range(batches):  # as Caffe does each step
        counter = 0.999 * counter + 1
    layers = FLAT.fssd(FLAT.vgg())
    mean = torch.linspace(-1, 1, 768)
    layers["fea_concat_bn"] = [mean * counter, mean.square() * counter, torch.tensor([counter])]
    tensors = held(layers, "fssd300-vgg16").tensors
    assert torch.allclose(tensors["neck.fusion.norm.running_mean"], mean * bool(batches), atol=1e-6)
    assert torch.allclose(tensors["neck.fusion.norm.running_var"], mean.square() * bool(batches), atol=1e-6)
    assert int(tensors["neck.fusion.norm.num_batches_tracked"]) == batches


def test_a_counter_at_its_limit_is_many_batches(held) -> None:
    for counter in (999.99994, 1000.0, 1000.1):
        layers = FLAT.fssd(FLAT.vgg(), counter=counter)
        assert held(layers, "fssd300-vgg16").tensors["neck.fusion.norm.num_batches_tracked"] > 10_000


def test_colours(held) -> None:
    layers = FLAT.ssd(FLAT.vgg())
    layers["conv1_1"] = [torch.rand(64, 3, 3, 3), torch.rand(64)]
    weight = layers["conv1_1"][0]
    turned = held(layers, "ssd300-vgg16").tensors["backbone.conv1_1.weight"]
    for place, colour in enumerate((2, 1, 0)):
        assert torch.equal(turned[:, place], weight[:, colour])
    kept = held(layers, "ssd300-vgg16", colours="rgb").tensors["backbone.conv1_1.weight"]
    assert torch.equal(kept, weight)


# ---- the backbone alone


def test_a_reduced_backbone(held) -> None:
    classifier = {"fc8": FLAT.conv(1000, 4096, 1)}
    found = held(FLAT.vgg() | classifier, "vgg16")
    assert (found.num_classes, found.options, found.unused) == (0, {}, ("fc8",))
    assert found.tensors["fc6.weight"].shape == (1024, 512, 3, 3)
    assert sum(t.numel() for t in found.tensors.values()) == 14_714_688 + 5_769_216


def test_the_original_backbone_is_decimated(held) -> None:
    bias = torch.arange(4096.0)
    original = {
        "fc6": [FLAT.tensor(4096, 25088), bias],
        "fc7": [FLAT.tensor(4096, 4096), bias],
        "fc8": [FLAT.tensor(1000, 4096), FLAT.tensor(1000)],
    }
    found = held(FLAT.vgg() | original, "vgg16")
    assert found.tensors["fc6.weight"].shape == (1024, 512, 3, 3)
    assert found.tensors["fc7.weight"].shape == (1024, 1024, 1, 1)
    assert found.tensors["fc7.bias"].tolist() == list(range(0, 4096, 4))
    original["fc7"][0] = FLAT.tensor(4096, 1024)
    with pytest.raises(CheckpointError, match=r"some\.caffemodel: layer 'fc7'.*\(4096, 1024\)"):
        held(FLAT.vgg() | original, "vgg16")


# ---- other files


def without(layers: Layers, name: str) -> Layers:
    return {key: value for key, value in layers.items() if key != name}


@pytest.mark.parametrize(
    ("layers", "name", "reason"),
    [
        (FLAT.ssd(FLAT.vgg()), "fssd300-vgg16", "holds a ssd300-vgg16 by its layers, not a fssd300-vgg16"),
        (FLAT.fssd(FLAT.vgg()), "ssd300-vgg16", "holds a fssd300-vgg16 by its layers"),
        (FLAT.fssd(FLAT.vgg(), 512), "fssd300-vgg16", "holds a fssd512-vgg16 by its layers"),
        (FLAT.ssd(FLAT.vgg()), "ssd512-vgg16", "holds a ssd300-vgg16 by its layers"),
        (FLAT.vgg(), "ssd300-vgg16", "import it as vgg16"),
        (without(FLAT.ssd(FLAT.vgg()), "conv8_2"), "ssd300-vgg16",
         r"no layer 'conv8_2', expected with blobs of shape \(256, 128, 3, 3\) and \(256,\)"),
        (without(FLAT.ssd(FLAT.vgg()), "conv8_2") | {"conv8_2_new": FLAT.conv(256, 128, 3)}, "ssd300-vgg16",
         "no layer 'conv8_2'.*nearest name in it is 'conv8_2_new'"),
        (without(FLAT.ssd(FLAT.vgg()), "conv9_2_mbox_conf"), "ssd300-vgg16", "no layer 'conv9_2_mbox_conf'"),
        (without(FLAT.fssd(FLAT.vgg()), "fc7_reduce"), "fssd300-vgg16", "no layer 'fc7_reduce'"),
        (without(FLAT.fssd(FLAT.vgg()), "fea_concat_bn_ds_1"), "fssd300-vgg16", "'fea_concat_bn_ds_1'"),
        (FLAT.ssd(FLAT.vgg()) | {"conv5_1": FLAT.conv(512, 256, 3)}, "ssd300-vgg16",
         r"'conv5_1' has blobs of shape \(512, 256, 3, 3\) and \(512,\), expected \(512, 512, 3, 3\)"),
        (FLAT.ssd(FLAT.vgg()) | {"conv5_1": FLAT.conv(512, 512, 3)[:1]}, "ssd300-vgg16",
         "'conv5_1' has blobs"),
        (FLAT.ssd(FLAT.vgg()) | {"conv5_1": [FLAT.tensor(512, 512, 3, 3), torch.full((512,), torch.nan)]},
         "ssd300-vgg16", "'conv5_1' has numbers that are not finite"),
        (FLAT.ssd(FLAT.vgg()) | {"fc7_mbox_loc": FLAT.conv(20, 1024, 3)}, "ssd300-vgg16",
         "'fc7_mbox_loc' gives 20 channels, expected 16 or 24"),
        (FLAT.ssd(FLAT.vgg()) | {"fc7_mbox_conf": FLAT.conv(127, 1024, 3)}, "ssd300-vgg16",
         "'fc7_mbox_conf' gives 127 channels for 6 priors per cell, expected 126"),
        (FLAT.ssd(FLAT.vgg()) | {"fc7_mbox_conf": FLAT.conv(132, 1024, 3)}, "ssd300-vgg16", "expected 126"),
        (FLAT.ssd(FLAT.vgg(), classes=1), "ssd300-vgg16", "'conv4_3_norm_mbox_conf' gives 4 channels"),
        (FLAT.fssd(FLAT.vgg()) | {"fea_concat_bn_ds_1": FLAT.conv(512, 640, 3)}, "fssd300-vgg16",
         "'fea_concat_bn_ds_1' reads 640 channels"),
        (FLAT.fssd(FLAT.vgg()) | {"fea_concat_bn_ds_1": [FLAT.tensor(512)]}, "fssd300-vgg16",
         "no convolution 'fea_concat_bn_ds_1'"),
        (FLAT.fssd(FLAT.vgg()) | {"fea_concat_bn": FLAT.conv(768, 768, 1)}, "fssd300-vgg16",
         r"expected \(768,\) and \(768,\) and \(1,\)"),
        (FLAT.fssd(FLAT.vgg()) | {"my_scale": [FLAT.tensor(768), FLAT.tensor(768)]}, "fssd300-vgg16",
         "'my_scale' looks like a normalisation of the 768 fused channels"),
    ],
)  # fmt: skip
def test_another_network_is_refused_with_the_layer(held, layers: Layers, name: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=r"^\S*some\.caffemodel: .*" + reason) as error:
        held(layers, name)
    assert "\n" not in str(error.value)


def test_a_suffix_on_the_normalisation_is_not_taken_for_none(held) -> None:
    layers = FLAT.fssd(FLAT.vgg())
    layers["fea_concat_bn_1"] = layers.pop("fea_concat_bn")
    with pytest.raises(CheckpointError, match=r"'fea_concat_bn_1' looks like .* expected 'fea_concat_bn'"):
        held(layers, "fssd300-vgg16")


def test_wrong_choices(tmp_path: Path, held) -> None:
    with pytest.raises(ConfigError, match="no network 'fssd300-lite'"):
        import_caffe(tmp_path / "x", "fssd300-lite")
    with pytest.raises(ConfigError, match="no colour order 'gbr'"):
        import_caffe(tmp_path / "x", "vgg16", colours="gbr")
    with pytest.raises(ConfigError, match="no prior table 'cocoo'; did you mean 'coco'"):
        held(FLAT.ssd(FLAT.vgg()), "ssd300-vgg16", priors="cocoo")


def test_layers_that_are_not_used_are_reported(held) -> None:
    layers = {"mean_shift": [FLAT.tensor(3)]} | FLAT.ssd(FLAT.vgg()) | {"fc8": FLAT.conv(9, 1024, 1)}
    assert held(layers, "ssd300-vgg16").unused == ("mean_shift", "fc8")
