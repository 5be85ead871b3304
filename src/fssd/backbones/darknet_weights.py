"""Darknet's `.weights` files: a header, then the numbers of every layer in the order of its cfg, unnamed.

Little endian. int32 major, minor and revision of the format; the images seen in training, uint64 since
version 0.2, int32 before; then float32. A convolution with batch norm is its shift, scale, running mean,
running variance and weights; one without is its bias and weights (pjreddie/darknet, parser.c).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fssd.errors import CheckpointError

SUFFIX = ".weights"
VERSION = (0, 2, 0)  # written: that of current darknet
_ZIP = b"PK\x03\x04"  # how a file of torch.save begins; a version of darknet's format is never so high
NORMED = ("1.bias", "1.weight", "1.running_mean", "1.running_var", "0.weight")
LINEAR = ("bias", "weight")


class DarknetFile(NamedTuple):
    """version: major, minor, revision. seen: images of the training. floats: (N,) float32, all layers."""

    version: tuple[int, int, int]
    seen: int
    floats: npt.NDArray[np.float32]

    @property
    def header(self) -> int:
        """Bytes before the floats."""
        return header_bytes(self.version)

    @property
    def bytes(self) -> int:
        """Length of the file."""
        return self.header + 4 * len(self.floats)


def header_bytes(version: tuple[int, int, int]) -> int:
    """Length of the header of a format version."""
    return 20 if _counts_in_64_bits(version) else 16


def _counts_in_64_bits(version: tuple[int, int, int]) -> bool:
    major, minor, _ = version
    return major * 10 + minor >= 2 and major < 1000 and minor < 1000


def is_darknet(file: Path) -> bool:
    """Whether the name is that of darknet's weights, or of their first layers: darknet19_448.conv.23. The
    content tells only that a file is PyTorch's, whatever its name."""
    if file.suffix != SUFFIX and re.search(r"\.conv\.\d+$", file.name) is None:
        return False
    try:
        with file.open("rb") as handle:
            return handle.read(len(_ZIP)) != _ZIP
    except OSError:  # whoever reads it says why it cannot be read
        return True


def read_darknet(file: Path) -> DarknetFile:
    """The content of a `.weights` file. Raises CheckpointError if it is none."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{file}: cannot be read ({error.strerror or error}); check the path"
        ) from error
    if len(content) >= 16:
        version: tuple[int, int, int] = struct.unpack("<3i", content[:12])
        start = header_bytes(version)
        known, rest = all(0 <= part < 100_000 for part in version), len(content) - start
        seen = int.from_bytes(content[12:start], "little", signed=start == 16)
        if known and rest >= 0 and rest % 4 == 0 and seen < 2**63:
            return DarknetFile(version, seen, np.frombuffer(content, "<f4", offset=start))
    raise CheckpointError(f"{file}: is damaged or not a darknet .weights file; copy or download it again")


def darknet_bytes(seen: int, tensors: Iterable[Tensor]) -> bytes:
    """A file of the current version with tensors in darknet's order."""
    parts = [struct.pack("<3iQ", *VERSION, seen)]
    parts += [tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes() for tensor in tensors]
    return b"".join(parts)


def darknet_order(module: nn.Module, layers: Iterable[str]) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of layers of `module`, in the order in which a file has them.

    A layer is a plain convolution with bias, or a sequence of a convolution and a batch norm.
    """
    shapes: dict[str, torch.Size] = {}
    for layer in layers:
        own = module.get_submodule(layer)
        kinds = LINEAR if isinstance(own, nn.Conv2d) else NORMED
        state = own.state_dict()
        shapes |= {f"{layer}.{kind}": state[kind].shape for kind in kinds}
    return shapes


def count(shapes: Mapping[str, torch.Size]) -> int:
    """Numbers in tensors of these shapes."""
    return sum(shape.numel() for shape in shapes.values())


def cut(floats: npt.NDArray[np.float32], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors of these shapes at the beginning of `floats`, which may be longer."""
    tensors: dict[str, Tensor] = {}
    start = 0
    for name, shape in shapes.items():
        end = start + shape.numel()
        tensors[name] = torch.from_numpy(floats[start:end].astype(np.float32)).reshape(shape)
        start = end
    return tensors
