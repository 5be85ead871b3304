"""VGG16 weights as other packages save them, under the layer names of `VGG16Reduced`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fssd.backbones.decimate import decimate_fc6, decimate_fc7
from fssd.backbones.pixel_statistics import CAFFE_MEAN, TORCHVISION_MEAN, TORCHVISION_STD

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
    if "conv1_1.weight" not in layers or layers["conv1_1.weight"].shape[1:] != (3, 3, 3):
        return layers  # whoever fills a network says that they do not fit
    first = names["conv1_1.weight"]
    if (colours or ("bgr" if first == "0.weight" else "rgb")) == "bgr":
        layers["conv1_1.weight"] = layers["conv1_1.weight"].flip(1)
    if first == "features.0.weight" and "conv1_1.bias" in layers and _is_classifier(tensors):
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
    """Make conv1_1 of a torchvision classifier read RGB 0..255 minus CAFFE_MEAN, in place.

    It was trained on (x - mean) / std of torchvision; both steps are linear and fold into the layer,
    exactly but for the zeros that pad the border.
    """
    weight, bias = tensors["conv1_1.weight"], tensors["conv1_1.bias"]
    scale = 1 / torch.tensor(TORCHVISION_STD)
    shift = torch.tensor(CAFFE_MEAN) - torch.tensor(TORCHVISION_MEAN)
    scaled = weight * scale[:, None, None]
    tensors["conv1_1.weight"] = scaled
    tensors["conv1_1.bias"] = bias + (scaled * shift[:, None, None]).sum(dim=(1, 2, 3))
