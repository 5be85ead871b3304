"""Starting weights: an ImageNet backbone, or a trained SSD ("FSSD+", paper 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone
from fssd.errors import CheckpointError, ConfigError
from fssd.model.network import Network
from fssd.weights.checkpoint import below, model_file, read_tensors

# The layers that an FSSD shares with the SSD it starts from (released FSSD networks load them by name).
SHARED_EXTRAS = ("conv6_1", "conv6_2", "conv7_1", "conv7_2")


def load_backbone(network: Network, file: Path | None) -> int:
    """Fill the backbone with pretrained weights and return how many tensors it took.

    file: safetensors or PyTorch, in any form that the backbone can adapt: for VGG16 torchvision's names
    (features.N), those of vgg16_reducedfc.pth (N) or ours (conv1_1 ...). Layers that the file may lack (fc6
    and fc7) keep their fresh weights. None takes the file of a package, if the backbone has one.

    Raises ConfigError if weights are needed and not to be found, CheckpointError if they do not fit.
    """
    backbone = network.backbone
    known = backbone if isinstance(backbone, Backbone) else None
    if file is None and known is not None and not network.spec.own_backbone:
        file = known.packaged_weights()
    if file is None:
        raise ConfigError(
            f"{network.spec.name} has no ImageNet weights in a package; name a file with --weights, or use"
            " --start nothing"
        )
    tensors = read_state_dict(file)
    if known is None:
        return _fill_known(backbone, tensors, file)
    return _fill_known(backbone, known.adapt(tensors), file, optional=known.may_lack)


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
