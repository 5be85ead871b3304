"""Starting weights: torchvision's VGG16, a trained SSD, and files that must be refused."""

from __future__ import annotations

import io
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fssd.backbones.vgg_weights import vgg16_layers
from fssd.errors import CheckpointError, ConfigError
from fssd.model.build import build_model
from fssd.model.network import Network
from fssd.weights.checkpoint import save_model
from fssd.weights.pretrained import load_backbone, load_ssd, read_state_dict

# torchvision's vgg16().features: convolutions by their place in the list, pools and ReLUs between
FEATURES = {
    0: ("conv1_1", 64, 3), 2: ("conv1_2", 64, 64), 5: ("conv2_1", 128, 64), 7: ("conv2_2", 128, 128),
    10: ("conv3_1", 256, 128), 12: ("conv3_2", 256, 256), 14: ("conv3_3", 256, 256),
    17: ("conv4_1", 512, 256), 19: ("conv4_2", 512, 512), 21: ("conv4_3", 512, 512),
    24: ("conv5_1", 512, 512), 26: ("conv5_2", 512, 512), 28: ("conv5_3", 512, 512),
}  # fmt: skip


def torchvision_vgg() -> dict[str, Tensor]:
    torch.manual_seed(5)
    tensors = {}
    for place, (_, outputs, inputs) in FEATURES.items():
        tensors[f"features.{place}.weight"] = torch.randn(outputs, inputs, 3, 3)
        tensors[f"features.{place}.bias"] = torch.randn(outputs)
    # Files of the features alone keep the classifier's names with nothing in them.
    tensors["classifier.0.weight"] = torch.full((8, 4), torch.nan)
    tensors["classifier.0.bias"] = torch.full((8,), torch.nan)
    return tensors


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.fixture(scope="module")
def fssd() -> Network:
    return build_model("fssd300-vgg16", 1)


@pytest.fixture(scope="module")
def ssd_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(9)
    net = build_model("ssd300-vgg16", 1)
    for key, tensor in net.state_dict().items():
        if key.endswith("bias"):
            tensor.normal_()  # fresh biases are 0 in both networks and would hide a copy left out
    file = tmp_path_factory.mktemp("ssd") / "best.safetensors"
    save_model(file, net.state_dict(), net, ("thing",), {})
    return file


# ---------------------------------------------------------------- ImageNet


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_torchvision_names_fill_the_13_convolutions(fssd: Network, tmp_path: Path, suffix: str) -> None:
    tensors = torchvision_vgg()
    file = tmp_path / f"vgg16{suffix}"
    if suffix == ".pth":
        torch.save(tensors, file)
    else:
        safetensors.torch.save_file(tensors, file)
    with torch.no_grad():
        for parameter in fssd.backbone.parameters():
            parameter.fill_(0.5)
    before = copied(fssd)
    assert load_backbone(fssd, file) == 26
    after = fssd.state_dict()
    filled = set()
    for place, (layer, _, _) in FEATURES.items():
        for kind in ("weight", "bias"):
            assert torch.equal(after[f"backbone.{layer}.{kind}"], tensors[f"features.{place}.{kind}"])
            filled.add(f"backbone.{layer}.{kind}")
    for key, tensor in before.items():
        assert key in filled or torch.equal(after[key], tensor), key


def test_own_names_may_bring_fc6_and_fc7_in_half_precision(fssd: Network, tmp_path: Path) -> None:
    torch.manual_seed(6)
    tensors = {key: torch.randn(t.shape).half() for key, t in fssd.backbone.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "own.safetensors")
    assert load_backbone(fssd, tmp_path / "own.safetensors") == 30
    for key, tensor in fssd.backbone.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensors[key].float())


def test_weights_that_do_not_fit_are_refused(fssd: Network, tmp_path: Path) -> None:
    file = tmp_path / "vgg.safetensors"
    tensors = torchvision_vgg()
    missing = {key: value for key, value in tensors.items() if key != "features.21.bias"}
    safetensors.torch.save_file(missing, file)
    with pytest.raises(CheckpointError, match=r"vgg\.safetensors: has no 'conv4_3\.bias'"):
        load_backbone(fssd, file)
    missing = {key: value for key, value in tensors.items() if key != "features.0.bias"}
    safetensors.torch.save_file({**missing, "classifier.0.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(CheckpointError, match=r"vgg\.safetensors: has no 'conv1_1\.bias'"):
        load_backbone(fssd, file)
    safetensors.torch.save_file({**tensors, "features.0.weight": torch.zeros(64, 1, 3, 3)}, file)
    with pytest.raises(
        CheckpointError, match=r"'conv1_1\.weight' has shape \(64, 1, 3, 3\).*\(64, 3, 3, 3\)"
    ):
        load_backbone(fssd, file)
    safetensors.torch.save_file({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, file)
    with pytest.raises(CheckpointError, match="another network"):
        load_backbone(fssd, file)


def test_vgg_and_own_backbones_need_a_file(fssd: Network) -> None:
    with pytest.raises(ConfigError, match="fssd300-vgg16 has no ImageNet weights in a package"):
        load_backbone(fssd, None)

    class Own(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"a": images.new_zeros(1, 8, 38, 38)}

    with pytest.raises(ConfigError, match="name a file"):
        load_backbone(build_model("fssd300-lite", 1, backbone=Own()), None)


def test_released_imagenet_weights(fssd: Network) -> None:
    folder = os.environ.get("FSSD_TEST_WEIGHTS")
    if folder is None:
        pytest.skip("FSSD_TEST_WEIGHTS does not name a folder with vgg16-imagenet-conv.safetensors")
    file = Path(folder) / "vgg16-imagenet-conv.safetensors"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    assert load_backbone(fssd, file) == 26
    tensors = safetensors.torch.load_file(file)
    for place, (layer, _, _) in FEATURES.items():
        found = fssd.backbone.get_submodule(layer)
        assert torch.equal(found.weight, tensors[f"features.{place}.weight"].float())
        assert torch.equal(found.bias, tensors[f"features.{place}.bias"].float())


# ---------------------------------------------------------------- damaged and hostile files


class Evil:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    fssd: Network, tmp_path: Path, zipped: bool
) -> None:
    file, trace = tmp_path / "evil.pth", tmp_path / "it-ran"
    torch.save({"features.0.weight": Evil(trace)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds \S+, would run code and is refused"):
        load_backbone(fssd, file)
    assert not trace.exists()
    torch.load(file, weights_only=False)  # it does run where it is trusted, so the test can fail
    assert trace.exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_pth_is_refused_wherever_it_is_cut_or_changed(
    fssd: Network, tmp_path: Path, zipped: bool
) -> None:
    stream = io.BytesIO()
    tensors = {"features.0.weight": torch.zeros(2, 2), "features.0.bias": torch.ones(3)}
    torch.save(tensors, stream, _use_new_zipfile_serialization=zipped)
    whole, file = stream.getvalue(), tmp_path / "vgg.pth"
    chance = random.Random(0)
    damaged = [whole[:length] for length in range(0, len(whole), len(whole) // 40)]
    damaged += [chance.randbytes(chance.randrange(60)) for _ in range(40)]
    for _ in range(150):
        changed = bytearray(whole)
        changed[chance.randrange(min(len(whole), 400))] = chance.randrange(256)
        damaged.append(bytes(changed))
    for data in damaged:
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"vgg\.pth: "):  # even whole, it is no VGG16
            load_backbone(fssd, file)


@pytest.mark.parametrize("content", [[1, 2], {"a": [1]}, {"state_dict": {"a": [1]}}, "text"])
def test_pth_without_a_dict_of_tensors_is_refused(fssd: Network, tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth: holds no dict of tensors"):
        load_backbone(fssd, tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_damaged_files_are_refused(fssd: Network, tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(safetensors.torch.save({"a": torch.zeros(9)})[:-5])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": print}))
    for name in ("cut.safetensors", "empty.safetensors", "plain.pth", "absent.pth"):
        with pytest.raises(CheckpointError, match=name):
            load_backbone(fssd, tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_backbone(fssd, tmp_path)


@pytest.mark.parametrize(("name", "content"), [("m.xml", b"<?xml"), ("m.param", b"7767517\n2 2\n")])
def test_exported_files_are_told(fssd: Network, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: is an exported file, which has no PyTorch network"):
        load_backbone(fssd, tmp_path / name)


def test_a_damaged_part_of_an_archive_is_named(tmp_path: Path) -> None:
    """Its checksum tells, which torch does not look at."""
    file = tmp_path / "x.pth"
    torch.save({"a": torch.full((1000,), 1.5)}, file)
    content = bytearray(file.read_bytes())
    content[content.index(b"\x00\x00\xc0\x3f" * 100) + 2] ^= 1  # 1.5 in the middle of the numbers
    file.write_bytes(content)
    assert torch.load(file)["a"][0] != 1.5
    with pytest.raises(CheckpointError, match=r"x\.pth: its part '\S*data/0' is damaged; copy or download"):
        read_state_dict(file)


def test_numbers_that_are_not_finite_are_not_started_from(fssd: Network, tmp_path: Path) -> None:
    tensors = torchvision_vgg()
    tensors["features.5.weight"][0, 0, 0, 0] = torch.inf
    torch.save(tensors, tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"vgg\.pth: 'conv2_1\.weight' has numbers that are not finite"):
        load_backbone(fssd, tmp_path / "vgg.pth")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "weights", "ema"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "module.module.", "_orig_mod.", "model.", "_orig_mod.module."]
)
def test_wrappers_and_prefixes(tmp_path: Path, key: str, prefix: str) -> None:
    content = {key: {f"{prefix}a.weight": torch.ones(2), f"{prefix}b.bias": torch.zeros(3)}, "epoch": 4}
    torch.save(content, tmp_path / "x.pth")
    found = read_state_dict(tmp_path / "x.pth")
    assert {name: len(tensor) for name, tensor in found.items()} == {"a.weight": 2, "b.bias": 3}


def test_a_wrapper_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"x\.pth: holds no dict of tensors"):
        read_state_dict(tmp_path / "x.pth")


UNUSUAL: dict[str, Callable[[], Tensor]] = {
    "complex64": lambda: torch.zeros(2, dtype=torch.complex64),
    "float8_e4m3fn": lambda: torch.zeros(2).to(torch.float8_e4m3fn),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "quantised": lambda: torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
    "on no device": lambda: torch.zeros(2, device="meta"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_tensors_that_are_no_plain_numbers(tmp_path: Path, kind: str) -> None:
    torch.save({"fine": torch.ones(1), "odd.weight": UNUSUAL[kind]()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"x\.pth: 'odd\.weight' is {kind}"):
        read_state_dict(tmp_path / "x.pth")


def test_advice_of_torch_to_run_the_code_is_not_repeated(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(tmp_path / "module.pth")
    assert "torch.nn.modules.linear.Linear, would run code and is refused" in str(caught.value)
    assert "weights_only" not in str(caught.value) and "\x1b" not in str(caught.value)


# ---------------------------------------------------------------- from a trained SSD


def test_load_ssd_fills_backbone_and_shared_extras_and_nothing_else(fssd: Network, ssd_file: Path) -> None:
    source = safetensors.torch.load_file(ssd_file)
    with torch.no_grad():
        for parameter in fssd.parameters():
            parameter.fill_(0.25)
    before = copied(fssd)
    # 15 convolutions of the backbone and 4 extras, each weight and bias
    assert load_ssd(fssd, ssd_file) == 2 * (15 + 4)
    layers = [name for name, _, _ in FEATURES.values()] + ["fc6", "fc7"]
    shared = {f"backbone.{name}.{kind}" for name in layers for kind in ("weight", "bias")}
    for name in ("conv6_1", "conv6_2", "conv7_1", "conv7_2"):
        shared |= {f"neck.extras.{name}.0.{kind}" for kind in ("weight", "bias")}
    for key, tensor in fssd.state_dict().items():
        if key in shared:
            assert torch.equal(tensor, source[key]), key
            assert not torch.equal(tensor, before[key]), key
        else:
            assert torch.equal(tensor, before[key]), key
    assert fssd.neck.extras["conv6_2"][0].stride == (1, 1)  # weights of stride 2 at stride 1


def test_load_ssd_without_extra_layers_fills_the_backbone(ssd_file: Path) -> None:
    net = build_model("fssd300-vgg16", 1, sources=("conv4_3", "fc7"))
    assert load_ssd(net, ssd_file) == 30


def test_load_ssd_refuses_other_networks(fssd: Network, ssd_file: Path, tmp_path: Path) -> None:
    lite, other = build_model("fssd300-lite", 1), build_model("ssd300-lite", 1)
    save_model(tmp_path / "fssd.safetensors", lite.state_dict(), lite, ("thing",), {})
    with pytest.raises(CheckpointError, match=r"fssd\.safetensors: is a fssd300-lite, not an SSD"):
        load_ssd(fssd, tmp_path / "fssd.safetensors")
    save_model(tmp_path / "ssd.safetensors", other.state_dict(), other, ("thing",), {})
    with pytest.raises(CheckpointError, match="another network"):
        load_ssd(fssd, tmp_path / "ssd.safetensors")
    with pytest.raises(CheckpointError, match="another network"):
        load_ssd(lite, ssd_file)
    with pytest.raises(CheckpointError, match=r"absent\.safetensors"):
        load_ssd(fssd, tmp_path / "absent.safetensors")


def test_lite_fssd_starts_from_a_lite_ssd(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lite, other = build_model("fssd300-lite", 1), build_model("ssd300-lite", 1)
    file = tmp_path / "ssd.safetensors"
    save_model(file, other.state_dict(), other, ("thing",), {})
    before = copied(lite)
    load_ssd(lite, file)
    for key, tensor in lite.state_dict().items():
        source = other.state_dict()[key] if key.startswith("backbone.") else before[key]
        assert torch.equal(tensor, source), key


def test_a_torchvision_classifier_is_made_to_read_pixels(tmp_path: Path) -> None:
    """Its conv1_1 saw (x / 255 - mean) / std, ours sees x - (123, 117, 104); inside, both agree."""
    tensors = torchvision_vgg()
    tensors["classifier.0.weight"] = torch.zeros(2, 2)
    tensors["classifier.0.bias"] = torch.zeros(2)
    file = tmp_path / "vgg16.pth"
    torch.save(tensors, file)
    network = build_model("fssd300-vgg16", 1)
    load_backbone(network, file)
    pixels = torch.randint(0, 256, (1, 3, 12, 12)).float()
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    expected = F.conv2d((pixels / 255 - mean) / std, tensors["features.0.weight"], tensors["features.0.bias"])
    own = network.backbone.conv1_1
    found = F.conv2d(pixels - torch.tensor([123.0, 117.0, 104.0]).reshape(3, 1, 1), own.weight, own.bias)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_classifier_without_numbers_gives_no_fully_connected_layers() -> None:
    # Its features alone are published with the classifier's names and shapes, filled with NaN.
    tensors = torchvision_vgg()
    for place, shape in ((0, (4096, 25088)), (3, (4096, 4096))):
        tensors[f"classifier.{place}.weight"] = torch.tensor(torch.nan).expand(shape)
        tensors[f"classifier.{place}.bias"] = torch.tensor(torch.nan).expand(shape[0])
    layers = vgg16_layers(tensors)
    assert "conv5_3.weight" in layers and not any(name.startswith("fc") for name in layers)
    assert torch.equal(layers["conv1_1.weight"], tensors["features.0.weight"])


def test_the_name_of_a_file_does_not_tell_its_format(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2)}
    safetensors.torch.save_file(tensors, tmp_path / "one.pth")
    torch.save(tensors, tmp_path / "two.safetensors")
    for name in ("one.pth", "two.safetensors"):
        assert torch.equal(read_state_dict(tmp_path / name)["a"], tensors["a"])
