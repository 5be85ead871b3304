"""VGG16 alone, from vgg16_reducedfc.pth and from torchvision's classifier."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from fssd.errors import CheckpointError
from fssd.importers.pth import import_pth
from fssd.model.build import build_model
from fssd.weights.pretrained import load_backbone

# Widths of the 13 convolutions, at their places in the list of layers.
PLACES = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
    17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip
RGB_MEAN = torch.tensor([123.0, 117.0, 104.0]).reshape(3, 1, 1)


def features(prefix: str) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(8)
    tensors = {}
    for place, (inputs, outputs) in PLACES.items():
        tensors[f"{prefix}{place}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=random)
        tensors[f"{prefix}{place}.bias"] = torch.randn(outputs, generator=random)
    return tensors


def reducedfc() -> dict[str, Tensor]:
    tensors = features("")
    tensors["31.weight"] = torch.linspace(-1, 1, 1024 * 512 * 9).reshape(1024, 512, 3, 3)
    tensors["31.bias"] = torch.arange(1024.0)
    tensors["33.weight"] = torch.linspace(-1, 1, 1024 * 1024).reshape(1024, 1024, 1, 1)
    tensors["33.bias"] = -torch.arange(1024.0)
    return tensors


def small(prefix: str) -> dict[str, Tensor]:
    """All tensors in their shapes, each of one number in memory, and so in a file."""
    shapes = {"31": (1024, 512, 3, 3), "33": (1024, 1024, 1, 1)} if not prefix else {}
    shapes |= {f"{prefix}{place}": (outputs, inputs, 3, 3) for place, (inputs, outputs) in PLACES.items()}
    weights = {f"{layer}.weight": torch.zeros(1).expand(shape) for layer, shape in shapes.items()}
    return weights | {f"{layer}.bias": torch.zeros(1).expand(shape[0]) for layer, shape in shapes.items()}


def test_reducedfc_is_bgr_and_has_fc6_and_fc7(tmp_path: Path) -> None:
    tensors = reducedfc()
    file = tmp_path / "vgg16_reducedfc.pth"
    torch.save(tensors, file)
    found = import_pth(file, "vgg16")
    assert (found.num_classes, found.options, found.unused) == (0, {}, ())
    assert len(found.tensors) == 30
    pixels = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    bgr = pixels.flip(1) - torch.tensor([104.0, 117.0, 123.0]).reshape(3, 1, 1)
    own = F.conv2d(pixels - RGB_MEAN, found.tensors["conv1_1.weight"])
    torch.testing.assert_close(own, F.conv2d(bgr, tensors["0.weight"]), atol=1e-3, rtol=1e-4)
    rgb = import_pth(file, "vgg16", colours="rgb")
    assert torch.equal(rgb.tensors["conv1_1.weight"], tensors["0.weight"])
    # A training takes the file as it is.
    network = build_model("fssd300-vgg16", 1)
    assert load_backbone(network, file) == 30
    state = network.backbone.state_dict()
    assert torch.equal(state["fc6.weight"], tensors["31.weight"])
    assert torch.equal(state["fc7.bias"], tensors["33.bias"])
    assert torch.equal(state["conv4_3.weight"], tensors["21.weight"])
    assert torch.equal(state["conv1_1.weight"][:, 0], tensors["0.weight"][:, 2])


def test_torchvision_classifier_gives_fc6_and_fc7(tmp_path: Path) -> None:
    tensors = features("features.")
    # Each number says where it stands: output o, row r and column c of channel 5 are o + 0.1 r + 0.01 c.
    cells = torch.zeros(4096, 512, 7, 7)
    cells[:, 5] = (
        torch.arange(4096.0)[:, None, None] + 0.1 * torch.arange(7.0)[:, None] + 0.01 * torch.arange(7.0)
    )
    tensors["classifier.0.weight"] = cells.reshape(4096, 25088)
    tensors["classifier.0.bias"] = torch.arange(4096.0)
    tensors["classifier.3.weight"] = torch.arange(4096.0)[:, None] * 10 + torch.arange(4096.0) / 10
    tensors["classifier.3.bias"] = -torch.arange(4096.0)
    tensors["classifier.6.weight"] = torch.zeros(2, 2)
    file = tmp_path / "vgg16.safetensors"
    safetensors.torch.save_file(tensors, file)
    found = import_pth(file, "vgg16")
    file.unlink()
    assert found.unused == ("classifier.6.weight",)
    assert found.tensors["fc6.weight"].shape == (1024, 512, 3, 3)
    assert found.tensors["fc6.weight"][3, 5, 2, 1].item() == pytest.approx(12 + 0.6 + 0.03)
    assert found.tensors["fc6.bias"][:3].tolist() == [0, 4, 8]
    assert found.tensors["fc7.weight"].shape == (1024, 1024, 1, 1)
    assert found.tensors["fc7.weight"][2, 3, 0, 0].item() == pytest.approx(80 + 1.2)
    assert found.tensors["fc7.bias"][1023].item() == -4092
    # It saw (x / 255 - mean) / std; conv1_1 now sees x - (123, 117, 104) and says the same.
    pixels = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(1)).float()
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    wanted = F.conv2d((pixels / 255 - mean) / std, tensors["features.0.weight"], tensors["features.0.bias"])
    own = F.conv2d(pixels - RGB_MEAN, found.tensors["conv1_1.weight"], found.tensors["conv1_1.bias"])
    torch.testing.assert_close(own, wanted, atol=1e-4, rtol=1e-4)


def test_features_alone_have_no_fully_connected_layers(tmp_path: Path) -> None:
    file = tmp_path / "features.pth"
    torch.save(features("features."), file)
    found = import_pth(file, "vgg16")
    assert len(found.tensors) == 26
    assert not any(key.startswith("fc") for key in found.tensors)


def test_what_a_backbone_lacks_is_named(tmp_path: Path) -> None:
    tensors = {
        f"{place}.{kind}": torch.zeros(1) for place in (*PLACES, 31, 33) for kind in ("weight", "bias")
    }
    file = tmp_path / "vgg.pth"
    torch.save({key: value for key, value in tensors.items() if key != "21.bias"}, file)
    with pytest.raises(CheckpointError, match=r"vgg16_reducedfc.*lacks conv4_3\.bias \(layer 21"):
        import_pth(file, "vgg16")
    torch.save({**tensors, "17.weight": torch.tensor([torch.nan])}, file)
    with pytest.raises(CheckpointError, match=r"'17\.weight' has numbers that are not finite"):
        import_pth(file, "vgg16")
    with pytest.raises(CheckpointError, match=r"holds a vgg16 .*, not a ssd300-vgg16"):
        import_pth(file, "ssd300-vgg16")


@pytest.mark.parametrize("prefix", ["", "features."])
@pytest.mark.parametrize(
    ("place", "shape", "needs"),
    [
        ("5.weight", (128, 3, 3, 3), (128, 64, 3, 3)),
        ("12.bias", (), (256,)),
        ("0.weight", (64, 1, 3, 3), (64, 3, 3, 3)),
        ("0.weight", (64, 5, 3, 3), (64, 3, 3, 3)),
    ],
)
def test_a_shape_that_no_vgg16_has_is_named(
    tmp_path: Path, prefix: str, place: str, shape: tuple[int, ...], needs: tuple[int, ...]
) -> None:
    tensors = small(prefix)
    tensors[f"{prefix}{place}"] = torch.zeros(shape)
    torch.save(tensors, tmp_path / "vgg.pth")
    reason = re.escape(f"'{prefix}{place}' has shape {shape}, the network needs {needs}")
    with pytest.raises(CheckpointError, match=reason):
        import_pth(tmp_path / "vgg.pth", "vgg16")


def test_a_training_does_not_start_from_one_channel_either(tmp_path: Path) -> None:
    """Whose conv1_1 would become three channels where the normalisation is folded into it."""
    tensors = small("features.")
    tensors["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    torch.save({**tensors, "classifier.6.bias": torch.zeros(2)}, tmp_path / "vgg.pth")
    network = build_model("fssd300-vgg16", 1)
    with pytest.raises(CheckpointError, match=r"'conv1_1\.weight' has shape \(64, 1, 3, 3\), the network"):
        load_backbone(network, tmp_path / "vgg.pth")
