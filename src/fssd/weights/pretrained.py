"""Starting weights: an ImageNet backbone, or a trained SSD ("FSSD+", paper 3.2)."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from fssd.backbones.backbone import Backbone
from fssd.errors import CheckpointError, ConfigError
from fssd.layers.norms import CaffeBatchNorm
from fssd.model.network import Network
from fssd.weights.checkpoint import below, check_finite, check_plain, check_shape, model_file, read_model
from fssd.weights.content import exported, read_content, refuse_failed_download

# Keys of a training's checkpoint that hold the state dict; of two the first is taken.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights", "ema")
DEEPEST = 3  # wrappers in each other; a pickle may hold itself
SETTLED = 1_000_000  # updates; from then on Caffe's batch norm gives a new batch its least weight
# Prefixes of DataParallel, torch.compile and a detector that wraps another.
PREFIXES = ("module.", "_orig_mod.", "model.")


def load_backbone(network: Network, file: Path | None, read: Mapping[str, Tensor] | None = None) -> int:
    """Fill the backbone with pretrained weights and return the number of tensors copied.

    file: safetensors or PyTorch, with names that `Backbone.adapt` knows, or what `Backbone.read` reads.
    Layers that the file may lack (fc6 and fc7) keep their fresh weights. None takes the weights of an
    installed package, if there are any. read: the tensors of the file, if it was read already, under names
    that `Backbone.adapt` knows.
    Raises ConfigError if no weights are found, CheckpointError if they do not fit.
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
    if known is None:
        return _fill_known(backbone, read_state_dict(file) if read is None else read, file)
    tensors = _read_own(known, file) if read is None else None
    if tensors is None:
        tensors = known.adapt(read_state_dict(file) if read is None else read)
    return _fill_known(backbone, tensors, file, known.may_lack)


def _read_own(backbone: Backbone, file: Path) -> Mapping[str, Tensor] | None:
    """What `Backbone.read` reads. Raises CheckpointError for what a failed download leaves."""
    with suppress(OSError), file.open("rb") as handle:  # whoever reads it says why it cannot be read
        refuse_failed_download(file, handle.read(64))
    return backbone.read(file)


def load_ssd(network: Network, file: Path) -> int:
    """Fill the backbone, and what the neck has of an SSD's, from a trained SSD; return the tensors copied.

    Shared are appended layers of the same name (the released FSSDs load conv6_1 to conv7_2 so) and the
    scale of conv4_3, and the prediction modules of levels that are the SSD's own (`Neck.shared_levels`). The
    rest (fusion, pyramid, predictors) keeps its fresh weights. Raises CheckpointError if it does not fit.
    """
    file = model_file(file)
    tensors, facts = read_model(file)
    model = facts.get("model")
    if not str(model).startswith("ssd"):
        raise CheckpointError(f"{file}: is a {model}, not an SSD; name a trained ssd model to start from")
    taken = _fill_known(network.backbone, below(tensors, "backbone."), file)
    parts = ["neck.extras", "neck.scale"]
    parts += [f"heads.prediction.{level}" for level in network.neck.shared_levels()]
    for name, shared in network.named_modules():
        if name in parts:
            lacked = tuple(key.partition(".")[0] for key in shared.state_dict())
            taken += _fill_known(shared, below(tensors, f"{name}."), file, lacked)
    return taken


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors or PyTorch file, without the prefixes that all names share.

    The state dict may lie under one of `WRAPPERS`. Nothing in the file is executed. Raises CheckpointError
    for a file that is missing, damaged, holds anything but tensors, or tensors that are no plain numbers.
    """
    content = read_content(file)
    if is_safetensors(file):
        try:
            loaded: Any = safetensors.torch.load(content)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise CheckpointError(f"{file}: is damaged or not a safetensors file ({error})") from error
    else:
        loaded = _read_pickle(file, content)
    for _ in range(DEEPEST):
        loaded = _unwrapped(loaded)
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        keys = ", ".join(WRAPPERS)
        raise CheckpointError(f"{file}: holds no dict of tensors, alone or under {keys}; save a state dict")
    tensors = {str(key).removeprefix("module."): tensor for key, tensor in loaded.items()}
    for name, tensor in tensors.items():
        check_plain(file, name, tensor)
    while tensors and (shared := next((p for p in PREFIXES if all(n.startswith(p) for n in tensors)), "")):
        tensors = below(tensors, shared)
    return tensors


def _unwrapped(loaded: Any) -> Any:
    """What lies under the first of `WRAPPERS`, if there is one."""
    held = loaded if isinstance(loaded, Mapping) else {}
    return next((held[key] for key in WRAPPERS if isinstance(held.get(key), Mapping)), loaded)


def _read_pickle(file: Path, content: bytes) -> Any:
    """What `torch.save` wrote. Its archive holds a checksum of every tensor, which torch does not look at."""
    handle = io.BytesIO(content)
    try:
        if zipfile.is_zipfile(handle):
            with zipfile.ZipFile(handle) as archive:
                broken = archive.testzip()
            if broken is not None:
                raise CheckpointError(f"{file}: its part {broken!r} is damaged; copy or download it again")
        handle.seek(0)
        return torch.load(handle, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle raises many types, some without a message
        if (known := exported(file, content)) is not None:
            raise known from error
        # torch's own message advises to switch this safety off.
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found or "TorchScript" in str(error):
            what = found[1] if found else "a TorchScript program"
            raise CheckpointError(
                f"{file}: holds {what}, would run code and is refused; save the state dict alone:"
                " torch.save(model.state_dict(), FILE)"
            ) from error
        reason = "damaged" if "Weights only" in str(error) else str(error) or type(error).__name__
        raise CheckpointError(f"{file}: cannot be read as weights ({reason.splitlines()[0]})") from error


def is_safetensors(file: Path) -> bool:
    """Whether the content, not the name, is that of safetensors: the length of a JSON header comes first."""
    with file.open("rb") as handle:
        return handle.read(9)[4:] == b"\0\0\0\0{"


def _fill_known(
    module: nn.Module, tensors: Mapping[str, Tensor], file: Path, may_lack: tuple[str, ...] = ()
) -> int:
    """Copy the file's tensors into `module` and count them; only the layers `may_lack` may be missing."""
    taken = 0
    for key, own in module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if key in tensors:
            check_shape(file, key, tensors[key], own)
            check_finite(file, key, tensors[key])
            own.copy_(tensors[key])
            taken += 1
        elif key.partition(".")[0] not in may_lack:
            raise CheckpointError(f"{file}: has no {key!r}; these weights are of another network")
    for name, norm in module.named_modules():
        if isinstance(norm, CaffeBatchNorm) and f"{name}.running_mean" in tensors:
            cast("Tensor", norm.num_batches_tracked).fill_(SETTLED)
    return taken
