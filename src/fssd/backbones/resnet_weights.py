"""ResNet weights as other packages save them, under torchvision's names of the layers, which are ours too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fssd.backbones.pixel_statistics import TORCHVISION_MEAN, TORCHVISION_STD

PIXELS = ("conv1.weight", "bn1.running_mean")  # what depends on how images are normalised
CLASSIFIER = "fc.weight"  # a file that has it is torchvision's, and reads what torchvision's images are


def resnet_layers(
    tensors: Mapping[str, Tensor], mean: Sequence[float], std: Sequence[float]
) -> Mapping[str, Tensor]:
    """A ResNet by our names, made to read (RGB 0..255 - mean) / std.

    tensors: a state dict by torchvision's names. With the classifier it is torchvision's own, trained on
    images of `TORCHVISION_MEAN` and `TORCHVISION_STD`; both steps are linear and go into conv1 and bn1,
    exactly but for the zeros that pad the border. Without, it is taken to fit as it is.
    """
    theirs = (TORCHVISION_MEAN, TORCHVISION_STD)
    if (tuple(mean), tuple(std)) == theirs or not tensors.keys() >= {CLASSIFIER, *PIXELS}:
        return tensors
    scale = torch.tensor(std) / torch.tensor(TORCHVISION_STD)
    shift = (torch.tensor(mean) - torch.tensor(TORCHVISION_MEAN)) / torch.tensor(TORCHVISION_STD)
    weight = tensors["conv1.weight"].float()
    added = (weight * shift[:, None, None]).sum(dim=(1, 2, 3))
    running = tensors["bn1.running_mean"].float() - added  # conv1 has no bias, but a batch norm follows it
    return {**tensors, "conv1.weight": weight * scale[:, None, None], "bn1.running_mean": running}


def caffe_names(blocks: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """(our convolution, our batch norm, Caffe's name without res, bn or scale) of every pair.

    blocks: bottlenecks of each stage. MSRA numbers those of conv3 and conv4 as b1, b2, ... in ResNet-101,
    and letters them in ResNet-50.
    """
    yield "conv1", "bn1", "conv1"
    numbered = max(blocks) > 6
    for stage, count in enumerate(blocks, start=1):
        for index in range(count):
            letter = f"b{index}" if numbered and stage in (2, 3) and index else "abcdef"[index]
            ours, theirs = f"layer{stage}.{index}", f"{stage + 1}{letter}_branch"
            if index == 0:
                yield f"{ours}.downsample.0", f"{ours}.downsample.1", f"{theirs}1"
            for number, part in enumerate("abc", start=1):
                yield f"{ours}.conv{number}", f"{ours}.bn{number}", f"{theirs}2{part}"
