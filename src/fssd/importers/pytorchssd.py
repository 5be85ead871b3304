"""FSSD of the authors' PyTorch port, lzx1413/PytorchSSD, and of dlyldxwl/fssd.pytorch, which follows it.

Both are other networks than the Caffe one: the variant "pytorchssd" of `build_model`.
"""

from typing import Any

import torch

from fssd.backbones.vgg_weights import VGG_PLACES
from fssd.importers.foreign import Foreign, Imported, ratio_option
from fssd.necks.extras import fssd_extras
from fssd.necks.fssd import PORT_RATIOS, VGG_SOURCES
from fssd.necks.pyramid import pyramid_rows

ORIGIN = "the FSSD of lzx1413/PytorchSSD or dlyldxwl/fssd.pytorch"

# Files from before PyTorch 0.4.1 do not count batches. This many make the running statistics count as
# settled.
SETTLED = torch.tensor(100_000)


def import_pytorchssd(foreign: Foreign) -> Imported:
    """Its weights read BGR by default.

    The file does not say how maps were resized. By default PytorchSSD's own files align corners, because they
    were trained so; those of fssd.pytorch, recognised by the name extras.N.conv, do not. Raises
    CheckpointError for missing tensors, odd heads, or another model than the one asked for.
    """
    size, ratios, classes, heads = foreign.predicted("loc", "conf")
    foreign.must_hold(f"fssd{size}-vgg16")
    follower = foreign.has("extras.0.conv.")
    options: dict[str, Any] = {"variant": "pytorchssd", "priors": foreign.wanted.prior_table(classes)}
    if follower if foreign.wanted.align_corners is None else not foreign.wanted.align_corners:
        options["align_corners"] = False
    norm = {}
    if foreign.has("fea_bn."):
        kinds = ("weight", "bias", "running_mean", "running_var")
        norm = {f"neck.fusion.norm.{kind}": f"fea_bn.{kind}" for kind in kinds}
    else:
        options["norm"] = "none"
    tensors = foreign.take_detector(_layers(foreign, size, follower) | heads, norm, "bgr")
    if norm:
        counter = "fea_bn.num_batches_tracked"
        tensors["neck.fusion.norm.num_batches_tracked"] = foreign.tensors.get(counter, SETTLED)
        foreign.taken.add(counter)
    options |= ratio_option(ratios, PORT_RATIOS[size, size])
    return foreign.imported(options, classes, tensors)


def _layers(foreign: Foreign, size: int, follower: bool) -> dict[str, str]:
    """Their name of each convolution below the heads, by ours."""
    base = "base.layers" if foreign.has("base.layers.") else "base"
    conv = ".conv" if follower else ""
    layers = {f"backbone.{layer}": f"{base}.{index}" for index, layer in VGG_PLACES.items()}
    layers |= {f"neck.extras.{row.name}.0": f"extras.{i}{conv}" for i, row in enumerate(fssd_extras())}
    layers |= {f"neck.fusion.transform.{name}.0": f"ft_module.{i}.conv" for i, name in enumerate(VGG_SOURCES)}
    cells = -(-size // 8)  # of the fused map, on a side
    for level, row in enumerate(pyramid_rows((cells, cells))):
        layers[f"neck.pyramid.blocks.{row.name}.0"] = f"pyramid_ext.{level}.conv"
    return layers
